"""Saturating load in bursts of wrk, one right after the other, with percentiles of each.

wrk tells the percentiles of its whole run only, and on a shared machine those are what its worst second was.
The median over bursts is what users have most of the time: between two runs of the very same instance it
differs by a twentieth, where the percentiles of whole runs differ by a fifth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.fleet import Fleet
from benchmarks.load import Load, LoadResult


@dataclass(frozen=True, slots=True)
class Bursts:
    """Bursts of a load, with no pause but wrk's start between them.

    Attributes:
        load: one burst.
        count: of bursts.
    """

    load: Load
    count: int

    @property
    def size_bytes(self) -> int:
        """Length of the request body."""
        return self.load.size_bytes

    @property
    def connections(self) -> int:
        """Keep-alive connections, opened anew by each burst."""
        return self.load.connections

    def for_seconds(self, seconds: int) -> Bursts:
        """Return the same load of another length."""
        each = min(seconds, self.load.seconds)
        return Bursts(self.load.for_seconds(each), seconds // each)

    def send(self, fleet: Fleet, url: str) -> LoadResult:
        """Send them by wrk."""
        return merged([self.load.send(fleet, url) for _ in range(self.count)])


def merged(bursts: Sequence[LoadResult]) -> LoadResult:
    """Return all bursts' result: of one or more.

    Its `p99_us` is that of the worst burst, which that of all requests does not exceed.
    """
    errors: Counter[str] = Counter()
    for burst in bursts:
        errors.update(burst.errors)
    return LoadResult(
        requests=sum(burst.requests for burst in bursts),
        seconds=sum(burst.seconds for burst in bursts),
        p50_us=round(median(burst.p50_us for burst in bursts)),
        p99_us=max(burst.p99_us for burst in bursts),
        max_us=max(burst.max_us for burst in bursts),
        errors=dict(errors),
        steady_p99_us=median(burst.p99_us for burst in bursts),
    )
