"""What a journal's writer says of itself: plain values."""

from __future__ import annotations

from dataclasses import dataclass


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
        failed_pairs, failed_flushes: lost because the disk refused them, or the budget was full.
        dropped_pairs, dropped_segments: lost to the disk budget, over all starts.
        syncs, sync_errors: of segments.
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
    syncs: int
    sync_errors: int
    error: str
