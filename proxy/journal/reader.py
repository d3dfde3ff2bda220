"""The recorder's end of the journal: whole lines out, in bounded windows, from a durable position.

It decides what has been read, what is damage and when a segment may be removed. It never decides
that a pair is delivered: `commit` is called with a position only after the sink has acknowledged
everything before it, so a crash in between reads those lines again, never fewer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import zstandard

from proxy.journal.frames import MAX_CONTENT_BYTES, CorruptFrameError, find_frame, frame_end
from proxy.journal.scan import count_lines, next_frame
from proxy.journal.segments import (
    READER_LOCK,
    Position,
    Shipped,
    load_shipped,
    segment_numbers,
    segment_path,
    store_shipped,
    take_lock,
)

#: Compressed bytes read at once; about 2 MiB of JSON pairs.
WINDOW_BYTES = 256 * 1024

# A frame that does not compress is a little larger than its content.
_MAX_WINDOW_BYTES = MAX_CONTENT_BYTES + 1024 * 1024


@dataclass(slots=True)
class Batch:
    """What one `read` found.

    Attributes:
        lines: the lines, in the order they were written, without newlines.
        position: everything before it is in this batch or an earlier one; pass it to `commit`.
        content_bytes: size of the lines, newlines included; below what was asked for, it says
            that there is no more for now.
        skipped_bytes: damage that was stepped over, compressed bytes.
        damaged_pairs: what segments that have been left behind held more than could be read of them.
    """

    lines: list[bytes] = field(default_factory=list)
    position: Position = field(default_factory=Position)
    content_bytes: int = 0
    skipped_bytes: int = 0
    damaged_pairs: int = 0


@dataclass(frozen=True, slots=True)
class ReaderStatistics:
    """A snapshot of a reader.

    Attributes:
        lines: read since the start.
        skipped_bytes: damage stepped over since the start.
        backlog_bytes: compressed bytes on disk behind the committed position.
        position: the committed position.
    """

    lines: int
    skipped_bytes: int
    backlog_bytes: int
    position: Position


class JournalReader:
    """The one reader of a journal directory; sees new segments and removals as they happen.

    Args:
        directory: of the journal.
        window_bytes: compressed bytes that are read at once.
        pairs_of: how many pairs were written into a segment; None when nobody knows.

    Attributes:
        committed: the durable position.
        accounts: the totals that were committed with it, over all starts.

    Raises:
        StateError: another process reads this journal, or the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        window_bytes: int = WINDOW_BYTES,
        pairs_of: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._pairs_of = pairs_of
        self._base_window_bytes = self._window_bytes = window_bytes
        self._zstd = zstandard.ZstdDecompressor()
        self._lock = take_lock(directory, READER_LOCK)
        shipped = load_shipped(directory)
        self.committed = shipped.position
        self.accounts = dict(shipped.accounts)
        self._cursor = shipped.position
        # What has been loaded from the cursor on, and how much of it lies behind the cursor by now.
        self._window = b""
        self._taken = 0
        self._lines = 0
        self._skipped_bytes = 0

    def read(self, max_bytes: int) -> Batch:
        """Return the next lines, about `max_bytes` of them (uncompressed); it moves on.

        At least one frame is returned when there is one, and never half a frame. An empty batch
        means that the writer has flushed nothing more.

        Raises:
            OSError: a segment exists and cannot be read; nothing was, it starts from there again.
        """
        batch, start = Batch(), self._cursor
        try:
            while batch.content_bytes < max_bytes and self._take(batch, max_bytes):
                pass
        except OSError:
            self._cursor, self._window, self._taken = start, b"", 0
            raise
        batch.position = self._cursor
        self._lines += len(batch.lines)
        self._skipped_bytes += batch.skipped_bytes
        return batch

    def commit(self, position: Position, accounts: Mapping[str, int] | None = None) -> None:
        """Make `position` durable, with the totals that hold at it; remove segments before it.

        Raises:
            OSError: the disk refuses; the old position and accounts are still in force.
        """
        fresh = self.accounts if accounts is None else dict(accounts)
        store_shipped(self._directory, Shipped(position, fresh))
        self.committed, self.accounts = position, fresh
        for number in segment_numbers(self._directory):
            if number < position.segment:
                with suppress(FileNotFoundError):
                    segment_path(self._directory, number).unlink()

    def close(self) -> None:
        """Let the journal go; harmless when repeated."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def statistics(self) -> ReaderStatistics:
        """Return a snapshot; looks at the directory for the backlog."""
        backlog = 0
        for number in segment_numbers(self._directory):
            if number >= self.committed.segment:
                with suppress(FileNotFoundError):
                    backlog += segment_path(self._directory, number).stat().st_size
                if number == self.committed.segment:
                    backlog -= self.committed.offset
        return ReaderStatistics(self._lines, self._skipped_bytes, max(0, backlog), self.committed)

    def _take(self, batch: Batch, max_bytes: int) -> bool:
        """Move the cursor once, over frames, damage or a segment's end; False at the end for now."""
        taken, pairs = self._take_frames(batch, max_bytes)
        if taken:
            self._advance(taken, pairs)
            self._window_bytes = self._base_window_bytes
            return True
        # Looked up before the file is read: a segment with a newer one beside it has ended, so
        # what is read of it afterwards is all there will ever be.
        newer = next((n for n in segment_numbers(self._directory) if n > self._cursor.segment), 0)
        known_bytes = len(self._window) - self._taken
        self._window, self._taken = self._load(), 0
        if len(self._window) > known_bytes:
            return True  # there is more of it than was just looked through
        if len(self._window) == self._window_bytes:
            self._widen_or_skip(batch)
        elif newer:
            batch.skipped_bytes += len(self._window)
            batch.damaged_pairs += self._damaged_pairs()
            self._cursor = Position(newer, 0)
            self._window = b""
        else:
            return False
        return True

    def _take_frames(self, batch: Batch, max_bytes: int) -> tuple[int, int]:
        """Take whole frames of the window while there is room; return their bytes and pairs."""
        window, at, pairs = self._window, self._taken, 0
        while batch.content_bytes < max_bytes and at < len(window):
            frame = next_frame(window, at, self._zstd)
            if frame is None:
                break
            batch.skipped_bytes += frame.start - at
            lines = _lines(frame.content)
            batch.lines += lines
            pairs += len(lines)
            batch.content_bytes += len(frame.content)
            at = frame.end
        return at - self._taken, pairs

    def _advance(self, step: int, pairs: int = 0) -> None:
        """Move the cursor inside the window."""
        at = self._cursor
        self._cursor = Position(at.segment, at.offset + step, at.pairs + pairs)
        self._taken += step

    def _damaged_pairs(self) -> int:
        """Return how many pairs of the segment at the cursor, now at its end, cannot be read.

        Counted where fewer were read than it should hold. One that is gone was dropped by the writer,
        which has counted what was not shipped of it.
        """
        at = self._cursor
        known = self._pairs_of(at.segment) or 0
        path = segment_path(self._directory, at.segment)
        if at.pairs >= known or not path.exists():
            return 0
        return max(0, known - max(at.pairs, count_lines(path, 0)))

    def _load(self) -> bytes:
        """Return the window at the cursor; empty when the segment is gone or has no more."""
        try:
            path = segment_path(self._directory, self._cursor.segment)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(descriptor, self._window_bytes, self._cursor.offset)
        finally:
            os.close(descriptor)

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
