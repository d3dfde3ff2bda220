"""Claim: under ten times the load that saturates a worker, users notice nothing of any candidate.

Overload is a closed loop of ten times the connections that saturate the worker (wrk): two cores cannot
offer ten times its requests a second. Latency is then that of a queue; what counts is that users get no
error, that it is no worse than with the mirror off, and that the worker's memory stays flat.

A worker finds out that it is overloaded within some 100 ms, and makes no copies from then on (before it
did, p99 was 7.6 times that of mirror off). It must not try again too soon: a trial costs its users a second
of copies, and one each half minute would be p99. So what ends it is how busy the worker is without copies,
not how late it is. A request of which no copy is made costs the worker as much as one of a route without
candidates.

What p99 is under overload depends on the machine more than on anything else: on that of the README's figures
it is 14 ms in one minute and 25 in another, and between runs of 20 s right after one another, each of an
instance of its own, it differs by 14% without any cause in the proxy. So one instance takes the load in turns
of two bursts, one with the mirror killed and one with it alive, as close after one another as wrk can start:
what the machine does is in both, and so is where the kernel has put processes and memory. (A killed mirror
costs what a route without candidates does: there is nothing to decide, to copy or to record.) The load does
not rest between bursts, so the worker goes on shedding; two instances that took turns found out anew each
time. A burst of a second would not do: each begins with connections, one request in a hundred of it.

A turn's ratio scatters by a fifth, on a noisy day by more: the fifteen of two minutes tell its median to a
tenth, those of all eight candidates, which differ in nothing while no copies are made, to a thirtieth. The
interval is in the table.

The first second, in which the worker finds out, stands apart: of two minutes it is less than a hundredth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import candidates, claims, processes
from benchmarks.candidates import OFF, Candidates, Copies
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import Spread, median_interval, paired_ratio, rotated, size_label, spread
from benchmarks.fleet import Fleet
from benchmarks.load import Load, LoadResult
from benchmarks.memory import MemoryLog, flatness, peaks
from benchmarks.options import Options
from benchmarks.peers import Target
from benchmarks.programs.faulty import Fault
from benchmarks.report import Report, Table

NAME = "overload"
QUICK = (Fault.HEALTHY, Fault.HUNG)
_OVERLOAD = 10
#: Of one round, which are two minutes without a pause: bursts with the mirror killed, and as many with it alive.
_TURNS = 15
_BURST_S = 4
_FIRST_S = 1


@dataclass(slots=True)
class Side:
    """The bursts with the mirror killed, or alive, of one round.

    Attributes:
        order: what makes it so.
        begin: a second before the turns; with the mirror alive it is the first one, in which the worker finds out.
        cpu_ns: of the worker, over the bursts that count.
        copies: of each of these bursts.
    """

    case: str
    order: str
    begin: LoadResult
    bursts: list[LoadResult] = field(default_factory=list)
    cpu_ns: int = 0
    copies: list[Copies] = field(default_factory=list)

    @property
    def p99_ms(self) -> list[float]:
        """The 99th percentile of each burst."""
        return [burst.p99_us / 1e3 for burst in self.bursts]


@dataclass(frozen=True, slots=True)
class Sample:
    """One side of one round; times in milliseconds, memory in bytes of the worker (RSS).

    Attributes:
        beside: the candidate, where its mirror is killed.
        p50_ms, p99_ms: medians over the bursts.
        begin_p99_ms: that of the second before the turns.
        mirrored: share of the decided copies that were sent, None without any.
        over_off: p99 over that of the other side, turn by turn.
    """

    case: str
    beside: str
    round: int
    p50_ms: float
    p99_ms: float
    begin_p99_ms: float
    rate_per_s: float
    worker_us: float
    errors: dict[str, int]
    memory: list[tuple[float, int]]
    mirrored: float | None
    over_off: list[float]


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every candidate, with the mirror alive and killed."""
    size = min(options.sizes)
    cases = candidates.chosen(options.cases, QUICK if options.is_quick else tuple(Fault))
    each_s = max(1, min(_BURST_S, round(options.overload_s / 2)))
    burst = Load(size, options.connections * _OVERLOAD, each_s)
    turns = max(1, min(_TURNS, round(options.overload_s / 2 / each_s)))
    rounds = max(1, round(options.overload_s / (2 * turns * each_s)))
    samples: list[Sample] = []
    with Fleet(folder, options.is_pinned) as fleet:
        stage = candidates.start(fleet)
        for number in range(rounds):
            for case in rotated(cases, number):
                say(f"round {number + 1} of {rounds}, {turns} turns: {case}")
                samples += _measure(stage, case, burst, turns, number)
    return Report(
        name=NAME,
        conditions=(
            f"{burst.connections} connections, {size_label(size)}, closed loop",
            f"{rounds} rounds of {turns} turns; in each {each_s} s with the mirror killed, and {each_s} s with it",
            f"p99: of each {each_s} s, the median of those of a round; medians over rounds",
            "p99 over mirror off: turn by turn, the median of all (its 95% confidence interval)",
            *candidates.CONDITIONS,
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={case: {"over_off": _over_off(samples, [case])} for case in cases},
        claims=tuple(_claims(samples)),
        charts=(_memory_chart(samples),),
        faults=tuple(
            f"{one.case}, round {one.round}: users saw {one.errors}"
            for one in samples
            if one.errors
        ),
    )


def _measure(
    stage: Candidates, case: str, burst: Load, turns: int, number: int
) -> tuple[Sample, Sample]:
    """Kill and revive the mirror of one instance under load; return what users had of each."""
    target = stage.start_proxy(case, f"{case}-{number}")
    (worker,), root = target.worker_pids, target.root_pid
    assert root is not None
    sides = []
    for name, what in ((case, "revive"), (OFF, "kill")):
        candidates.order(target, what)
        begin = burst.for_seconds(_FIRST_S).send(stage.fleet, target.url)
        sides.append(Side(name, what, begin))
    with MemoryLog(worker) as memory:
        for turn in range(turns):
            for side in rotated(sides, turn + number):
                candidates.order(target, side.order)
                _send(stage.fleet, target, side, burst)
    processes.settle(root)
    stage.fleet.end_tree(root)
    tried, off = sides
    ratios = [ours / theirs for ours, theirs in zip(tried.p99_ms, off.p99_ms, strict=True)]
    return (
        _sample(off, case, number, [], []),
        _sample(tried, "", number, memory.points, ratios),
    )


def _send(fleet: Fleet, target: Target, side: Side, burst: Load) -> None:
    """Send a burst that counts."""
    (worker,) = target.worker_pids
    copies, cpu_ns = candidates.copies(target), processes.cpu_ns(worker)
    side.bursts.append(burst.send(fleet, target.url))
    side.cpu_ns += processes.cpu_ns(worker) - cpu_ns
    side.copies.append(candidates.copies(target).since(copies))


def _sample(
    side: Side, beside: str, number: int, memory: list[tuple[float, int]], ratios: list[float]
) -> Sample:
    requests = sum(burst.requests for burst in side.bursts)
    errors: Counter[str] = Counter()
    for burst in (side.begin, *side.bursts):
        errors.update(burst.errors)
    return Sample(
        case=side.case,
        beside=beside,
        round=number,
        p50_ms=median(burst.p50_us for burst in side.bursts) / 1e3,
        p99_ms=median(side.p99_ms),
        begin_p99_ms=side.begin.p99_us / 1e3,
        rate_per_s=requests / sum(burst.seconds for burst in side.bursts),
        worker_us=side.cpu_ns / requests / 1e3,
        errors=dict(errors),
        memory=memory,
        mirrored=candidates.share_sent(side.copies),
        over_off=ratios,
    )


def _of(samples: Sequence[Sample], case: str) -> list[Sample]:
    return [one for one in samples if one.case == case]


def _names(samples: Sequence[Sample]) -> list[str]:
    """Return the candidates that were measured."""
    return [fault for fault in Fault if _of(samples, fault)]


def _over_off(samples: Sequence[Sample], cases: Collection[str]) -> Spread | None:
    """Return p99 over that with the mirror off, turn by turn: the median and its confidence interval."""
    found = [ratio for one in samples if one.case in cases for ratio in one.over_off]
    return median_interval(found) if found else None


def _cpu_over_off(samples: Sequence[Sample], case: str) -> Spread:
    """Return the worker's CPU per request over that with the mirror off, round by round."""
    off = [one.worker_us for one in samples if one.beside == case]
    return paired_ratio([one.worker_us for one in _of(samples, case)], off)


def _table(samples: Sequence[Sample]) -> Table:
    """Return the medians of every case; those of mirror off are of all rounds beside any of them."""
    rows = []
    for name in (OFF, *_names(samples)):
        group = _of(samples, name)
        over = _over_off(samples, [name])
        peak = max((size for one in group for _, size in one.memory), default=0)
        shares = [one.mirrored for one in group if one.mirrored is not None]
        rows.append(
            (
                name,
                f"{median(one.rate_per_s for one in group):,.0f}",
                f"{median(one.p50_ms for one in group):.3f}",
                f"{median(one.p99_ms for one in group):.3f}",
                f"{median(one.begin_p99_ms for one in group):.3f}" if over else "",
                f"{over.median:.2f} ({over.low:.2f} to {over.high:.2f})" if over else "",
                f"{median(shares):.1%}" if over and shares else "",
                f"{median(one.worker_us for one in group):.1f}",
                f"{_cpu_over_off(samples, name).median:.2f}" if over else "",
                f"{peak / 1e6:.0f}" if peak else "",
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    columns = (
        "", "req/s", "p50 ms", "p99 ms", "first second's p99 ms", "p99 over mirror off", "mirrored",
        "worker µs/req", "over mirror off", "worker MB", "errors",
    )  # fmt: skip
    return Table("Primary as users see it, worker overloaded", columns, tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about p99, memory and errors."""
    found = []
    for name in _names(samples):
        what = f"primary's p99 under overload, candidate {name} over mirror off"
        found.append(judged(what, claims.OVERLOAD_P99, _over_off(samples, [name])))
    what = "primary's p99 under overload, all candidates over mirror off"
    found.append(judged(what, claims.OVERLOAD_P99, _over_off(samples, list(Fault))))
    flat = [
        value
        for one in samples
        if (value := flatness([size for _, size in one.memory])) is not None
    ]
    what = "worker's memory under overload, last quarter over second, worst case"
    found.append(judged(what, claims.FLAT, spread([max(flat)]) if flat else None))
    errors = spread([float(sum(sum(one.errors.values()) for one in samples))])
    what = "errors that users saw under overload, all cases"
    return [*found, judged(what, claims.NOTHING_LOST, errors)]


def _memory_chart(samples: Sequence[Sample]) -> Chart:
    """Return the worker's memory over the time of the overload."""
    series = []
    for name in (OFF, *_names(samples)):
        for one in _of(samples, name)[:1]:
            points = tuple((at_s, spread([size / 1e6])) for at_s, size in peaks(one.memory))
            series.append(Series(name, points))
    return Chart(
        name=f"{NAME}-memory",
        title="Worker's memory under overload",
        x_label="time, s",
        y_label="resident memory, MB",
        kind=Kind.LINES,
        series=tuple(series),
    )
