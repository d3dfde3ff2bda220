"""Where pairs are read from: a path or a Kafka topic, as one stream of records.

Decides what a source's name means, and turns bytes into records in bounded memory. A bad line or
a torn end is counted and told, never fatal: logs are read while they are written, and after
crashes. It does not decide whether a JSON object is a pair; `proxy.analysis.aggregate` does.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import orjson
import zstandard

from proxy.errors import SourceError

Record = dict[str, Any]

#: Endings of the files that are read from a folder.
ENDINGS: Final = tuple(
    kind + packed for kind in (".ndjson", ".jsonl") for packed in ("", ".zst", ".gz")
)
#: How much a decompressor gets at once. It answers with all that this unpacks to, so that a frame
#: of zeros makes 32 MB of one such piece; larger pieces are no faster (2.6 GB/s out of it).
READ_BYTES: Final = 1024
BUFFER_BYTES: Final = 256 * 1024
#: A line longer than this is no pair: two bodies at their limit fit several times.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
#: Examples of bad lines that are kept for the report.
MAX_EXAMPLES: Final = 3

_ZSTD_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))


class MissingTopicError(SourceError):
    """There is no such topic, or we may not describe it."""


@dataclass(slots=True)
class SourceStatistics:
    """What became of a source so far.

    Attributes:
        name: as the operator gave it.
        kind: `files` or `kafka`.
        parts: files or partitions.
        done, total: bytes of files, or records of a topic: how far the reading is.
        bad_lines: lines, or messages, that were no JSON object.
        torn: files that ended in the middle of a frame or line, as after a crash or while written.
        corrupt: damaged regions that were skipped.
        examples: where the first bad things are and what they are.
        is_window: only a part of a longer stream was read, so gaps at its edges mean nothing.
    """

    name: str
    kind: str
    parts: int = 0
    done: int = 0
    total: int = 0
    bad_lines: int = 0
    torn: int = 0
    corrupt: int = 0
    examples: list[str] = field(default_factory=list)
    is_window: bool = False

    def note(self, example: str) -> None:
        """Keep `example` if there is room."""
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


class Source(ABC):
    """A bounded stream of records; iterate it once.

    Iterating raises `SourceError` when the source cannot be read (any more).
    """

    def __init__(self, statistics: SourceStatistics) -> None:
        self._statistics = statistics

    @abstractmethod
    def __iter__(self) -> Iterator[Record]: ...

    def statistics(self) -> SourceStatistics:
        """Return the live counts; they are final once iteration has ended."""
        return self._statistics

    def parse(self, lines: Iterable[bytes], place: str, number: int = 1) -> Iterator[Record]:
        """Yield the JSON objects in `lines`; what is none is counted as bad.

        Args:
            lines: without their newlines; blank ones are passed over.
            place: what the lines belong to, for the report.
            number: number of the first one there.
        """
        for count, line in enumerate(lines, number):
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as exc:
                if line.strip():
                    self._bad(f"{place}:{count}: {exc}")
                continue
            if type(record) is dict:
                yield record
            else:
                self._bad(f"{place}:{count}: not a JSON object")

    def _bad(self, example: str) -> None:
        self._statistics.bad_lines += 1
        self._statistics.note(example)


class _Decoder(Protocol):
    """What zlib's and zstandard's one-frame decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Codec:
    """A compressed format of independent frames; `magic` is how a frame starts."""

    magic: bytes
    make: Callable[[], _Decoder]
    error: type[Exception]


_ZSTD = _Codec(b"\x28\xb5\x2f\xfd", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)
_GZIP = _Codec(b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31), zlib.error)


class FileSource(Source):
    """Files of NDJSON, one after the other: plain, gzip or zstd of any number of frames.

    The format is told by the first bytes, not by the name.
    """

    def __init__(self, name: str, paths: list[Path]) -> None:
        super().__init__(SourceStatistics(name, "files", parts=len(paths)))
        self._paths = paths
        self._statistics.total = sum(_size(path) for path in paths)

    def __iter__(self) -> Iterator[Record]:
        for path in self._paths:
            try:
                with path.open("rb", buffering=BUFFER_BYTES) as stream:
                    yield from self._records(path, stream)
            except FileNotFoundError:
                self._statistics.note(f"{path.name}: removed while reading")
            except OSError as exc:
                raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc

    def _records(self, path: Path, stream: BinaryIO) -> Iterator[Record]:
        number, tail, torn_before = 1, b"", self._statistics.torn
        for chunk in self._plain(path, stream):
            lines = chunk.split(b"\n")
            if tail:
                lines[0] = tail + lines[0]
            tail = lines.pop()
            if len(tail) > MAX_LINE_BYTES:
                lines.append(tail[:32])
                tail = b""
            yield from self.parse(lines, path.name, number)
            number += len(lines)
        if not tail.strip() or self._statistics.torn > torn_before:
            return
        if _is_whole(tail):
            yield from self.parse([tail], path.name, number)
        else:
            self._torn(path)

    def _torn(self, path: Path) -> None:
        self._statistics.torn += 1
        self._statistics.note(f"{path.name}: ends in the middle (still written, or cut)")

    def _plain(self, path: Path, stream: BinaryIO) -> Iterator[bytes]:
        head = stream.read(4)
        stream.seek(0)
        if head.startswith(_ZSTD.magic) or head in _ZSTD_SKIPPABLE:
            return self._unpacked(path, stream, _ZSTD)
        if head.startswith(_GZIP.magic):
            return self._unpacked(path, stream, _GZIP)
        if head == b"PAR1":
            raise SourceError(f"{path} is a Parquet file; give NDJSON (plain, .gz or .zst)")
        return self._reads(stream)

    def _reads(self, stream: BinaryIO) -> Iterator[bytes]:
        while data := stream.read(READ_BYTES):
            self._statistics.done += len(data)
            yield data

    def _unpacked(self, path: Path, stream: BinaryIO, codec: _Codec) -> Iterator[bytes]:
        """Yield the content of all frames, skipping what is damaged."""
        decoder: _Decoder | None = None
        for read in self._reads(stream):
            data = read
            while data:
                is_fresh = decoder is None
                decoder = decoder or codec.make()
                try:
                    plain = decoder.decompress(data)
                except codec.error as exc:
                    self._statistics.corrupt += 1
                    self._statistics.note(f"{path.name}: damaged: {exc}")
                    decoder = None
                    found = data.find(codec.magic, int(is_fresh))
                    data = data[found:] if found >= 0 else b""
                    yield b"\n"  # what came before must not run into what follows
                    continue
                if plain:
                    yield plain
                data = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder = None
        if decoder is not None:
            self._torn(path)


def open_source(name: str, *, since_ms: int | None = None) -> Source:
    """Return the source that `name` means; nothing of it is read yet.

    Args:
        name: `kafka://HOST:PORT[,HOST:PORT]/TOPIC`, a state directory (its `pairs` folder is
            read), a folder of `*.ndjson`, `*.ndjson.gz` or `*.ndjson.zst`, or one such file.
        since_ms: records before it are not needed; a source may skip them, or not.

    Raises:
        SourceError: the name makes no sense, or there is nothing at the path.
    """
    if name.startswith("kafka://"):
        # aiokafka takes a third of a second to import, which readers of files need not wait for.
        from proxy.analysis.kafka_source import KafkaSource, parse_topic  # noqa: PLC0415

        return KafkaSource(parse_topic(name), since_ms=since_ms)
    if "://" in name:
        raise SourceError(f"{name}: a source is a path or kafka://HOST:PORT/TOPIC")
    return FileSource(name, _files(Path(name)))


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            folder = path / "pairs" if (path / "pairs").is_dir() else path
            return sorted(p for p in folder.iterdir() if p.name.endswith(ENDINGS) and p.is_file())
        if path.exists():
            return [path]
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    raise SourceError(f"there is nothing at {path}")


def _is_whole(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
