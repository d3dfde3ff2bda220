"""The recorder's end of the journal: whole lines out, in bounded windows, from a durable position.

It decides what is read next and when a segment may be removed. It never decides that a pair is
delivered: `commit` is called with a position only after the sink has acknowledged everything before
it, so a crash in between reads those lines again, never fewer.

Two cursors read: one the oldest lines and, while it is far behind (after an outage of the sink), one
the newest segment, so that fresh evidence does not wait for hours of old. Each segment that is read
out of turn has a position of its own, up to which it is done; the first cursor enters it there. When
the first reaches the segment of the second, the second is over.

A segment that was read out of turn to its end is removed, unless pairs of it are missing: then it waits
for the first cursor, which counts them as damaged.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.errors import StateError
from proxy.journal.cursor import Batch, Cursor
from proxy.journal.held import HeldSegments
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

#: Ended segments behind the one that is read, from which on the newest are read beside the oldest.
BEHIND_SEGMENTS = 2

_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        ahead: of later segments, up to where they are durably done, too.
        accounts: the totals that were committed with both, over all starts.
        notes: what else was committed with them.

    Args:
        directory: of the journal.
        window_bytes: compressed bytes that are read at once.
        pairs_of: how many pairs were written into a segment; None when nobody knows.

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
        self._window_bytes = window_bytes
        try:
            self._lock = take_lock(directory, READER_LOCK)
        except OSError as exc:
            raise StateError(f"cannot use the journal in {directory}: {exc.strerror}") from exc
        self._held = HeldSegments(directory, pairs_of)
        shipped = load_shipped(directory)
        self.committed = shipped.position
        self.ahead = dict(shipped.ahead)
        self.accounts = dict(shipped.accounts)
        self.notes = shipped.notes
        # Up to where segments have been read out of turn, and where those that are over end.
        self._read_ahead = dict(shipped.ahead)
        self._ends: dict[int, Position] = {}
        self._oldest = self._cursor(shipped.position)
        self._newest: Cursor | None = None
        self._lines = 0
        self._skipped_bytes = 0

    def read(self, max_bytes: int) -> Batch:
        """Return the next lines, about `max_bytes` of them (uncompressed); it moves on.

        At least one frame is returned when there is one, and never half a frame. An empty batch
        means that the writer has flushed nothing more.

        Raises:
            OSError: a segment exists and cannot be read, and what is before it has been.
        """
        batch = Batch()
        self._oldest.read(batch, max_bytes)
        reached = batch.position.segment
        if self._newest is not None and reached >= self._newest.position.segment:
            self._newest = None
        for known in (self._read_ahead, self._ends):
            for number in [n for n in known if n < reached]:
                del known[number]
        return self._counted(batch)

    def read_newest(self, max_bytes: int) -> Batch | None:
        """Return the next lines of the newest segment, None unless `read` is far behind it.

        Far means `BEHIND_SEGMENTS`. All lines of a batch are of one segment. It may be empty.

        Raises:
            OSError: a segment exists and cannot be read, and what is before it has been.
        """
        self._look_ahead()
        if self._newest is None:
            return None
        before = self._newest.position
        batch = Batch(is_ahead=True)
        self._newest.read(batch, max_bytes)
        if before.segment in batch.left:
            self._ends[before.segment] = before
        self._read_ahead[batch.position.segment] = batch.position
        return self._counted(batch)

    def commit(
        self,
        position: Position,
        accounts: Mapping[str, int] | None = None,
        ahead: Mapping[int, Position] | None = None,
        notes: Any = None,
    ) -> None:
        """Make `position` durable, with the totals that hold at it; remove segments that are done.

        Args:
            position: of the latest batch of `read` that is delivered.
            accounts: the totals; None leaves them.
            ahead: of each later segment the position of its latest batch of `read_newest` that is
                delivered; None leaves them.
            notes: JSON values that hold at it, too; None leaves them.

        Raises:
            OSError: the disk refuses; the old position and accounts are still in force.
        """
        fresh = self.accounts if accounts is None else dict(accounts)
        places = self.ahead if ahead is None else ahead
        places = {n: place for n, place in places.items() if n > position.segment}
        kept = self.notes if notes is None else notes
        shipped = Shipped(position, fresh, places, kept)
        try:
            store_shipped(self._directory, shipped)
        except OSError as exc:
            if exc.errno not in _FULL or not self._remove_done(shipped):
                raise
            # Only what is shipped can make room on a full disk, and the position needs a block of
            # it. A crash right here forgets the accounts of what was removed; it ships none twice.
            store_shipped(self._directory, shipped)
        self.committed, self.accounts, self.ahead, self.notes = position, fresh, places, kept
        self._remove_done(shipped)
        self._held.let_go(n for n in self._held.numbers if not self._is_in_hand(n))

    def close(self) -> None:
        """Let the journal go; harmless when repeated."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        self._held.let_go(self._held.numbers)

    def statistics(self) -> ReaderStatistics:
        """Return a snapshot; looks at the directory for the backlog."""
        sizes = segment_sizes(self._directory)
        shipped = Shipped(self.committed, ahead=self.ahead)
        done = {number: shipped.offset_in(number) for number in sizes}
        backlog = sum(sizes[number] - at for number, at in done.items() if at is not None)
        return ReaderStatistics(self._lines, self._skipped_bytes, max(0, backlog), self.committed)

    def _cursor(self, position: Position) -> Cursor:
        return Cursor(self._held, position, self._window_bytes, self._read_ahead)

    def _look_ahead(self) -> None:
        """Let the second cursor begin at the newest segment when all others are far behind it."""
        foremost = self._newest or self._oldest
        later = [n for n in segment_numbers(self._directory) if n > foremost.position.segment]
        if len(later) >= BEHIND_SEGMENTS:
            self._newest = self._cursor(self._read_ahead.get(later[-1], Position(later[-1])))

    def _remove_done(self, shipped: Shipped) -> int:
        """Let go of the segments that are done with `shipped`, and remove them; return how many."""
        done = [n for n in segment_numbers(self._directory) if self._is_done(n, shipped)]
        self._held.let_go(done)
        for number in done:
            with suppress(FileNotFoundError):
                segment_path(self._directory, number).unlink()
        return len(done)

    def _is_done(self, number: int, shipped: Shipped) -> bool:
        """Return whether `shipped` has left a segment behind, or is at the end of it out of turn."""
        if number < shipped.position.segment:
            return True
        end = self._ends.get(number)
        return end is not None and shipped.ahead.get(number) == end

    def _is_in_hand(self, number: int) -> bool:
        """Return whether a cursor is in a segment, or has read of it what is not committed.

        One that the second cursor has left in the middle waits for the first, perhaps for hours: it
        must not be kept from being dropped that long.
        """
        if number <= self._oldest.position.segment:
            return number >= self.committed.segment
        if self._newest is not None and number == self._newest.position.segment:
            return True
        return self._read_ahead.get(number) != self.ahead.get(number)

    def _counted(self, batch: Batch) -> Batch:
        self._lines += len(batch.lines)
        self._skipped_bytes += batch.skipped_bytes
        return batch
