"""A source's files cut into parts that processes read on their own, and the reading of one part.

Decides where a file may be cut: Parquet between row groups, zstd between frames if the one before ends
with a whole line; anything else is one part. The order of parts is that of the source.
"""

from __future__ import annotations

import mmap
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import zstandard

from proxy.analysis.reading import PARQUET_MAGIC, LineReading
from proxy.analysis.source import Block, Record, Source, SourceStatistics
from proxy.errors import SourceError
from proxy.journal.frames import MAGIC, CorruptFrameError, content_bytes, find_frame, frame_end

#: Compressed bytes of a part: half a second of work, so that processes end at about the same time.
PART_BYTES: Final = 8 * 1024 * 1024
#: Rows of a part of a Parquet file; a row group is never cut.
PART_ROWS: Final = 400_000
#: Uncompressed bytes that are counted at once, or one frame if that holds more.
BLOCK_BYTES: Final = 2 * 1024 * 1024
#: Frames that hold more are read in steps, so that memory stays flat.
MAX_FRAME_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """Something to read on its own.

    Attributes:
        path: the file.
        start, stop: bytes of a zstd file from one frame's start to another's; stop None: the end.
        row_groups: of a Parquet file; None: it is none.
        size_bytes: its share of the file.
    """

    path: Path
    start: int = 0
    stop: int | None = None
    row_groups: tuple[int, ...] | None = None
    size_bytes: int = 0


def parts_of(paths: Sequence[Path]) -> Iterator[Part]:
    """Yield the parts of all files, in order; a file that is gone is one part, too."""
    for path in paths:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                magic = file.read(len(MAGIC))
        except OSError:
            yield Part(path)
            continue
        if magic == PARQUET_MAGIC:
            yield from _of_parquet(path, size)
        elif magic == MAGIC and size > PART_BYTES:
            yield from _of_frames(path, size)
        else:
            yield Part(path, size_bytes=size)


def _of_parquet(path: Path, size: int) -> Iterator[Part]:
    # pyarrow is an extra, and takes a tenth of a second to import.
    from proxy.analysis.parquet import row_counts  # noqa: PLC0415

    counts = row_counts(path)
    groups: list[int] = []
    rows = 0
    for number, count in enumerate(counts):
        groups.append(number)
        rows += count
        if rows >= PART_ROWS or number == len(counts) - 1:
            share = size * len(groups) // len(counts)
            yield Part(path, row_groups=tuple(groups), size_bytes=share)
            groups, rows = [], 0
    if not counts:
        yield Part(path, row_groups=(), size_bytes=size)


def _of_frames(path: Path, size: int) -> Iterator[Part]:
    start = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapping:
        zstd = zstandard.ZstdDecompressor()
        position = 0
        while position < size:
            try:
                end = frame_end(mapping, position)
                is_full = end is not None and end - start >= PART_BYTES
                if end is not None and is_full and _ends_line(mapping, position, end, zstd):
                    yield Part(path, start, end, size_bytes=end - start)
                    start = end
            except (CorruptFrameError, zstandard.ZstdError):
                end = None
            following = end if end is not None else find_frame(mapping, position + 1)
            position = size if following is None else following
    if start < size or not start:
        yield Part(path, start, None, size_bytes=size - start)


def _ends_line(mapping: mmap.mmap, start: int, end: int, zstd: zstandard.ZstdDecompressor) -> bool:
    content = content_bytes(mapping, start)
    if content is None or content > MAX_FRAME_BYTES:
        return False
    return zstd.decompress(mapping[start:end]).endswith(b"\n")


class Frame(NamedTuple):
    """What a frame holds, and where in the file it starts."""

    content: bytes
    position: int


class PartSource(Source):
    """The records of one part that holds lines."""

    def __init__(self, part: Part) -> None:
        super().__init__(SourceStatistics(str(part.path), "files", parts=1))
        self._part = part

    def __iter__(self) -> Iterator[Record]:
        for block in self.blocks():
            yield from block.records

    def blocks(self) -> Iterator[Block]:
        """Yield all lines, in blocks; each one's records are read before the next is asked for.

        Raises:
            SourceError: the file cannot be read.
        """
        part, statistics = self._part, self._statistics
        try:
            yield from self._blocks()
        except FileNotFoundError:
            statistics.note(f"{part.path.name}: removed while reading")
        except OSError as exc:
            raise SourceError(f"cannot read {part.path}: {exc.strerror or exc}") from exc
        statistics.offsets[part.path.name] = part.start + statistics.done

    def _blocks(self) -> Iterator[Block]:
        """Yield whole frames; from a damaged or torn one on, what there is without its bytes."""
        part = self._part
        with part.path.open("rb") as file:
            head = file.read(len(MAGIC))
            size = file.seek(0, 2)
            if head == MAGIC and size:
                with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapping:
                    stop = size if part.stop is None else min(part.stop, size)
                    position = yield from self._joined(self._frames(mapping, part.start, stop))
                if position >= stop:
                    return
            else:
                position = part.start
        reading = LineReading(part.path, self, position, part.stop)
        yield Block(b"", chain(reading.records(), reading.finish()))

    def _joined(self, frames: Generator[Frame, None, int]) -> Generator[Block, None, int]:
        """Yield blocks of frames; return what `frames` returns."""
        waiting: list[Frame] = []
        size = 0
        while True:
            try:
                frame = next(frames)
            except StopIteration as stop:
                if waiting:
                    yield self._block(waiting)
                position: int = stop.value
                return position
            waiting.append(frame)
            size += len(frame.content)
            if size >= BLOCK_BYTES:
                yield self._block(waiting)
                waiting, size = [], 0

    def _block(self, frames: list[Frame]) -> Block:
        content = frames[0].content if len(frames) == 1 else b"".join(f.content for f in frames)
        return Block(content, chain.from_iterable(self._lines(*frame) for frame in frames))

    def _frames(self, mapping: mmap.mmap, start: int, stop: int) -> Generator[Frame, None, int]:
        """Yield the frames that end with whole lines; return where it could not go on."""
        zstd = zstandard.ZstdDecompressor()
        position = start
        while position < stop:
            try:
                end = frame_end(mapping, position)
                size = content_bytes(mapping, position)
                if end is None or size is None or size > MAX_FRAME_BYTES:
                    return position
                content = zstd.decompress(mapping[position:end])
            except (CorruptFrameError, zstandard.ZstdError):
                return position
            if not content.endswith(b"\n"):
                return position
            yield Frame(content, position)
            self._statistics.done += end - position
            position = end
        return position

    def _lines(self, content: bytes, position: int) -> Iterator[Record]:
        """Yield the records of the frame at `position`, one at a time.

        Splitting a whole frame at once, or counting its lines, costs as much as a third of parsing.
        """
        start, number, find, loads = 0, 0, content.find, orjson.loads
        while (end := find(b"\n", start)) >= 0:
            line, start = content[start:end], end + 1
            number += 1
            try:
                record = loads(line)
            except orjson.JSONDecodeError as exc:
                if line.strip():
                    self._note(position, number, str(exc))
                continue
            if type(record) is dict:
                yield record
            else:
                self._note(position, number, "not a JSON object")

    def _note(self, position: int, number: int, what: str) -> None:
        self.note_bad(f"{self._part.path.name}: line {number} of the frame at {position}: {what}")
