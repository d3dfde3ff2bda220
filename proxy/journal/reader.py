"""The recorder's end of the journal: whole lines out, in bounded windows, from a durable position.

It decides what has been read, what is damage and when a segment may be removed. It never decides
that a pair is delivered: `commit` is called with a position only after the sink has acknowledged
everything before it, so a crash in between reads those lines again, never fewer.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import zstandard

from proxy.errors import StateError
from proxy.journal.frames import MAX_CONTENT_BYTES, CorruptFrameError, find_frame, frame_end
from proxy.journal.scan import next_frame
from proxy.journal.segments import (
    READER_LOCK,
    Position,
    Shipped,
    load_shipped,
    segment_numbers,
    segment_path,
    segment_sizes,
    store_shipped,
    take_lock,
)

#: Compressed bytes read at once; about 2 MiB of JSON pairs.
WINDOW_BYTES = 256 * 1024

_FULL = (errno.ENOSPC, errno.EDQUOT)

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
    """

    lines: list[bytes] = field(default_factory=list)
    position: Position = field(default_factory=Position)
    content_bytes: int = 0
    skipped_bytes: int = 0


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

    Attributes:
        committed: the durable position.
        accounts: the totals that were committed with it, over all starts.

    Raises:
        StateError: another process reads this journal, or the directory cannot be used.
    """

    def __init__(self, directory: Path, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._directory = directory
        self._base_window_bytes = self._window_bytes = window_bytes
        self._zstd = zstandard.ZstdDecompressor()
        try:
            self._lock = take_lock(directory, READER_LOCK)
        except OSError as exc:
            raise StateError(f"cannot use the journal in {directory}: {exc.strerror}") from exc
        self._held: dict[int, int] = {}
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
            OSError: a segment exists and cannot be read.
        """
        batch = Batch()
        while batch.content_bytes < max_bytes and self._take(batch, max_bytes):
            pass
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
        shipped = Shipped(position, fresh)
        try:
            store_shipped(self._directory, shipped)
        except OSError as exc:
            if exc.errno not in _FULL or not self._remove_before(position):
                raise
            # Only what is shipped can make room on a full disk, and the position needs a block of
            # it. A crash right here forgets the accounts of what was removed; it ships none twice.
            store_shipped(self._directory, shipped)
        self.committed, self.accounts = position, fresh
        self._remove_before(position)

    def close(self) -> None:
        """Let the journal go; harmless when repeated."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        while self._held:
            os.close(self._held.popitem()[1])

    def statistics(self) -> ReaderStatistics:
        """Return a snapshot; looks at the directory for the backlog."""
        sizes = segment_sizes(self._directory)
        backlog = sum(size for number, size in sizes.items() if number >= self.committed.segment)
        if self.committed.segment in sizes:
            backlog -= self.committed.offset
        return ReaderStatistics(self._lines, self._skipped_bytes, max(0, backlog), self.committed)

    def _take(self, batch: Batch, max_bytes: int) -> bool:
        """Move the cursor once, over frames, damage or a segment's end; False at the end for now."""
        taken = self._take_frames(batch, max_bytes)
        if taken:
            self._advance(taken)
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
            self._cursor = Position(newer, 0)
            self._window = b""
        else:
            return False
        return True

    def _take_frames(self, batch: Batch, max_bytes: int) -> int:
        """Take whole frames of the window while there is room; return how many bytes they are."""
        window, at = self._window, self._taken
        while batch.content_bytes < max_bytes and at < len(window):
            frame = next_frame(window, at, self._zstd)
            if frame is None:
                break
            batch.skipped_bytes += frame.start - at
            batch.lines += _lines(frame.content)
            batch.content_bytes += len(frame.content)
            at = frame.end
        return at - self._taken

    def _advance(self, step: int) -> None:
        """Move the cursor inside the window."""
        self._cursor = Position(self._cursor.segment, self._cursor.offset + step)
        self._taken += step

    def _load(self) -> bytes:
        """Return the window at the cursor; empty when the segment is gone or has no more."""
        descriptor = self._hold(self._cursor.segment)
        if descriptor is None:
            return b""
        return os.pread(descriptor, self._window_bytes, self._cursor.offset)

    def _hold(self, number: int) -> int | None:
        """Return a segment, held so that the writer does not drop it; None when it is gone."""
        if number in self._held:
            return self._held[number]
        path = segment_path(self._directory, number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        # Waits where the writer is about to drop it, some milliseconds; then it has another name.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            is_here = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            is_here = False
        if not is_here:
            os.close(descriptor)
            return None
        self._held[number] = descriptor
        return descriptor

    def _remove_before(self, position: Position) -> int:
        """Let go of the segments before `position` and remove them; return how many."""
        for number in [number for number in self._held if number < position.segment]:
            os.close(self._held.pop(number))
        before = [n for n in segment_numbers(self._directory) if n < position.segment]
        for number in before:
            with suppress(FileNotFoundError):
                segment_path(self._directory, number).unlink()
        return len(before)

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
