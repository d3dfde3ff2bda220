"""A worker's pairs on their way to its journal, and what is counted of them.

It decides when what is buffered is written, and books what became of it. The writing itself
(`proxy.journal.writer`) a thread does, one flush at a time: a disk that hangs holds up pairs, never a
request. Meanwhile they wait in memory, up to a quarter of `limits.memory`; what comes then is lost, and
counted as `journal_error`.

The books outlive the process: what `pairs_journaled` will be is noted (`pairs_flushing`) before a write
and taken over after it, so a successor that finds pairs in the journal and not in the books can tell
how far this has come (`proxy.dataplane.takeover`).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.config.resolved import Config
from proxy.dataplane.counters import CandidateCells
from proxy.dataplane.write_thread import WriteThread
from proxy.journal.segments import JournalFullError
from proxy.journal.writer import CLOSE_S, FLUSH_BYTES, FLUSH_S, JournalWriter
from proxy.journal.writer_statistics import FlushResult
from proxy.state.stats_page import Lost
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker

#: Of `limits.memory`, what pairs may take while they wait for a disk that hangs.
MEMORY_SHARE = 1 / 4
#: A disk that takes so long for a write hangs: one that is only busy loses no pairs.
HANGS_S = 1.0
#: Between two lines in the log about pairs that the journal did not take.
LOSS_LOG_S = 10.0
_POLL_S = 0.002

logger = logging.getLogger("understudy.worker")


class Journaling:
    """The way of one worker's pairs into its journal.

    Args:
        worker: whose counters are kept.
        writer: of its journal; nobody else may use it.
        loop: the worker's.
    """

    def __init__(
        self, worker: Worker, writer: JournalWriter, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._worker, self._writer, self._loop = worker, writer, loop
        # Not `_thread`: compiled, that is a word of C.
        self._writing = WriteThread("pairs", loop, self._over)
        self._unwritten: list[CandidateCells] = []
        self._under_way: list[CandidateCells] = []
        self._begun_s = 0.0
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._untold_pairs, self._told_loss_s = 0, -LOSS_LOG_S
        self._bytes_cell = worker.stats.layout.index("journal_bytes")
        self.follow(worker.config)

    @property
    def is_busy(self) -> bool:
        """Whether a flush is under way: the journal may hold pairs that are not in the books yet."""
        return self._writing.is_busy

    def follow(self, config: Config) -> None:
        """Keep to the limits of another config."""
        self._most_bytes = int(config.limits.memory_bytes * MEMORY_SHARE)
        self._writer.set_disk_budget(config.limits.journal_disk_bytes // config.workers)

    def add(self, line: bytes, counters: CandidateCells) -> None:
        """Put one pair into the buffer; on a disk that works it is written within `FLUSH_S` seconds."""
        writer = self._writer
        if writer.buffered_bytes > self._most_bytes and self._writing.is_busy:
            waited_s = monotonic_s() - self._begun_s
            if waited_s > HANGS_S:
                self._worker.cells[counters.lost[Lost.JOURNAL_ERROR]] += 1
                self._tell_loss(f"the disk has not taken a write for {waited_s:.1f} s", 1)
                return
        writer.append(line)
        self._unwritten.append(counters)
        if writer.buffered_bytes >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Begin to write what is buffered; at once, or as soon as what is under way is written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing.is_busy:
            self._is_due = True
            return
        batch = self._writer.take()
        if batch is None:
            return
        waiting, self._unwritten = self._unwritten[: batch.pairs], self._unwritten[batch.pairs :]
        self._is_due = bool(self._unwritten)
        self._worker.want_books()
        cells = self._worker.cells
        for counters in waiting:
            cells[counters.flushing] += 1
        self._under_way = waiting
        self._begun_s = monotonic_s()
        self._writing.do(partial(self._writer.write, batch))

    def tick(self) -> None:
        """Do what the journal needs without a pair; some times a second."""
        if not self._writing.is_busy and self._writer.is_due():
            self._begun_s = monotonic_s()
            self._writing.do(self._writer.tick)

    async def stop(self, timeout_s: float) -> bool:
        """Write what is left and close the journal; return whether every pair is in the books.

        A disk that hangs is waited for `timeout_s` seconds, `CLOSE_S` at least. Then what waits is lost
        and counted; what is being written the successor finds in the journal, or not.
        """
        self.flush()  # what does not fit into one frame follows by itself
        if await self._is_idle_within(max(timeout_s, CLOSE_S)):
            self._writing.do(self._writer.close)
            if await self._is_idle_within(
                3 * CLOSE_S
            ):  # it waits up to twice that for its own threads
                self._writing.close()
                return True
        for counters in self._unwritten:
            self._worker.cells[counters.lost[Lost.JOURNAL_ERROR]] += 1
        lost, self._unwritten, self._is_due = len(self._unwritten), [], False
        while self._writer.take() is not None:
            pass  # what is counted as lost must not be written by a disk that goes on after all
        logger.error("journal: the disk hangs; %d pairs are lost and counted", lost)
        return False

    async def _is_idle_within(self, timeout_s: float) -> bool:
        """Wait until nothing is under way or due; return whether that came."""
        deadline_s = monotonic_s() + timeout_s
        while self._writing.is_busy:
            if monotonic_s() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _over(self, result: Any) -> None:
        """Book what has become of a job: of a flush, or of something that moves no pairs."""
        waiting, self._under_way = self._under_way, []
        if waiting:
            if isinstance(result, FlushResult):
                self._book(waiting, result)
            else:
                self._book_lost(waiting, result)
        elif isinstance(result, Exception):
            logger.error(
                "journal: %s", result, exc_info=None if isinstance(result, OSError) else result
            )
        if self._is_due or self._writer.buffered_bytes >= FLUSH_BYTES:
            self.flush()

    def _book(self, waiting: list[CandidateCells], result: FlushResult) -> None:
        cells = self._worker.cells
        for counters in set(waiting):
            cells[counters.journaled] = cells[counters.flushing]
        # With this it is counted.
        self._worker.stats.count_segment(self._writer.segment, len(waiting))
        cells[self._bytes_cell] += result.bytes_written

    def _book_lost(self, waiting: list[CandidateCells], error: Exception) -> None:
        cells = self._worker.cells
        reason = Lost.JOURNAL_FULL if isinstance(error, JournalFullError) else Lost.JOURNAL_ERROR
        for counters in set(waiting):
            cells[counters.flushing] = cells[counters.journaled]
        for counters in waiting:
            cells[counters.lost[reason]] += 1
        if not isinstance(error, OSError):
            logger.error("a flush of the journal failed", exc_info=error)
        self._tell_loss(str(error), len(waiting))

    def _tell_loss(self, error: str, pairs: int) -> None:
        """Log a loss; a disk that stays full is told each `LOSS_LOG_S`, not fifty times a second."""
        self._untold_pairs += pairs
        now_s = monotonic_s()
        if now_s - self._told_loss_s >= LOSS_LOG_S:
            logger.error("journal: %s; %d pairs are lost and counted", error, self._untold_pairs)
            self._untold_pairs, self._told_loss_s = 0, now_s
