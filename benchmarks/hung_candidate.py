"""Claim: users notice nothing of a candidate that is hung, dead, slow, endless, huge, a bomb or overloaded.

The primary's latency at a constant rate with the mirror off, with a healthy candidate, and with each
fault, interleaved; `benchmarks.overload` has the same where the worker is overloaded. The faulty candidates
are real servers on real sockets (`benchmarks.programs.faulty`). Each round of each case has an instance of
its own, started for it, warmed up and ended after it: what one fault leaves behind is in no other's figures,
and neither is what idle instances cost. (Eight of them side by side, twenty-four processes that wake up many
times a second, moved p99 on two cores by a millisecond either way.)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import candidates, claims, processes
from benchmarks.candidates import OFF, Candidates
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import Spread, paired_difference, rotated, size_label, spread
from benchmarks.fleet import Fleet
from benchmarks.memory import MemoryLog
from benchmarks.options import Options
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.programs.faulty import Fault
from benchmarks.report import Report, Table

NAME = "hung-candidate"
QUICK = (Fault.HEALTHY, Fault.HUNG, Fault.HUGE)
#: Faults whose calls last until the proxy ends them.
_LASTING = frozenset({Fault.HUNG, Fault.SLOW, Fault.ENDLESS, Fault.HUGE, Fault.OVERLOADED})
_ROUNDS = 5
_WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one case; times in milliseconds.

    Attributes:
        mirrored: share of the decided copies that were sent, None without any.
        peak_bytes: resident memory of the worker, at most.
    """

    case: str
    round: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    rate_per_s: float
    worker_us: float
    errors: dict[str, int]
    mirrored: float | None
    peak_bytes: int


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every case at the constant rate."""
    size = min(options.sizes)
    seconds = options.seconds + 1
    asked = candidates.chosen(options.cases, QUICK if options.is_quick else tuple(Fault))
    cases = (OFF, *asked)
    rounds = min(options.rounds, _ROUNDS)
    samples: list[Sample] = []
    with Fleet(folder, options.is_pinned) as fleet:
        stage = candidates.start(fleet)
        for turn in range(rounds):
            for case in rotated(cases, turn):
                say(f"round {turn + 1} of {rounds}: {case}")
                samples.append(_measure(stage, case, PacedLoad(size, seconds), turn))
    return Report(
        name=NAME,
        conditions=(
            f"{RATE_PER_S:,} requests/s of {size_label(size)}, open loop",
            f"{rounds} rounds of {seconds} s, all in turn in each, one instance at a time; medians",
            "p99: of each second, the median of those of a round",
            *candidates.CONDITIONS,
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={
            case: {"p99_ms": spread([one.p99_ms for one in _of(samples, case)])} for case in cases
        },
        claims=tuple(_claims(samples)),
        charts=(_latency_chart(samples),),
        faults=tuple(
            f"{one.case}, round {one.round}: users saw {one.errors}"
            for one in samples
            if one.errors
        ),
    )


def _measure(stage: Candidates, case: str, load: PacedLoad, turn: int) -> Sample:
    """Send one load to an instance of its own, and wait until what it has left behind is over."""
    target = stage.start_proxy(case, f"{case}-{turn}")
    (worker,), root = target.worker_pids, target.root_pid
    assert root is not None
    begin = load.for_seconds(_WARM_UP_S).send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker)
    with MemoryLog(worker) as memory:
        result = load.send(stage.fleet, target.url)
    cpu_ns = processes.cpu_ns(worker) - cpu_ns
    mirrored = candidates.share_sent([candidates.copies(target)])
    # Calls that are under way end at their timeout, the last one that late.
    time.sleep(candidates.TIMEOUT_S if case in _LASTING else 0)
    processes.settle(root)
    stage.fleet.end_tree(root)
    assert result.steady_p99_us is not None
    return Sample(
        case=case,
        round=turn,
        p50_ms=result.quantiles_us[0.5] / 1e3,
        p99_ms=result.steady_p99_us / 1e3,
        p999_ms=result.quantiles_us[0.999] / 1e3,
        rate_per_s=result.rate_per_s,
        worker_us=cpu_ns / result.requests / 1e3,
        errors=dict(Counter(begin.errors) + Counter(result.errors)),
        mirrored=mirrored,
        peak_bytes=max((size for _, size in memory.points), default=0),
    )


def _of(samples: Sequence[Sample], case: str) -> list[Sample]:
    same = [one for one in samples if one.case == case]
    return sorted(same, key=lambda one: one.round)


def _names(samples: Sequence[Sample]) -> list[str]:
    """Return the cases that were measured."""
    return [name for name in (OFF, *Fault) if _of(samples, name)]


def _added(samples: Sequence[Sample], case: str, base: str) -> Spread | None:
    """Return what a case adds to another's p99, round by round, in milliseconds."""
    ours, theirs = ([s.p99_ms for s in _of(samples, name)] for name in (case, base))
    return paired_difference(ours, theirs) if ours and theirs else None


def _table(samples: Sequence[Sample]) -> Table:
    """Return the medians of every case."""
    rows = []
    for name in _names(samples):
        group = _of(samples, name)
        added = None if name == OFF else _added(samples, name, OFF)
        mirrored = [one.mirrored for one in group if one.mirrored is not None]
        rows.append(
            (
                name,
                f"{spread([one.rate_per_s for one in group]).median:,.0f}",
                f"{spread([one.p50_ms for one in group]).median:.3f}",
                f"{spread([one.p99_ms for one in group]).median:.3f}",
                f"{spread([one.p999_ms for one in group]).median:.3f}",
                f"{added.median:+.3f} ({added.low:+.3f} to {added.high:+.3f})" if added else "",
                f"{spread(mirrored).median:.1%}" if mirrored else "",
                f"{spread([one.worker_us for one in group]).median:.1f}",
                f"{max(one.peak_bytes for one in group) / 1e6:.0f}",
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    columns = (
        "", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "p99 less mirror off, ms", "mirrored",
        "worker µs/req", "worker MB", "errors",
    )  # fmt: skip
    return Table("Primary as users see it, constant rate", columns, tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about p99 and errors."""
    found = []
    for name in _names(samples):
        if name != OFF:
            what = f"primary's p99, candidate {name} less mirror off"
            found.append(judged(what, claims.ISOLATION_P99, _added(samples, name, OFF)))
    what = f"primary's p99, candidate {Fault.HUNG} less {Fault.HEALTHY}"
    gap = _added(samples, Fault.HUNG, Fault.HEALTHY)
    found.append(judged(what, claims.ISOLATION_P99, gap))
    errors = spread([float(sum(sum(one.errors.values()) for one in samples))])
    return [*found, judged("errors that users saw, all cases", claims.NOTHING_LOST, errors)]


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
                    (name, spread([of(one) for one in _of(samples, name)]))
                    for name in _names(samples)
                ),
            )
            for label, of in quantities
        ),
        is_log_y=True,
    )
