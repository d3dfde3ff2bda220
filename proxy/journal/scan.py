"""Reading frames out of bytes that may be torn, damaged or still growing.

It decides which frame comes next and that its content is what was written (zstd's own checksum
says so). It does not decide what a missing frame means: at the end of a growing segment one waits,
at the end of an ended one the rest is lost.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import zstandard

from proxy.journal.frames import Buffer, CorruptFrameError, find_frame, frame_end


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame: where it starts and ends in the buffer, and what it holds."""

    start: int
    end: int
    content: bytes


def next_frame(buf: Buffer, start: int, zstd: zstandard.ZstdDecompressor) -> Frame | None:
    """Return the first whole and undamaged frame at or after `start`; None if there is none.

    Damage before it is stepped over: the caller sees it as `frame.start - start` bytes.
    """
    position: int | None = start
    while position is not None:
        try:
            end = frame_end(buf, position)
            if end is not None:
                return Frame(position, end, zstd.decompress(buf[position:end]))
        except (CorruptFrameError, zstandard.ZstdError):
            pass  # an incomplete frame is tried past, too: damage can make one claim too much
        position = find_frame(buf, position + 1)
    return None


def count_lines(path: Path, offset: int) -> int:
    """Return how many lines the undamaged frames of a segment hold from `offset` on.

    Raises:
        OSError: the file cannot be read.
    """
    lines = 0
    zstd = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return 0
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            frame = next_frame(mapping, offset, zstd)
            while frame is not None:
                lines += frame.content.count(b"\n")
                frame = next_frame(mapping, frame.end, zstd)
    return lines
