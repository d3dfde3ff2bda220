"""The bars of the claims, and whether a figure meets its bar. Pure.

A bar is judged by the median over the rounds; the range is shown beside it. A figure that the run
did not measure has no verdict, which is not a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import Spread


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit that a figure must not pass.

    Attributes:
        is_floor: the figure must be at least the limit; else at most.
        unit: written behind figure and limit, with its space where it wants one.
        digits: after the point.
    """

    limit: float
    unit: str = ""
    is_floor: bool = False
    digits: int = 2

    def is_met_by(self, figure: float) -> bool:
        """Tell whether a figure meets the bar."""
        return figure >= self.limit if self.is_floor else figure <= self.limit

    def __str__(self) -> str:
        if self.limit == 0 and not self.is_floor:
            return "0"
        return f"{'≥' if self.is_floor else '≤'} {self.limit:,g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim as measured; `is_met` is None when nothing was measured."""

    what: str
    bar: str
    figure: str
    is_met: bool | None

    @property
    def verdict(self) -> str:
        """Return yes, no or not measured."""
        return "not measured" if self.is_met is None else "yes" if self.is_met else "no"


def judged(what: str, bar: Bar, figure: Spread | None) -> Claim:
    """Return the claim with its figure, judged by the median."""
    if figure is None:
        return Claim(what, str(bar), "", None)
    digits = bar.digits
    shown = f"{figure.median:,.{digits}f}{bar.unit}"
    if (figure.low, figure.high) != (figure.median, figure.median):
        shown += f" ({figure.low:,.{digits}f} to {figure.high:,.{digits}f})"
    return Claim(what, str(bar), shown, bar.is_met_by(figure.median))


#: Understudy's figure over Envoy's, with one candidate mirrored, one worker each.
WORKER_CPU = Bar(0.75)
TREE_CPU = Bar(1.25)
THROUGHPUT = Bar(1.3, is_floor=True)
#: Latency added to the direct way at a constant 1,000 requests per second.
ADDED_P50 = Bar(0.25, " ms")
ADDED_P99 = Bar(1.0, " ms")
#: The primary's p99: mirror on less mirror off, a faulty candidate less a healthy one.
ISOLATION_P99 = Bar(0.3, " ms")
#: The primary's p99 under overload: mirror on over mirror off.
OVERLOAD_P99 = Bar(1.05)
#: From the page written, and from the command's start, to the last copy at the candidate.
KILL_PAGE = Bar(10, " ms")
KILL_COMMAND = Bar(100, " ms", digits=0)
#: From an order to the control pages: of the replica that was told, and of all.
REPLICA_HERE = Bar(100, " ms", digits=0)
REPLICA_THERE = Bar(1_000, " ms", digits=0)
#: One recorder, journal to Kafka.
RECORDER = Bar(20_000, " pairs/s", is_floor=True, digits=0)
BACKLOG_MEMORY = Bar(200, " MB", digits=0)
#: Users' p99 over a run in which the broker freezes and dies, less that of a run without.
KAFKA_P99 = Bar(1.0, " ms")
#: Server-sent events, added to the direct way.
EVENT_GAP_P99 = Bar(5, " ms")
EVENT_CPU = Bar(1.0)
#: `understudy compare` over 10 million pairs on two cores, and all its processes.
COMPARE = Bar(60, " s", digits=0)
COMPARE_MEMORY = Bar(500, " MB", digits=0)
NOTHING_LOST = Bar(0, digits=0)
#: Wrong verdicts at alpha 5%, and pairs to a right one, with 4% of pairs that differ.
ERRORS = Bar(5, " %")
GROUP_NAMED = Bar(95, " %", is_floor=True)
PROMOTE_PAIRS = Bar(3_500, " pairs", digits=0)
HALT_PAIRS = Bar(1_100, " pairs", digits=0)
#: From a user's leaving to the end of the call at its backend.
RELEASE = Bar(100, " ms", digits=0)
#: Other users' p99 with 1,000 slow sockets over without, and what an endless head costs.
SLOW_SOCKETS_P99 = Bar(1.1)
ENDLESS_HEAD = Bar(1.0, " MiB")
#: Memory of the worker: its end over its middle under overload, and the idle tree.
FLAT = Bar(1.1)
IDLE_MEMORY = Bar(120, " MB", digits=0)
