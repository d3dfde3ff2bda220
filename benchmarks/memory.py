"""A process's resident memory over time, and whether it is flat."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from benchmarks import processes
from proxy.telemetry import monotonic_s

_INTERVAL_S = 0.1


class MemoryLog:
    """Samples the resident memory of a process inside a `with` block, ten times a second.

    Attributes:
        points: seconds since the start, and bytes.
    """

    def __init__(self, pid: int) -> None:
        self.points: list[tuple[float, int]] = []
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MemoryLog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _sample(self) -> None:
        started_s = monotonic_s()
        while True:
            size = processes.resident_bytes(self._pid)
            if size:
                self.points.append((monotonic_s() - started_s, size))
            if self._is_over.wait(_INTERVAL_S):
                return


def peaks(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the highest point of each second, which is all that a chart of minutes can show."""
    return [max(found, key=itemgetter(1)) for _, found in groupby(points, key=lambda p: int(p[0]))]


def flatness(sizes: Sequence[int]) -> float | None:
    """Return the median of the last quarter over that of the second; None of fewer than 8.

    The first quarter is left out: buffers and pools grow to their working size in it.
    """
    quarter = len(sizes) // 4
    if quarter < 2:
        return None
    return statistics.median(sizes[-quarter:]) / statistics.median(sizes[quarter : 2 * quarter])
