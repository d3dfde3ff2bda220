"""A place in the journal that moves over frames, segments and damage, a window at a time.

It decides what has been read and what is damage. It knows nothing of positions that are durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO

import zstandard

from proxy.journal.frames import MAX_CONTENT_BYTES, CorruptFrameError, find_frame, frame_end
from proxy.journal.held import HeldSegments
from proxy.journal.scan import next_frame
from proxy.journal.segments import Position, segment_numbers

# A frame that does not compress is a little larger than its content.
_MAX_WINDOW_BYTES = MAX_CONTENT_BYTES + 1024 * 1024


@dataclass(slots=True)
class Batch:
    """What one `read` found.

    Attributes:
        lines: the lines, in the order they were written, without newlines.
        position: everything before it is in this batch or an earlier one, or was read ahead.
        content_bytes: size of the lines, newlines included; below what was asked for, it says
            that there is no more for now.
        skipped_bytes: damage that was stepped over, compressed bytes.
        damaged_pairs: what segments that have been left behind held more than could be read of them.
        left: segments that have been left behind and of which no pair is missing.
        is_ahead: it is of `read_newest`: what lies before the segment is not read yet.
    """

    lines: list[bytes] = field(default_factory=list)
    position: Position = field(default_factory=Position)
    content_bytes: int = 0
    skipped_bytes: int = 0
    damaged_pairs: int = 0
    left: set[int] = field(default_factory=set)
    is_ahead: bool = False


class Cursor:
    """Reads on from a position.

    Attributes:
        position: everything before it has been read.

    Args:
        held: the journal's segments; those that are read are held.
        position: where to begin.
        window_bytes: compressed bytes loaded at once.
        ahead: where later segments are to be entered, if not at their beginning; looked at then. The
            pairs that were read of them go on being counted from there.
    """

    def __init__(
        self,
        held: HeldSegments,
        position: Position,
        window_bytes: int,
        ahead: Mapping[int, Position],
    ) -> None:
        self.position = position
        self._held = held
        self._base_window_bytes = self._window_bytes = window_bytes
        self._ahead = ahead
        self._zstd = zstandard.ZstdDecompressor()
        # What has been loaded from the position on, and how much of it lies behind it by now.
        self._window = b""
        self._taken = 0

    def read(self, batch: Batch, max_bytes: int) -> None:
        """Fill `batch` with about `max_bytes`; one that is ahead gets lines of one segment only.

        Raises:
            OSError: a segment exists and cannot be read, and what is before it has been.
        """
        start = self.position
        try:
            while batch.content_bytes < max_bytes and self._take(batch, max_bytes):
                pass
        except OSError:
            if self.position == start:
                raise
        batch.position = self.position

    def _take(self, batch: Batch, max_bytes: int) -> bool:
        """Move the cursor once, over frames, damage or a segment's end; False at the end for now."""
        taken, pairs = self._take_frames(batch, max_bytes)
        if taken:
            self._advance(taken, pairs)
            self._window_bytes = self._base_window_bytes
            return True
        # Looked up before the file is read: a segment with a newer one beside it has ended, so
        # what is read of it afterwards is all there will ever be.
        numbers = segment_numbers(self._held.directory)
        newer = next((n for n in numbers if n > self.position.segment), 0)
        known_bytes = len(self._window) - self._taken
        self._window, self._taken = self._load(), 0
        if len(self._window) > known_bytes:
            return True  # there is more of it than was just looked through
        if len(self._window) == self._window_bytes:
            self._widen_or_skip(batch)
        elif newer and not (batch.is_ahead and batch.lines):
            self._leave(batch, newer)
        else:
            return False
        return True

    def _leave(self, batch: Batch, newer: int) -> None:
        """Go on from the end of a segment. Damage is counted once: by who comes by in its turn."""
        damaged_pairs = self._held.damaged_pairs(self.position)
        if not (damaged_pairs and batch.is_ahead):
            batch.skipped_bytes += len(self._window)
            batch.damaged_pairs += damaged_pairs
        if not damaged_pairs:
            batch.left.add(self.position.segment)
        self.position = self._ahead.get(newer, Position(newer))
        self._window = b""

    def _take_frames(self, batch: Batch, max_bytes: int) -> tuple[int, int]:
        """Take whole frames of the window while there is room; return their bytes and pairs."""
        window, at, known_lines = self._window, self._taken, len(batch.lines)
        while batch.content_bytes < max_bytes and at < len(window):
            frame = next_frame(window, at, self._zstd)
            if frame is None:
                break
            batch.skipped_bytes += frame.start - at
            batch.lines += _lines(frame.content)
            batch.content_bytes += len(frame.content)
            at = frame.end
        return at - self._taken, len(batch.lines) - known_lines

    def _advance(self, step: int, pairs: int = 0) -> None:
        """Move the cursor inside the window."""
        at = self.position
        self.position = Position(at.segment, at.offset + step, at.pairs + pairs)
        self._taken += step

    def _load(self) -> bytes:
        """Return the window at the cursor; empty when the segment is gone or has no more."""
        at = self.position
        return self._held.read(at.segment, self._window_bytes, at.offset)

    def _widen_or_skip(self, batch: Batch) -> None:
        """Handle a full window without a whole frame: a large frame, or damage."""
        window = self._window
        try:
            frame_end(window, 0)
            is_frame = len(window) < _MAX_WINDOW_BYTES
        except CorruptFrameError:
            is_frame = False
        if is_frame:
            self._window_bytes = min(2 * self._window_bytes, _MAX_WINDOW_BYTES)
            return
        # Three bytes are kept: they may be the beginning of a magic number.
        step = find_frame(window, 1) or len(window) - 3
        batch.skipped_bytes += step
        self._advance(step)


def _lines(content: bytes) -> list[bytes]:
    """Return the lines of a frame without newlines; empty ones are left out.

    BytesIO looks for newlines by memchr, `bytes.split` byte by byte: a fifth of its time.
    """
    if content[-1:] != b"\n":
        content += b"\n"
    return [line[:-1] for line in BytesIO(content) if line != b"\n"]
