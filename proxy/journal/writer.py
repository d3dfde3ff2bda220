"""A worker's end of the journal: pairs in, zstd frames of NDJSON on disk.

It decides where a frame goes, when a segment ends and what the disk budget costs. It does not
decide when to flush: the worker drives the timers (`FLUSH_BYTES`, `FLUSH_S`). No asyncio and no
threads: a flush is one compression and one `write` into the page cache.

The drop policy: when the directory holds more than its budget, the oldest closed segment goes,
with whatever of it has not been shipped; those pairs are counted, durably, in `dropped.json`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import StateError
from proxy.journal.frame_file import FrameFile, compressor, cut_torn_tail
from proxy.journal.frames import MAX_CONTENT_BYTES
from proxy.journal.scan import count_lines
from proxy.journal.segments import (
    WRITER_LOCK,
    Dropped,
    Position,
    load_dropped,
    load_shipped,
    segment_numbers,
    segment_path,
    store_dropped,
    take_lock,
)

#: Flush when this much is buffered (uncompressed) ...
FLUSH_BYTES = 64 * 1024
#: ... or this long after the first pair was buffered, whichever comes first.
FLUSH_S = 0.020

SEGMENT_BYTES = 64 * 1024 * 1024

# A budget smaller than a few segments would otherwise be one segment that can never be dropped.
_SEGMENTS_PER_BUDGET = 8


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What one flush put on disk: pairs, and compressed bytes."""

    pairs: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """A snapshot of a writer.

    Attributes:
        pairs, frames, bytes_written: put on disk since the start.
        buffered_pairs, buffered_bytes: waiting for the next flush (uncompressed).
        segment: number of the newest segment.
        disk_bytes: what the directory's segments hold, as far as known to the writer.
        torn_bytes: cut at the start from what a killed predecessor left half written.
        failed_pairs, failed_flushes: lost because the disk refused them.
        dropped_pairs, dropped_segments: lost to the disk budget, over all starts.
        error: the latest refusal, empty when the latest flush went well.
    """

    pairs: int
    frames: int
    bytes_written: int
    buffered_pairs: int
    buffered_bytes: int
    segment: int
    disk_bytes: int
    torn_bytes: int
    failed_pairs: int
    failed_flushes: int
    dropped_pairs: int
    dropped_segments: int
    error: str


class JournalWriter:
    """The one writer of a journal directory.

    Attributes:
        buffered_bytes: uncompressed bytes that wait for `flush`.
        buffered_pairs: pairs that wait for `flush`.

    Raises:
        StateError: another process writes this journal, or the directory cannot be used.
    """

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, disk_budget_bytes: int
    ) -> None:
        self.buffered_bytes = 0
        self.buffered_pairs = 0
        self._lines: list[bytes] = []
        self._directory = directory
        self._longest_segment_bytes = segment_bytes
        self._disk_budget_bytes = self._segment_bytes = 0
        self.set_disk_budget(disk_budget_bytes)
        self._zstd = compressor()
        self._file: FrameFile | None = None
        self._pairs = self._frames = self._bytes_written = 0
        self._failed_pairs = self._failed_flushes = 0
        self._error = ""
        # Pairs per segment that this writer wrote itself; older ones are counted when dropped.
        self._segment_pairs: dict[int, int] = {}
        self._lock = take_lock(directory, WRITER_LOCK)
        try:
            self._segment, self._torn_bytes = self._recover()
            self._dropped = load_dropped(directory)
            self._disk_bytes = sum(self._sizes().values())
        except OSError as exc:
            os.close(self._lock)
            raise StateError(f"cannot use the journal in {directory}: {exc.strerror}") from exc

    def set_disk_budget(self, budget_bytes: int) -> None:
        """Keep the journal within another budget, from the next flush on."""
        self._disk_budget_bytes = budget_bytes
        share_bytes = budget_bytes // _SEGMENTS_PER_BUDGET
        self._segment_bytes = max(1, min(self._longest_segment_bytes, share_bytes))

    def append(self, line: bytes) -> None:
        """Buffer one pair: a JSON object without a newline. The hot path does nothing more."""
        self._lines.append(line)
        self.buffered_bytes += len(line)
        self.buffered_pairs += 1

    def flush(self) -> FlushResult:
        """Write what is buffered as one frame.

        Raises:
            OSError: the disk refuses. The buffered pairs are gone (kept, they would grow without
                bound while the disk stays full) and counted as `failed_pairs`; the file is cut
                back to its last whole frame, and the next flush tries again.
        """
        lines, pairs = self._lines, self.buffered_pairs
        if not lines:
            return FlushResult(0, 0)
        size = self.buffered_bytes + pairs
        self._lines, self.buffered_bytes, self.buffered_pairs = [], 0, 0
        try:
            written = self._write(lines, size)
        except OSError as exc:
            self._failed_pairs += pairs
            self._failed_flushes += 1
            self._error = str(exc)
            # A file that was cut back goes on being used: a new one per failed flush would fill
            # the directory with empty files while the disk is full.
            if self._file is not None and not self._file.is_whole:
                self._end_segment()
            raise
        self._account(pairs, written)
        return FlushResult(pairs, written)

    def close(self) -> FlushResult:
        """Flush, close the segment and let the lock go.

        Raises:
            OSError: the disk refused the last flush; all is closed none the less.
        """
        try:
            return self.flush()
        finally:
            self._end_segment()
            lock, self._lock = self._lock, -1
            if lock >= 0:
                os.close(lock)

    def statistics(self) -> JournalStatistics:
        """Return a snapshot of the counters."""
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
            dropped_pairs=self._dropped.pairs,
            dropped_segments=self._dropped.segments,
            error=self._error,
        )

    def _write(self, lines: list[bytes], size: int) -> int:
        """Write `lines` as one frame; return its compressed size."""
        if size > MAX_CONTENT_BYTES:
            raise OSError(f"{size} bytes of pairs at once are more than a frame may hold")
        lines.append(b"")  # so that the join ends the last line, too, without a second copy
        return self._open_segment().append(b"\n".join(lines))

    def _account(self, pairs: int, written: int) -> None:
        self._error = ""
        self._pairs += pairs
        self._frames += 1
        self._bytes_written += written
        self._segment_pairs[self._segment] = self._segment_pairs.get(self._segment, 0) + pairs
        self._disk_bytes += written
        if self._disk_bytes > self._disk_budget_bytes:
            self._keep_budget()

    def _open_segment(self) -> FrameFile:
        """Return the segment to append to: the current one, or a new one when that is full."""
        if self._file is not None and self._file.size_bytes >= self._segment_bytes:
            self._end_segment()
        if self._file is None:
            path = segment_path(self._directory, self._segment + 1)
            self._file = FrameFile(path, self._zstd)
            self._segment += 1
        return self._file

    def _end_segment(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _recover(self) -> tuple[int, int]:
        """Cut the torn tail of the newest segment; return its number and the bytes cut.

        Only the newest can be torn: a segment is begun after the one before it was ended.
        """
        numbers = segment_numbers(self._directory)
        torn_bytes = cut_torn_tail(segment_path(self._directory, numbers[-1])) if numbers else 0
        shipped = load_shipped(self._directory).position
        return max([shipped.segment, *numbers]), torn_bytes

    def _sizes(self) -> dict[int, int]:
        """Return the bytes on disk per segment; the reader may remove one at any time."""
        sizes = {}
        for number in segment_numbers(self._directory):
            with suppress(FileNotFoundError):
                sizes[number] = segment_path(self._directory, number).stat().st_size
        return sizes

    def _keep_budget(self) -> None:
        """Drop the oldest closed segments until the rest fits the budget.

        The directory is looked at again, because the reader removes what it has shipped. Failing
        to drop is not a reason to fail the flush that has already succeeded.
        """
        sizes = self._sizes()
        total = sum(sizes.values())
        with suppress(OSError):
            for number, size in sizes.items():
                if total <= self._disk_budget_bytes or number == self._segment:
                    break
                self._drop(number)
                total -= size
        self._disk_bytes = total
        self._segment_pairs = {n: c for n, c in self._segment_pairs.items() if n in sizes}

    def _drop(self, number: int) -> None:
        shipped = load_shipped(self._directory).position
        path = segment_path(self._directory, number)
        try:
            lost = self._unshipped_pairs(path, number, shipped)
            path.unlink()
        except FileNotFoundError:
            return  # shipped and removed by the reader since we looked
        self._segment_pairs.pop(number, None)
        if lost:
            self._dropped = Dropped(self._dropped.pairs + lost, self._dropped.segments + 1)
            store_dropped(self._directory, self._dropped)

    def _unshipped_pairs(self, path: Path, number: int, shipped: Position) -> int:
        if number < shipped.segment:
            return 0
        if number > shipped.segment and number in self._segment_pairs:
            return self._segment_pairs[number]
        # Begun to be shipped, or written by a predecessor: the frames themselves must be asked.
        # This takes about 10 ms per 10 MB of segment, and happens only when the budget is full.
        return count_lines(path, shipped.offset if number == shipped.segment else 0)
