"""The recorder's end of the journal: whole lines out, in bounded windows, from a durable position.

It decides what is read next and when a segment may be removed. It never decides that a pair is
delivered: `commit` is called with a position only after the sink has acknowledged everything before
it, so a crash in between reads those lines again, never fewer.

Two cursors read: one the oldest lines and, while it is far behind (after an outage of the sink), one
the newest segment, so that fresh evidence does not wait for hours of old. Each segment that is read
out of turn has an offset of its own, up to which it is done; the first cursor enters it there. When
the first reaches the segment of the second, the second is over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.journal.cursor import Batch, Cursor
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

#: Ended segments behind the one that is read, from which on the newest are read beside the oldest.
BEHIND_SEGMENTS = 2


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
        ahead: of later segments, up to which offset they are durably done, too.
        accounts: the totals that were committed with both, over all starts.
        notes: what else was committed with them.

    Raises:
        StateError: another process reads this journal, or the directory cannot be used.
    """

    def __init__(self, directory: Path, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._directory = directory
        self._window_bytes = window_bytes
        self._lock = take_lock(directory, READER_LOCK)
        shipped = load_shipped(directory)
        self.committed = shipped.position
        self.ahead = dict(shipped.ahead)
        self.accounts = dict(shipped.accounts)
        self.notes = shipped.notes
        # Up to where segments have been read out of turn, and where those that are over end.
        self._read_ahead = dict(shipped.ahead)
        self._ends: dict[int, int] = {}
        self._oldest = self._cursor(shipped.position)
        self._newest: Cursor | None = None
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
            OSError: a segment exists and cannot be read.
        """
        self._look_ahead()
        if self._newest is None:
            return None
        before = self._newest.position
        batch = Batch(is_ahead=True)
        self._newest.read(batch, max_bytes)
        if batch.position.segment != before.segment:
            self._ends[before.segment] = before.offset
        self._read_ahead[batch.position.segment] = batch.position.offset
        return self._counted(batch)

    def commit(
        self,
        position: Position,
        accounts: Mapping[str, int] | None = None,
        ahead: Mapping[int, int] | None = None,
        notes: Any = None,
    ) -> None:
        """Make `position` durable, with the totals that hold at it; remove segments that are done.

        Args:
            position: of the latest batch of `read` that is delivered.
            accounts: the totals; None leaves them.
            ahead: of each later segment the offset of its latest batch of `read_newest` that is
                delivered; None leaves them.
            notes: JSON values that hold at it, too; None leaves them.

        Raises:
            OSError: the disk refuses; the old position and accounts are still in force.
        """
        fresh = self.accounts if accounts is None else dict(accounts)
        places = self.ahead if ahead is None else ahead
        places = {n: offset for n, offset in places.items() if n > position.segment}
        kept = self.notes if notes is None else notes
        store_shipped(self._directory, Shipped(position, fresh, places, kept))
        self.committed, self.accounts, self.ahead, self.notes = position, fresh, places, kept
        for number in segment_numbers(self._directory):
            if number < position.segment or self._is_over(number):
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
                backlog -= self.ahead.get(number, 0)
        return ReaderStatistics(self._lines, self._skipped_bytes, max(0, backlog), self.committed)

    def _cursor(self, position: Position) -> Cursor:
        return Cursor(self._directory, position, self._window_bytes, self._read_ahead)

    def _look_ahead(self) -> None:
        """Let the second cursor begin at the newest segment when all others are far behind it."""
        foremost = self._newest or self._oldest
        later = [n for n in segment_numbers(self._directory) if n > foremost.position.segment]
        if len(later) >= BEHIND_SEGMENTS:
            self._newest = self._cursor(Position(later[-1], self._read_ahead.get(later[-1], 0)))

    def _is_over(self, number: int) -> bool:
        """Return whether a segment that was read out of turn is durably done to its end."""
        end = self._ends.get(number)
        return end is not None and self.ahead.get(number) == end

    def _counted(self, batch: Batch) -> Batch:
        self._lines += len(batch.lines)
        self._skipped_bytes += batch.skipped_bytes
        return batch
