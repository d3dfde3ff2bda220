"""A worker's end of the journal: pairs in, zstd frames of NDJSON on disk.

It decides where a frame goes, when a segment ends and when the disk budget is used up. It does not
decide when to flush: the worker drives the timers (`FLUSH_BYTES`, `FLUSH_S`, and `tick`). No
asyncio: a flush is one compression and one `write` into the page cache. What takes long on any disk
(syncs, removals) a thread does beside it (`proxy.journal.janitor`), which most journals never need.
On a disk that hangs a flush waits, too: who must not wait calls `append`, `take` and `is_due` itself
and has the rest done by one other thread.

The drop policies: when the segments hold more than the budget, the oldest closed one goes, with
whatever of it has not been shipped, and those pairs are counted durably in `dropped.json`; or, with
`drop: newest`, what is flushed is refused until the reader has made room.

A directory that cannot be used (read-only, full, gone) loses pairs and stops nobody: each flush
fails, and one a second tries again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy.config.resolved import DropPolicy, Fsync, Journal
from proxy.errors import StateError
from proxy.journal.buffer import Batch, PairBuffer
from proxy.journal.frame_file import FrameFile, compressor, cut_torn_tail
from proxy.journal.frames import MAX_CONTENT_BYTES
from proxy.journal.janitor import Janitor, Tidying
from proxy.journal.segments import (
    WRITER_LOCK,
    JournalFullError,
    load_shipped,
    segment_numbers,
    segment_path,
    segment_sizes,
    take_lock,
)
from proxy.journal.writer_statistics import FlushResult, JournalStatistics
from proxy.telemetry import monotonic_s

#: Flush when this much is buffered (uncompressed): not much less, because to hand a flush to a thread and to
#: hear of its end costs a worker some 45 us of CPU ...
FLUSH_BYTES = 512 * 1024
#: ... or this long after the first pair was buffered, whichever comes first.
FLUSH_S = 0.020

#: A directory that cannot be used, and a full budget, are looked at again after this.
RETRY_S = 1.0
#: What is due at the end may take this long: a disk that hangs must not hold up a stop.
CLOSE_S = 1.0

# Segments whose pairs are known by heart; those of older ones are counted if they must be dropped.
_MAX_OWN = 1024

# A budget smaller than a few segments would otherwise be one segment that can never be dropped.
_SEGMENTS_PER_BUDGET = 8


@dataclass(slots=True)
class _Tally:
    """What this writer has put into one segment."""

    pairs: int = 0
    size_bytes: int = 0


class JournalWriter(PairBuffer):
    """The one writer of a journal directory.

    Args:
        directory: is made, with its parents.
        disk_budget_bytes: of this directory; exceeded by a frame at most, and by what the reader
            has in hand.
        journal: when segments end, what is dropped, what is synced.
        clock: monotonic seconds.

    Raises:
        StateError: another process writes this journal.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk_budget_bytes: int,
        journal: Journal | None = None,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        how = journal or Journal()
        super().__init__()
        self._directory = directory
        self._longest_segment_bytes = how.segment_bytes
        self._disk_budget_bytes = self._segment_bytes = 0
        self.set_disk_budget(disk_budget_bytes)
        self._segment_age_s, self._interval_s = how.segment_age_s, how.fsync_interval_s
        self._keeps_oldest = how.drop is DropPolicy.NEWEST
        self._is_synced = how.fsync is not Fsync.NONE
        self._syncs_flushes = how.fsync is Fsync.FLUSH
        self._clock = clock
        self._zstd = compressor()
        self._file: FrameFile | None = None
        self._pairs = self._frames = self._bytes_written = 0
        self._failed_pairs = self._failed_flushes = 0
        self._error = ""
        # Of segments that this writer wrote itself; older ones are looked at when they are dropped.
        self._own: dict[int, _Tally] = {}
        self._segment = self._torn_bytes = self._disk_bytes = 0
        self._lock = -1
        self._janitor: Janitor | None = None
        self._opened_s = self._synced_s = self._looked_s = clock()
        self._is_unsynced = False
        try:
            self._take_over()
        except OSError as exc:
            self._error = f"cannot use the journal in {directory}: {exc.strerror}"

    def set_disk_budget(self, budget_bytes: int) -> None:
        """Keep the journal within another budget, from the next flush on."""
        self._disk_budget_bytes = budget_bytes
        share_bytes = budget_bytes // _SEGMENTS_PER_BUDGET
        self._segment_bytes = max(1, min(self._longest_segment_bytes, share_bytes))

    def flush(self) -> FlushResult:
        """Take and write what is buffered, as one frame unless that is large; raises as `write`."""
        pairs = written = 0
        while (batch := self.take()) is not None:
            result = self.write(batch)
            pairs += result.pairs
            written += result.bytes_written
        return FlushResult(pairs, written)

    def write(self, batch: Batch) -> FlushResult:
        """Write a batch as one frame.

        Raises:
            JournalFullError: the budget is used up, and what is there is kept.
            OSError: the disk refuses. The pairs are gone (kept, they would grow without
                bound while the disk stays full) and counted as `failed_pairs`; the file is cut
                back to its last whole frame, and the next flush tries again.
        """
        try:
            written = self._write(batch.lines, batch.size_bytes)
        except OSError as exc:
            self._failed_pairs += batch.pairs
            self._failed_flushes += 1
            self._error = str(exc)
            # A file that was cut back goes on being used: a new one per failed flush would fill
            # the directory with empty files while the disk is full.
            if self._file is not None and not self._file.is_whole:
                self._end_segment()
            raise
        self._account(batch.pairs, written)
        return FlushResult(batch.pairs, written)

    def is_due(self) -> bool:
        """Tell whether `tick` has something to do; cheap, and waits for nothing."""
        file = self._file
        if file is None or not file.size_bytes:
            return False
        now_s = self._clock()
        return now_s - self._opened_s >= self._segment_age_s or (
            self._is_unsynced and now_s - self._synced_s >= self._interval_s
        )

    def tick(self) -> None:
        """Do what is due without a pair: end an old segment, sync one; some times a second.

        What is shipped of a segment that has ended can be removed. So an old one ends although
        nothing follows: by an empty one, once.
        """
        file = self._file
        if file is None or not self.is_due():
            return
        if self._clock() - self._opened_s >= self._segment_age_s:
            self._begin_next()
        else:
            self._sync(file)

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is being synced or dropped; return whether that is so."""
        if self._janitor is None or not self._janitor.settle(timeout_s):
            return self._janitor is None
        self._take_tidied(self._janitor)
        return True

    def close(self) -> FlushResult:
        """Flush, sync if that is the policy, close the segment and let the lock go.

        Raises:
            OSError: the disk refused the last flush; all is closed none the less.
        """
        try:
            return self.flush()
        finally:
            self._end_segment()
            if self._janitor is not None:
                if self.settle(CLOSE_S) and not self._keeps_oldest:
                    self._drop_oldest()
                self._janitor.close(CLOSE_S)
                self._take_tidied(self._janitor)
            lock, self._lock = self._lock, -1
            if lock >= 0:
                os.close(lock)

    @property
    def segment(self) -> int:
        """The number of the newest segment: the one that the last flush went to."""
        return self._segment

    def totals(self) -> tuple[int, int, int]:
        """Return `torn_bytes`, `syncs` and `sync_errors`: what is told some times a second."""
        janitor = self._janitor
        if janitor is None:
            return 0, 0, 0
        return self._torn_bytes, janitor.syncs, janitor.sync_errors

    def statistics(self) -> JournalStatistics:
        """Return a snapshot of the counters."""
        janitor = self._janitor
        return JournalStatistics(
            pairs=self._pairs,
            frames=self._frames,
            bytes_written=self._bytes_written,
            buffered_pairs=self.buffered_pairs,
            buffered_bytes=self.buffered_bytes,
            segment=self._segment,
            disk_bytes=self._disk_bytes,
            torn_bytes=self._torn_bytes,
            failed_pairs=self._failed_pairs,
            failed_flushes=self._failed_flushes,
            dropped_pairs=janitor.dropped.pairs if janitor else 0,
            dropped_segments=janitor.dropped.segments if janitor else 0,
            syncs=janitor.syncs if janitor else 0,
            sync_errors=janitor.sync_errors if janitor else 0,
            error=self._error,
        )

    def _write(self, lines: list[bytes], size: int) -> int:
        """Write `lines` as one frame; return its compressed size."""
        if size > MAX_CONTENT_BYTES:
            raise OSError(f"{size} bytes of pairs at once are more than a frame may hold")
        if self._lock < 0:
            self._try_again()
        if self._keeps_oldest and self._disk_bytes >= self._disk_budget_bytes:
            self._ask_for_room()
        lines.append(b"")  # so that the join ends the last line, too, without a second copy
        return self._open_segment().append(b"\n".join(lines))

    def _account(self, pairs: int, written: int) -> None:
        self._error = ""
        self._pairs += pairs
        self._frames += 1
        self._bytes_written += written
        tally = self._own[self._segment]
        tally.pairs += pairs
        tally.size_bytes += written
        self._disk_bytes += written
        if not self._keeps_oldest and self._disk_bytes > self._disk_budget_bytes:
            self._drop_oldest()
        if self._is_synced:
            self._is_unsynced = True
            if self._syncs_flushes and self._file is not None:
                self._sync(self._file)

    def _open_segment(self) -> FrameFile:
        """Return the segment to append to: the current one, or a new one when that is full."""
        file = self._file
        if file is None or file.size_bytes >= self._segment_bytes:
            self._end_segment()
            path = segment_path(self._directory, self._segment + 1)
            file = self._file = FrameFile(path, self._zstd)
            self._segment += 1
            self._own[self._segment] = _Tally()
            if len(self._own) > _MAX_OWN:
                del self._own[next(iter(self._own))]
            self._opened_s = self._clock()
        return file

    def _begin_next(self) -> None:
        """End the segment and begin an empty one; where that cannot be, the next flush says why."""
        self._end_segment()
        try:
            self._open_segment()
        except OSError as exc:
            self._error = str(exc)

    def _end_segment(self) -> None:
        if self._file is not None:
            if self._is_unsynced:
                self._sync(self._file)
            self._file.close()
            self._file = None

    def _sync(self, file: FrameFile) -> None:
        if self._janitor is not None:
            self._janitor.sync(self._segment, file.descriptor)
        self._is_unsynced = False
        self._synced_s = self._clock()

    # Taking over, and the disk budget.

    def _take_over(self) -> None:
        """Take the journal over from whoever wrote it before.

        Only the newest segment can be torn: one is begun after the one before it was ended.

        Raises:
            StateError: another process writes it.
            OSError: the directory cannot be used.
        """
        lock = take_lock(self._directory, WRITER_LOCK)
        try:
            numbers = segment_numbers(self._directory)
            if numbers:
                self._torn_bytes += cut_torn_tail(segment_path(self._directory, numbers[-1]))
            shipped = load_shipped(self._directory).position
            self._segment = max([shipped.segment, *numbers])
            self._disk_bytes = sum(segment_sizes(self._directory).values())
            self._janitor = Janitor(self._directory)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def _try_again(self) -> None:
        """Take a directory over that could not be used at the start; at most each `RETRY_S`."""
        now_s = self._clock()
        if now_s - self._looked_s < RETRY_S:
            raise OSError(self._error)
        self._looked_s = now_s
        try:
            self._take_over()
        except StateError as exc:
            raise OSError(str(exc)) from exc

    def _drop_oldest(self) -> None:
        """Have the oldest closed segments dropped until the rest fits the budget."""
        janitor = self._janitor
        assert janitor is not None
        self._take_tidied(janitor)
        if self._disk_bytes > self._disk_budget_bytes and not janitor.is_tidying:
            tally = self._own.get(self._segment) or _Tally()
            self._tidy(janitor, max(0, self._disk_budget_bytes - tally.size_bytes))

    def _ask_for_room(self) -> None:
        """Go on if the reader has made room since the last look.

        Raises:
            JournalFullError: it has not.
        """
        janitor = self._janitor
        assert janitor is not None
        self._take_tidied(janitor)
        if self._disk_bytes < self._disk_budget_bytes:
            return
        if self._file is not None and self._file.size_bytes:
            self._begin_next()  # the reader cannot remove what may still grow
        now_s = self._clock()
        if now_s - self._looked_s >= RETRY_S and not janitor.is_tidying:
            self._looked_s = now_s
            self._tidy(janitor, None)
        raise JournalFullError(f"{self._directory} holds as much as limits.journal_disk allows")

    def _tidy(self, janitor: Janitor, keep_bytes: int | None) -> None:
        known = {number: tally.pairs for number, tally in self._own.items()}
        janitor.tidy(Tidying(self._segment, keep_bytes, known))

    def _take_tidied(self, janitor: Janitor) -> None:
        """Take over what the janitor found of the segments before the one it was told of."""
        tidied = janitor.tidied
        if tidied is None:
            return
        janitor.tidied = None
        own_bytes = sum(t.size_bytes for n, t in self._own.items() if n >= tidied.current)
        self._disk_bytes = tidied.closed_bytes + own_bytes
        self._own = {n: t for n, t in self._own.items() if n >= tidied.current or n in tidied.left}
