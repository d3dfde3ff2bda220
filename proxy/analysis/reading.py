"""The records of one file of NDJSON: plain, gzip or zstd of any number of frames, and growing.

Decides how bytes become lines in bounded memory, and what is damage. The format is told by the
first bytes, not by the name. A reading goes on where it stopped, so the same code reads a file
once, or follows it as it grows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import orjson
import zstandard

from proxy.analysis.source import Record, Source

#: How much a decompressor gets at once. It answers with all that this unpacks to, so that a frame
#: of zeros makes 32 MB of one such piece; larger pieces are no faster (2.6 GB/s out of it).
READ_BYTES: Final = 1024
BUFFER_BYTES: Final = 256 * 1024
#: A line longer than this is no pair: two bodies at their limit fit several times.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024

PARQUET_MAGIC: Final = b"PAR1"
_MAGIC_BYTES = 4
_ZSTD_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))


class Reading(Protocol):
    """One file being read."""

    def records(self) -> Iterator[Record]:
        """Yield what is there and was not read before. Raises OSError."""
        ...

    def finish(self) -> Iterator[Record]:
        """Yield what makes sense only now that nothing will follow; what does not is counted."""
        ...


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


class LineReading:
    """Reads a file of NDJSON onwards from `offset`.

    Args:
        path: the file.
        source: whose statistics count what was read, and what was bad.
        offset: where to begin; behind the first byte, the first line's number is not known.
        stop: where to end, for the present; None: at the file's end.
    """

    def __init__(
        self, path: Path, source: Source, offset: int = 0, stop: int | None = None
    ) -> None:
        self._path = path
        self._source = source
        self._statistics = source.statistics()
        self._offset = offset
        self._stop = stop
        self._number = 1
        self._tail = b""
        self._codec: _Codec | None = None
        self._is_format_known = False
        self._decoder: _Decoder | None = None

    @property
    def has_more(self) -> bool:
        """Whether the file is longer than what was read. False once it is gone."""
        try:
            return self._path.stat().st_size > self._offset
        except OSError:
            return False

    def records(self) -> Iterator[Record]:
        """Yield the records of all whole lines up to the file's present end.

        Raises:
            OSError: the file cannot be read.
        """
        with self._path.open("rb", buffering=BUFFER_BYTES) as stream:
            if not self._is_format_known and not self._sniff(stream.read(_MAGIC_BYTES)):
                return
            stream.seek(self._offset)
            yield from self._lines(stream)

    def finish(self) -> Iterator[Record]:
        """Yield a last line that has no newline; a part of one or of a frame is counted as torn."""
        if not self._is_format_known:
            self._is_format_known = True
            yield from self.records()
        if self._decoder is not None:
            self._torn()
        elif not self._tail.strip():
            return
        elif _is_whole(self._tail):
            yield from self._source.parse([self._tail], self._path.name, self._number)
        else:
            self._torn()

    def _sniff(self, head: bytes) -> bool:
        """Tell the format by the file's first bytes; return whether there were enough."""
        if len(head) < _MAGIC_BYTES:
            return False
        if head.startswith(_ZSTD.magic) or head in _ZSTD_SKIPPABLE:
            self._codec = _ZSTD
        elif head.startswith(_GZIP.magic):
            self._codec = _GZIP
        self._is_format_known = True
        return True

    def _lines(self, stream: BinaryIO) -> Iterator[Record]:
        reads = self._reads(stream)
        for chunk in reads if self._codec is None else self._unpacked(reads, self._codec):
            lines = chunk.split(b"\n")
            if self._tail:
                lines[0] = self._tail + lines[0]
            self._tail = lines.pop()
            if len(self._tail) > MAX_LINE_BYTES:
                lines.append(self._tail[:32])
                self._tail = b""
            number = self._number
            self._number += len(lines)
            yield from self._source.parse(lines, self._path.name, number)

    def _reads(self, stream: BinaryIO) -> Iterator[bytes]:
        while data := stream.read(self._next_bytes()):
            self._offset += len(data)
            self._statistics.done += len(data)
            yield data

    def _next_bytes(self) -> int:
        return READ_BYTES if self._stop is None else min(READ_BYTES, self._stop - self._offset)

    def _unpacked(self, reads: Iterator[bytes], codec: _Codec) -> Iterator[bytes]:
        """Yield the content of all frames, skipping what is damaged."""
        for read in reads:
            data = read
            while data:
                is_fresh = self._decoder is None
                decoder = self._decoder = self._decoder or codec.make()
                try:
                    plain = decoder.decompress(data)
                except codec.error as exc:
                    self._statistics.corrupt += 1
                    self._statistics.note(f"{self._path.name}: damaged: {exc}")
                    self._decoder = None
                    found = data.find(codec.magic, int(is_fresh))
                    data = data[found:] if found >= 0 else b""
                    yield b"\n"  # what came before must not run into what follows
                    continue
                if plain:
                    yield plain
                data = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    self._decoder = None

    def _torn(self) -> None:
        self._statistics.torn += 1
        self._statistics.note(f"{self._path.name}: ends in the middle (still written, or cut)")


def open_reading(path: Path, source: Source) -> Reading:
    """Return the reading of a whole file, from its beginning.

    Raises:
        OSError: the file cannot be read.
        SourceError: it is Parquet, and the packages to read that are not installed.
    """
    with path.open("rb") as stream:
        head = stream.read(_MAGIC_BYTES)
    if head == PARQUET_MAGIC:
        # pyarrow is an extra, and takes a tenth of a second to import.
        from proxy.analysis.parquet import ParquetReading  # noqa: PLC0415

        return ParquetReading(path, source)
    return LineReading(path, source)


def _is_whole(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
