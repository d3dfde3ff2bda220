"""A sink that is away for a while, in virtual time: what the journal of one worker holds and loses.

The writer and the reader are the product's, on the real file system; only the clock is not. Pairs
are written as fast as can be, in flushes of 20 ms of virtual time, as a worker does. The reader has
two windows in hand, as the recorder has with a sink that refuses, until the sink is back; then all
there is is delivered, and each pair that is missing is found by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path

from proxy.config.resolved import DropPolicy, Journal
from proxy.journal.reader import JournalReader
from proxy.journal.segments import JournalFullError, segment_sizes
from proxy.journal.writer import FLUSH_BYTES, FLUSH_S, JournalWriter
from proxy.recorder.loop import WINDOW_BYTES
from proxy.telemetry import monotonic_s

_FLUSHES_PER_S = round(1 / FLUSH_S)
_SETTLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """An outage: how much comes while the sink is away, and what the disk may hold."""

    disk_budget_bytes: int
    rate_per_s: int = 1_000
    seconds: int = 600
    drop: DropPolicy = DropPolicy.OLDEST

    @property
    def pairs(self) -> int:
        """How many pairs come."""
        return self.rate_per_s * self.seconds


@dataclass(frozen=True, slots=True)
class Outage:
    """What became of the pairs.

    Attributes:
        plan: what was simulated.
        most_bytes: on disk at the end of any second.
        counted: pairs that the writer says it has dropped or refused.
        missing: pairs that were not delivered when the sink was back.
        is_in_order: whether what was delivered came in the order it was written, each once.
        longest_flush_ms: in real time.
        pairs_per_s: in real time.
    """

    plan: Plan
    most_bytes: int
    counted: int
    missing: int
    is_in_order: bool
    longest_flush_ms: float
    pairs_per_s: float


class _VirtualWorker:
    """Writes pairs as a worker does, in virtual time."""

    def __init__(self, directory: Path, lines: Sequence[bytes], plan: Plan) -> None:
        self.now_s = 0.0
        self.longest_flush_s = 0.0
        self._numbers = count()
        self._lines = lines
        self.writer = JournalWriter(
            directory,
            disk_budget_bytes=plan.disk_budget_bytes,
            journal=Journal(drop=plan.drop),
            clock=lambda: self.now_s,
        )

    def second(self, rate_per_s: int) -> None:
        """Write what comes in a second."""
        for _ in range(_FLUSHES_PER_S):
            for number in islice(self._numbers, rate_per_s // _FLUSHES_PER_S):
                line = self._lines[number % len(self._lines)]
                self.writer.append(b'{"number":%d,%b' % (number, line[1:]))
                if self.writer.buffered_bytes >= FLUSH_BYTES:
                    self.flush()
            self.flush()
            self.now_s += FLUSH_S
        self.writer.tick()
        # What is done beside the flushes has had a second by now.
        assert self.writer.settle(_SETTLE_S)

    def flush(self) -> None:
        """Flush; what is refused is counted by the writer."""
        start_s = monotonic_s()
        with suppress(JournalFullError):
            self.writer.flush()
        self.longest_flush_s = max(self.longest_flush_s, monotonic_s() - start_s)


def simulate(directory: Path, lines: Sequence[bytes], plan: Plan) -> Outage:
    """Let the sink be away, and come back.

    Args:
        directory: of the journal; not there yet.
        lines: JSON objects, taken in turn. Many more than a flush has, so that none meets itself
            within a frame.
        plan: what comes.
    """
    start_s = monotonic_s()
    worker = _VirtualWorker(directory, lines, plan)
    worker.second(plan.rate_per_s)
    reader = JournalReader(directory)
    in_hand = [reader.read(WINDOW_BYTES) for _ in range(2)]
    most_bytes = 0
    for _ in range(plan.seconds - 1):
        worker.second(plan.rate_per_s)
        most_bytes = max(most_bytes, sum(segment_sizes(directory).values()))
    worker.writer.close()
    seconds = monotonic_s() - start_s
    numbers = [number for batch in in_hand for number in _numbers(batch.lines)]
    while (batch := reader.read(WINDOW_BYTES)).lines:
        numbers += _numbers(batch.lines)
        reader.commit(batch.position)
    reader.close()
    statistics = worker.writer.statistics()
    return Outage(
        plan=plan,
        most_bytes=most_bytes,
        counted=statistics.dropped_pairs + statistics.failed_pairs,
        missing=plan.pairs - len(set(numbers)),
        is_in_order=all(before < after for before, after in pairwise(numbers)),
        longest_flush_ms=worker.longest_flush_s * 1e3,
        pairs_per_s=plan.pairs / seconds,
    )


def bytes_per_pair(directory: Path, lines: Sequence[bytes], rate_per_s: int = 1_000) -> float:
    """Return what a pair takes on disk, measured over 10 s of virtual time at a rate."""
    seconds = 10
    outage = simulate(directory, lines, Plan(1 << 40, rate_per_s, seconds))
    return outage.most_bytes / outage.plan.pairs


def _numbers(lines: Sequence[bytes]) -> list[int]:
    return [int(line[10 : line.index(b",")]) for line in lines]
