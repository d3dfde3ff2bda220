"""Claim: users notice nothing of a candidate that is hung, dead, slow, endless, huge or a bomb.

The primary's latency at a constant rate with the mirror off, with a healthy candidate, and with
each fault, interleaved; then under overload. The faulty candidates are real servers on real
sockets (`benchmarks.programs.faulty`). Each round of each case has an instance of its own, started
for it, warmed up and ended after it: what one fault leaves behind is in no other's figures, and
neither is what idle instances cost. (Eight of them side by side, twenty-four processes that wake
up many times a second, moved p99 on two cores by a millisecond either way.)

Overload is a closed loop of ten times the connections that saturate the worker (wrk), without a
pause: two cores cannot offer ten times its requests a second. Latency is then that of a queue;
what counts is that users get no error, that it is no worse than with the mirror off, and that the
worker's memory stays flat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import claims, processes
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import Spread, paired_difference, rotated, size_label, spread
from benchmarks.fleet import Fleet, free_port
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
#: Faults whose calls last until the proxy ends them.
_LASTING = frozenset({Fault.HUNG, Fault.SLOW, Fault.ENDLESS, Fault.HUGE})
_ROUNDS = 5
_OVERLOAD = 10
_TIMEOUT_S = 1.0
_MAX_MIRRORS = 64
_LEAST_OVERLOAD_S = 1
_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """What all instances share: the processes, the primary, and the port of each candidate."""

    fleet: Fleet
    primary: Origin
    ports: dict[Fault, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one case; times in milliseconds, memory in bytes of the worker (RSS)."""

    case: str
    part: str
    round: int
    p50_ms: float
    p99_ms: float
    p999_ms: float | None
    rate_per_s: float
    worker_us: float
    errors: dict[str, int]
    memory: list[tuple[float, int]] = field(default_factory=list)


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every case at the constant rate, then under overload."""
    size = min(options.sizes)
    seconds = options.seconds + 1
    samples: list[Sample] = []
    cases = QUICK if options.is_quick else (OFF, *Fault)
    with Fleet(folder, options.is_pinned) as fleet:
        stage = _open(fleet)
        rounds = min(options.rounds, _ROUNDS)
        for turn in range(rounds):
            for case in rotated(cases, turn):
                say(f"constant rate, round {turn + 1} of {rounds}: {case}")
                samples.append(_measure(stage, case, PacedLoad(size, seconds), turn))
        overload_s = max(_LEAST_OVERLOAD_S, round(options.overload_s / len(cases)))
        for case in cases:
            say(f"overload, {overload_s} s: {case}")
            heavy = Load(size, options.connections * _OVERLOAD, overload_s)
            samples.append(_measure(stage, case, heavy, 0))
    return Report(
        name=NAME,
        conditions=(
            f"constant rate: {RATE_PER_S:,} requests/s of {size_label(size)}, open loop",
            f"{rounds} rounds of {seconds} s, all in turn in each, one instance at a time; medians",
            "p99 at the constant rate: of each second, the median of those of a round",
            f"overload: {options.connections * _OVERLOAD} connections, {overload_s} s each",
            f"candidates: at most {_MAX_MIRRORS} calls at a time, {_TIMEOUT_S:g} s each",
            "endless, huge and compressed answers share 1 Gbit/s",
        ),
        tables=(_table(samples, "constant rate"), _table(samples, "overload")),
        samples=tuple(samples),
        summary={case: _summary(samples, case) for case in cases},
        claims=tuple(_claims(samples)),
        charts=(_latency_chart(samples), _memory_chart(samples)),
        faults=tuple(_faults(samples)),
    )


def _open(fleet: Fleet) -> Stage:
    """Start the primary and the faulty candidates."""
    primary = start_origin(fleet, "primary")
    ports = {fault: free_port() for fault in Fault}
    faulty = Dialogue(fleet, "faulty", {"ports": ports})
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


def _measure(stage: Stage, case: str, load: PacedLoad | Load, turn: int) -> Sample:
    """Send one load to an instance of its own, and wait until what it has left behind is over."""
    part = "constant rate" if isinstance(load, PacedLoad) else "overload"
    label = f"{case}-{part}-{turn}".replace("/", "-").replace(" ", "-")
    target = _start(stage, case, label)
    (worker,), root = target.worker_pids, target.root_pid
    assert root is not None
    load.for_seconds(_WARM_UP_S).send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker)
    with MemoryLog(worker) as memory:
        result = load.send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker) - cpu_ns
    # Calls that are under way end at their timeout, the last one that late.
    time.sleep(_TIMEOUT_S if case in _LASTING else 0)
    processes.settle(root)
    stage.fleet.end_tree(root)
    return _sample(case, part, turn, result, cpu_ns, memory.points)


def _sample(
    case: str,
    part: str,
    turn: int,
    result: LoadResult,
    cpu_ns: int,
    memory: list[tuple[float, int]],
) -> Sample:
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
        errors=result.errors,
        memory=memory,
    )


def _of(samples: Sequence[Sample], case: str, part: str) -> list[Sample]:
    same = [one for one in samples if (one.case, one.part) == (case, part)]
    return sorted(same, key=lambda one: one.round)


def _names(samples: Sequence[Sample]) -> list[str]:
    found = {one.case for one in samples}
    return [name for name in (OFF, *Fault) if name in found]


def _added(samples: Sequence[Sample], case: str, base: str, part: str) -> Spread | None:
    """Return what a case adds to another's p99, round by round, in milliseconds."""
    ours, theirs = ([s.p99_ms for s in _of(samples, name, part)] for name in (case, base))
    return paired_difference(ours, theirs) if ours and theirs else None


def _table(samples: Sequence[Sample], part: str) -> Table:
    """Return the medians of every case of one part."""
    rows = []
    for name in _names(samples):
        group = _of(samples, name, part)
        added = _added(samples, name, OFF, part)
        p999 = [one.p999_ms for one in group if one.p999_ms is not None]
        peak = max((size for one in group for _, size in one.memory), default=0)
        rows.append(
            (
                name,
                f"{spread([one.rate_per_s for one in group]).median:,.0f}",
                f"{spread([one.p50_ms for one in group]).median:.3f}",
                f"{spread([one.p99_ms for one in group]).median:.3f}",
                f"{spread(p999).median:.3f}" if p999 else "",
                f"{added.median:+.3f} ({added.low:+.3f} to {added.high:+.3f})" if added else "",
                f"{spread([one.worker_us for one in group]).median:.1f}",
                f"{peak / 1e6:.0f}",
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    columns = (
        "", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "p99 less mirror off, ms", "worker µs/req",
        "worker MB", "errors",
    )  # fmt: skip
    return Table(f"Primary as users see it, {part}", columns, tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about p99 at the constant rate, and about memory under overload."""
    part = "constant rate"
    what = "primary's p99, healthy candidate less mirror off"
    found = [judged(what, claims.ISOLATION_P99, _added(samples, Fault.HEALTHY, OFF, part))]
    for name in _names(samples):
        if name not in (OFF, Fault.HEALTHY):
            what = f"primary's p99, candidate {name} less healthy"
            gap = _added(samples, name, Fault.HEALTHY, part)
            found.append(judged(what, claims.ISOLATION_P99, gap))
    flat = [
        value
        for name in _names(samples)
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
                    for name in _names(samples)
                ),
            )
            for label, of in quantities
        ),
        is_log_y=True,
    )


def _memory_chart(samples: Sequence[Sample]) -> Chart:
    """Return the worker's memory over the time of the overload."""
    series = []
    for name in _names(samples):
        for one in _of(samples, name, "overload"):
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
