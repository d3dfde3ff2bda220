"""Where the counters of a route and of its candidates lie, looked up once per configuration.

The usual outcome has an attribute of its own: hashing an `Enum` runs Python code (0.25 us).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from proxy.config.resolved import Route
from proxy.state.stats_file import Layout
from proxy.state.stats_page import (
    GUARD_NOTE,
    LATENCY_BOUNDS_US,
    Kept,
    Lost,
    Note,
    Outcome,
    Skip,
)

#: Every bound is a multiple of this.
_GRAIN_US: Final = 500
#: The bucket of a duration by how many grains it is long, up to 25 ms: a look instead of a search.
_NEAR: Final = [bisect_left(LATENCY_BOUNDS_US, grains * _GRAIN_US) for grains in range(51)]


class Histogram:
    """A histogram of durations: `family` is its name without `_us`, `labels` whose it is.

    Durations are added up here and written to the page by the worker's tick: a fifth of what four
    stores into the page would cost (0.3 us). A worker that is killed takes those of the last tick with
    it, which no ledger counts.
    """

    __slots__ = ("_counts", "_first", "_sum", "_sum_us")

    def __init__(self, layout: Layout, family: str, *labels: str) -> None:
        self._first = layout.index(f"{family}_us", *labels, str(LATENCY_BOUNDS_US[0]))
        self._sum = layout.index(f"{family}_sum_us", *labels)
        self._counts = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self._sum_us = 0

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        micros = int(seconds * 1e6)
        grains = (micros + _GRAIN_US - 1) // _GRAIN_US
        bucket = _NEAR[grains] if grains < len(_NEAR) else bisect_left(LATENCY_BOUNDS_US, micros)
        self._counts[bucket] += 1
        self._sum_us += micros

    def percentile_s(self, cells: memoryview[int], share: float, at_least: int) -> float | None:
        """Return the upper bound of the bucket that holds a percentile of all that was ever written.

        None where fewer than `at_least` were, or where that bucket has no bound.
        """
        counts = cells[self._first : self._first + len(self._counts)].tolist()
        total = sum(counts)
        seen = 0
        for count, bound_us in zip(counts, LATENCY_BOUNDS_US, strict=False):
            seen += count
            if total >= at_least and seen >= share * total:
                return bound_us / 1e6
        return None

    def write(self, cells: memoryview[int]) -> None:
        """Add to the page what was observed since the last time."""
        if not self._sum_us and not any(self._counts):
            return
        for bucket, count in enumerate(self._counts):
            if count:
                cells[self._first + bucket] += count
                self._counts[bucket] = 0
        cells[self._sum] += self._sum_us
        self._sum_us = 0


class CandidateCells:
    """The counters of one candidate of one route.

    Attributes:
        shed: copies that overload has left out since the worker's last tick, which writes them, like
            durations: an overloaded worker has no time for four stores a request. Those of a worker that
            is killed are missing on both sides of the ledger.
    """

    __slots__ = (
        "breaker", "canary", "decided", "flushing", "guard_ejections", "guard_failed",
        "guard_latency", "guard_note", "guard_slow", "journaled", "latency", "leg", "leg_ok", "lost",
        "mirror_decided", "mirror_sent", "mirror_shed", "mirror_skipped", "model_kept", "pair_shed",
        "rescued", "shed", "ttfb",
    )  # fmt: skip

    def __init__(self, layout: Layout, route: str, candidate: str) -> None:
        names = (route, candidate)
        self.canary = layout.index("canary", *names)
        self.rescued = layout.index("rescued", *names)
        self.guard_failed = layout.index("guard_failed", *names)
        self.guard_slow = layout.index("guard_slow", *names)
        self.guard_ejections = layout.index("guard_ejections", *names)
        self.guard_latency = layout.index("guard_latency_us", *names)
        self.guard_note = {what: layout.index(GUARD_NOTE, *names, what) for what in Note}
        self.mirror_decided = layout.index("mirror_decided", *names)
        self.mirror_sent = layout.index("mirror_sent", *names)
        self.mirror_skipped = {s: layout.index("mirror_skipped", *names, s) for s in Skip}
        self.mirror_shed = self.mirror_skipped[Skip.OVERLOAD]
        self.breaker = layout.index("breaker", *names)
        self.model_kept = {reason: layout.index("model_kept", *names, reason) for reason in Kept}
        self.leg = {o: layout.index("leg", *names, o) for o in Outcome}
        self.leg_ok = self.leg[Outcome.OK]
        self.decided = layout.index("pairs_decided", *names)
        self.journaled = layout.index("pairs_journaled", *names)
        self.flushing = layout.index("pairs_flushing", *names)
        self.lost = {reason: layout.index("pairs_lost", *names, reason) for reason in Lost}
        self.pair_shed = self.lost[Lost.OVERLOAD]
        self.latency = Histogram(layout, "latency", route, candidate)
        self.ttfb = Histogram(layout, "ttfb", route, candidate)
        self.shed = 0

    def write(self, cells: memoryview[int]) -> None:
        """Add to the page what was counted and observed since the last time."""
        self.latency.write(cells)
        self.ttfb.write(cells)
        if self.shed:
            for cell in (self.mirror_decided, self.mirror_shed, self.decided, self.pair_shed):
                cells[cell] += self.shed
            self.shed = 0


class RouteCells:
    """The counters of one route."""

    __slots__ = (
        "candidates", "in_flight", "latency", "request_bytes", "response_bytes", "routed", "served",
        "served_ok", "ttfb", "tunnels",
    )  # fmt: skip

    def __init__(self, layout: Layout, route: Route) -> None:
        self.routed = layout.index("routed", route.name)
        self.in_flight = layout.index("in_flight", route.name)
        self.served = {o: layout.index("served", route.name, o) for o in Outcome}
        self.served_ok = self.served[Outcome.OK]
        self.latency = Histogram(layout, "latency", route.name, "primary")
        self.ttfb = Histogram(layout, "ttfb", route.name, "primary")
        self.request_bytes = layout.index("request_bytes", route.name)
        self.response_bytes = layout.index("response_bytes", route.name)
        self.tunnels = layout.index("tunnels_open", route.name)
        self.candidates = tuple(
            CandidateCells(layout, route.name, c.name) for c in route.candidates
        )

    def write(self, cells: memoryview[int]) -> None:
        """Add to the page what was counted and observed since the last time, of candidates too."""
        self.latency.write(cells)
        self.ttfb.write(cells)
        for candidate in self.candidates:
            candidate.write(cells)
