"""Claim: users notice nothing of a candidate that is hung, dead, slow, endless, huge, a bomb or overloaded.

The primary's latency at a constant rate with the mirror off, with a healthy candidate, and with
each fault, interleaved; then under overload. The faulty candidates are real servers on real
sockets (`benchmarks.programs.faulty`). Each round of each case has an instance of its own, started
for it, warmed up and ended after it: what one fault leaves behind is in no other's figures, and
neither is what idle instances cost. (Eight of them side by side, twenty-four processes that wake
up many times a second, moved p99 on two cores by a millisecond either way.)

Overload is a closed loop of ten times the connections that saturate the worker (wrk), without a
pause: two cores cannot offer ten times its requests a second. Latency is then that of a queue;
what counts is that users get no error, that it is no worse than with the mirror off, and that the
worker's memory stays flat. Each case has a run with the mirror off right before and right after it, and
is held against the mean of the two.

A worker finds out that it is overloaded within some 100 ms, and makes no copies from then on (before it
did, p99 was 7.6 times that of mirror off). It must not try again too soon: a trial costs its users a second
of copies, and one each half minute would be p99. So what ends it is how busy the worker is without copies,
not how late it is. A request of which no copy is made costs the worker as much as one of a route without
candidates.

What p99 is under overload depends on the machine more than on anything else: on that of the README's figures
mirror off has 14 ms in one minute and 21 in another. So the time of each case is spent in slices, with mirror
off between any two, and a slice in bursts (`benchmarks.bursts`), of whose p99 it is the median. A slice's
first second, in which the worker finds out, stands apart: of two minutes it is less than a hundredth.
Slices scatter by 14%: of the nine of a case the median is known to 6%, of all eight cases' to 2%.
By default the candidates that matter most here are measured, healthy (which gets most copies) and hung.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

from benchmarks import claims, processes
from benchmarks.bursts import Bursts
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import Spread, paired_difference, rotated, size_label, spread
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.load import Load, LoadResult
from benchmarks.memory import MemoryLog, flatness
from benchmarks.options import Options
from benchmarks.origin import Origin, own_origin, start_origin
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.programs.faulty import Fault
from benchmarks.report import Report, Table

NAME = "hung-candidate"
OFF = "mirror off"
QUICK = (OFF, Fault.HEALTHY, Fault.HUNG, Fault.HUGE)
#: Under overload, where no others are asked for.
_HEAVY = (OFF, Fault.HEALTHY, Fault.HUNG)
#: Faults whose calls last until the proxy ends them.
_LASTING = frozenset({Fault.HUNG, Fault.SLOW, Fault.ENDLESS, Fault.HUGE, Fault.OVERLOADED})
_ROUNDS = 5
#: One run under overload, and one burst of it.
_SLICE_S = 20
_BURST_S = 2
#: Of the requests at the constant rate, what the overloaded candidate can answer.
_ANSWERED_SHARE = 0.1
_OVERLOAD = 10
_TIMEOUT_S = 1.0
_MAX_MIRRORS = 64
_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """What all instances share: the processes, the primary, and the port of each candidate."""

    fleet: Fleet
    primary: Origin
    ports: dict[Fault, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one case; times in milliseconds, memory in bytes of the worker (RSS).

    Attributes:
        begin_p99_ms: that of the first second.
        mirrored: share of the decided copies that were sent, None without any.
        over_off: p99 over that of the neighbours with the mirror off, under overload.
    """

    case: str
    part: str
    round: int
    p50_ms: float
    p99_ms: float
    p999_ms: float | None
    rate_per_s: float
    worker_us: float
    errors: dict[str, int]
    begin_p99_ms: float
    memory: list[tuple[float, int]] = field(default_factory=list)
    mirrored: float | None = None
    over_off: float | None = None


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every case at the constant rate, then under overload."""
    size = min(options.sizes)
    seconds = options.seconds + 1
    samples: list[Sample] = []
    cases = _cases(options)
    with Fleet(folder, options.is_pinned) as fleet:
        stage = _open(fleet)
        rounds = min(options.rounds, _ROUNDS)
        for turn in range(rounds):
            for case in rotated(cases, turn):
                say(f"constant rate, round {turn + 1} of {rounds}: {case}")
                samples.append(_measure(stage, case, PacedLoad(size, seconds), turn))
        turns = max(1, round(options.overload_s / _SLICE_S))
        overload_s = min(_SLICE_S, round(options.overload_s))
        burst = Load(size, options.connections * _OVERLOAD, _BURST_S)
        heavy = Bursts(burst, 1).for_seconds(overload_s)
        for turn in range(turns):
            say(f"overload, round {turn + 1} of {turns}, {overload_s} s each")
            samples += _measure_overload(stage, cases if options.cases else _HEAVY, heavy, turn)
    return Report(
        name=NAME,
        conditions=(
            f"constant rate: {RATE_PER_S:,} requests/s of {size_label(size)}, open loop",
            f"{rounds} rounds of {seconds} s, all in turn in each, one instance at a time; medians",
            "p99 at the constant rate: of each second, the median of those of a round",
            f"overload: {heavy.connections} connections, {turns} rounds of {overload_s} s",
            f"p99 under overload: of each {_BURST_S} s, the median of those of a round",
            "p99 over mirror off: of the runs right before and after, round by round",
            f"candidates: at most {_MAX_MIRRORS} calls at a time, {_TIMEOUT_S:g} s each",
            "endless, huge and compressed answers share 1 Gbit/s",
            f"overloaded: it answers {RATE_PER_S * _ANSWERED_SHARE:,.0f} requests/s",
        ),
        tables=(_table(samples, "constant rate"), _table(samples, "overload")),
        samples=tuple(samples),
        summary={case: _summary(samples, case) for case in cases},
        claims=tuple(_claims(samples)),
        charts=(_latency_chart(samples), _memory_chart(samples)),
        faults=tuple(_faults(samples)),
    )


def _cases(options: Options) -> tuple[str, ...]:
    """Return what is measured: mirror off, and the candidates that are asked for.

    Raises:
        BenchmarkError: there is none of such a name.
    """
    unknown = set(options.cases) - set(Fault)
    if unknown:
        raise BenchmarkError(f"no candidate {', '.join(unknown)}; there are: {', '.join(Fault)}")
    if options.cases:
        return (OFF, *(each for each in Fault if each in options.cases))
    return QUICK if options.is_quick else (OFF, *Fault)


def _open(fleet: Fleet) -> Stage:
    """Start the primary and the faulty candidates."""
    primary = start_origin(fleet, "primary")
    ports = {fault: free_port() for fault in Fault}
    settings = {"ports": ports, "rate_per_s": RATE_PER_S * _ANSWERED_SHARE}
    faulty = Dialogue(fleet, "faulty", settings)
    for fault in Fault:
        if fault is not Fault.REFUSES:
            fleet.wait_for_port(faulty.child, ports[fault])
    return Stage(fleet, primary, ports)


def _start(stage: Stage, case: str, label: str) -> Target:
    """Start an instance for one case."""
    mode = Mode.FORWARD if case == OFF else Mode.MIRROR
    port = stage.ports[Fault.HEALTHY if case == OFF else Fault(case)]
    setup = Setup(label=label, candidate_timeout_s=_TIMEOUT_S, max_mirrors=_MAX_MIRRORS)
    return Understudy().start(
        stage.fleet, mode, Upstreams(stage.primary, own_origin(port, "faulty")), setup
    )


def _measure_overload(stage: Stage, cases: Sequence[str], heavy: Bursts, turn: int) -> list[Sample]:
    """Measure every case under overload, each between two runs with the mirror off."""
    faults = [case for case in rotated(cases, turn) if case != OFF]
    found = [_measure(stage, OFF, heavy, turn)]
    for case in faults:
        tried, after = (_measure(stage, each, heavy, turn) for each in (case, OFF))
        off_ms = mean((found[-1].p99_ms, after.p99_ms))
        found += [replace(tried, over_off=tried.p99_ms / off_ms), after]
    return found


def _measure(stage: Stage, case: str, load: PacedLoad | Bursts, turn: int) -> Sample:
    """Send one load to an instance of its own, and wait until what it has left behind is over."""
    part = "constant rate" if isinstance(load, PacedLoad) else "overload"
    label = f"{case}-{part}-{turn}".replace("/", "-").replace(" ", "-")
    target = _start(stage, case, label)
    (worker,), root = target.worker_pids, target.root_pid
    assert root is not None
    begin = load.for_seconds(_WARM_UP_S).send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker)
    with MemoryLog(worker) as memory:
        result = load.send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker) - cpu_ns
    mirrored = _mirrored(target)
    # Calls that are under way end at their timeout, the last one that late.
    time.sleep(_TIMEOUT_S if case in _LASTING else 0)
    processes.settle(root)
    stage.fleet.end_tree(root)
    found = _sample(case, part, turn, (begin, result), cpu_ns)
    return replace(found, memory=memory.points, mirrored=mirrored)


def _mirrored(target: Target) -> float | None:
    """Return the share of the decided copies that were sent; None where there were none."""
    with urllib.request.urlopen(f"{target.admin}/api/v1/status", timeout=10) as answer:
        candidates = json.load(answer)["routes"][0]["candidates"]
    if not candidates or not candidates[0]["mirror_decided"]:
        return None
    return float(candidates[0]["mirror_sent"] / candidates[0]["mirror_decided"])


def _sample(
    case: str, part: str, turn: int, results: tuple[LoadResult, LoadResult], cpu_ns: int
) -> Sample:
    begin, result = results
    p999_us = result.quantiles_us.get(0.999)
    return Sample(
        case=case,
        part=part,
        round=turn,
        p50_ms=result.quantiles_us.get(0.5, result.p50_us) / 1e3,
        p99_ms=(result.steady_p99_us or result.p99_us) / 1e3,
        p999_ms=None if p999_us is None else p999_us / 1e3,
        rate_per_s=result.rate_per_s,
        worker_us=cpu_ns / result.requests / 1e3,
        errors=dict(Counter(begin.errors) + Counter(result.errors)),
        begin_p99_ms=begin.p99_us / 1e3,
    )


def _of(samples: Sequence[Sample], case: str, part: str) -> list[Sample]:
    same = [one for one in samples if (one.case, one.part) == (case, part)]
    return sorted(same, key=lambda one: one.round)


def _names(samples: Sequence[Sample], part: str) -> list[str]:
    """Return the cases that were measured in a part."""
    found = {one.case for one in samples if one.part == part}
    return [name for name in (OFF, *Fault) if name in found]


def _added(samples: Sequence[Sample], case: str, base: str, part: str) -> Spread | None:
    """Return what a case adds to another's p99, round by round, in milliseconds."""
    ours, theirs = ([s.p99_ms for s in _of(samples, name, part)] for name in (case, base))
    return paired_difference(ours, theirs) if ours and theirs else None


def _over_off(samples: Sequence[Sample], cases: Collection[str]) -> Spread | None:
    """Return p99 under overload over that of the neighbours with the mirror off, round by round."""
    found = [one.over_off for one in samples if one.case in cases and one.over_off is not None]
    return spread(found) if found else None


def _beside_off(samples: Sequence[Sample], name: str, part: str) -> str:
    """Return what tables say of a case's p99 beside that with the mirror off."""
    if part == "constant rate":
        found, form = _added(samples, name, OFF, part), "+.3f"
    else:
        found, form = _over_off(samples, [name]), ".2f"
    if found is None:
        return ""
    return f"{found.median:{form}} ({found.low:{form}} to {found.high:{form}})"


def _table(samples: Sequence[Sample], part: str) -> Table:
    """Return the medians of every case of one part."""
    rows = []
    for name in _names(samples, part):
        group = _of(samples, name, part)
        tails = [one.p999_ms or one.begin_p99_ms for one in group]
        mirrored = [one.mirrored for one in group if one.mirrored is not None]
        peak = max((size for one in group for _, size in one.memory), default=0)
        rows.append(
            (
                name,
                f"{spread([one.rate_per_s for one in group]).median:,.0f}",
                f"{spread([one.p50_ms for one in group]).median:.3f}",
                f"{spread([one.p99_ms for one in group]).median:.3f}",
                f"{spread(tails).median:.3f}",
                _beside_off(samples, name, part),
                f"{spread(mirrored).median:.1%}" if mirrored else "",
                f"{spread([one.worker_us for one in group]).median:.1f}",
                f"{peak / 1e6:.0f}",
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    tail, beside = "p99.9 ms", "less mirror off, ms"
    if part == "overload":
        tail, beside = "first second's p99 ms", "over mirror off"
    columns = (
        "", "req/s", "p50 ms", "p99 ms", tail, f"p99 {beside}", "mirrored", "worker µs/req",
        "worker MB", "errors",
    )  # fmt: skip
    return Table(f"Primary as users see it, {part}", columns, tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about p99 at the constant rate, and about p99 and memory under overload."""
    part = "constant rate"
    what = "primary's p99, healthy candidate less mirror off"
    found = [judged(what, claims.ISOLATION_P99, _added(samples, Fault.HEALTHY, OFF, part))]
    for name in _names(samples, part):
        if name not in (OFF, Fault.HEALTHY):
            what = f"primary's p99, candidate {name} less healthy"
            gap = _added(samples, name, Fault.HEALTHY, part)
            found.append(judged(what, claims.ISOLATION_P99, gap))
    for name in _names(samples, "overload"):
        if name != OFF:
            what = f"primary's p99 under overload, candidate {name} over mirror off"
            found.append(judged(what, claims.OVERLOAD_P99, _over_off(samples, [name])))
    what = "primary's p99 under overload, all candidates over mirror off"
    found.append(judged(what, claims.OVERLOAD_P99, _over_off(samples, list(Fault))))
    flat = [
        value
        for name in _names(samples, "overload")
        for one in _of(samples, name, "overload")
        if (value := flatness([size for _, size in one.memory])) is not None
    ]
    what = "worker's memory under overload, last quarter over second, worst case"
    found.append(judged(what, claims.FLAT, spread([max(flat)]) if flat else None))
    errors = spread([float(sum(sum(one.errors.values()) for one in samples))])
    return [*found, judged("errors that users saw, all cases", claims.NOTHING_LOST, errors)]


def _faults(samples: Sequence[Sample]) -> list[str]:
    """Return a line for each round in which a user saw an error."""
    return [
        f"{one.case}, {one.part}, round {one.round}: users saw {one.errors}"
        for one in samples
        if one.errors
    ]


def _summary(samples: Sequence[Sample], case: str) -> dict[str, object]:
    return {
        part: {"p99_ms": spread([one.p99_ms for one in group])}
        for part in ("constant rate", "overload")
        if (group := _of(samples, case, part))
    }


def _latency_chart(samples: Sequence[Sample]) -> Chart:
    """Return the primary's percentiles by case."""
    quantities: tuple[tuple[str, Callable[[Sample], float]], ...] = (
        ("p50", lambda one: one.p50_ms),
        ("p99", lambda one: one.p99_ms),
    )
    return Chart(
        name=NAME,
        title=f"Primary's latency at {RATE_PER_S:,} requests/s, by what the candidate does",
        x_label="candidate",
        y_label="latency, ms",
        kind=Kind.BARS,
        series=tuple(
            Series(
                label,
                tuple(
                    (name, spread([of(one) for one in _of(samples, name, "constant rate")]))
                    for name in _names(samples, "constant rate")
                ),
            )
            for label, of in quantities
        ),
        is_log_y=True,
    )


def _memory_chart(samples: Sequence[Sample]) -> Chart:
    """Return the worker's memory over the time of the overload."""
    series = []
    for name in _names(samples, "overload"):
        for one in _of(samples, name, "overload")[:1]:
            points = tuple((at_s, spread([size / 1e6])) for at_s, size in one.memory)
            series.append(Series(name, points))
    return Chart(
        name=f"{NAME}-memory",
        title="Worker's memory under overload",
        x_label="time, s",
        y_label="resident memory, MB",
        kind=Kind.LINES,
        series=tuple(series),
    )
