"""Claim: users do not notice that the broker freezes, dies and comes back.

Their latency at a constant 500 requests a second, while a real broker is stopped (SIGSTOP) for
`--seconds` times ten, catches up, is killed, and starts again; and, in the same round, over as long
a time with nothing done to it. Two workers, two recorders. Every answer must have its pair
acknowledged in the end, by the ledger of the instance.

The whole runs are compared, as a user would who does not know when the broker is in trouble; what
each phase was like stands beside. Users and models are programs of their own: in one process with
what asks for the status, the asking alone cost them 10 ms at p99.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks import claims
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import paired_difference, spread
from benchmarks.fleet import Fleet
from benchmarks.kafka import create_topic, own_broker
from benchmarks.options import Options
from benchmarks.origin import start_origin
from benchmarks.paced import PacedLoad
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.report import Report, Table
from proxy.config.resolved import Kafka
from proxy.telemetry import monotonic_s

NAME = "kafka-faults"
RATE_PER_S = 500
UNDISTURBED, FAULTED = "undisturbed", "with faults"
_PREFIX = "bench"
_WARM_UP_S = 2
#: Of the sequence, in tenths of the outage: before the first fault and after each recovery.
_REST = 0.5
_SETTLE_S = 120.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the sequence: what the broker is doing, and from when, in seconds of the load."""

    name: str
    begin_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One load; latencies in milliseconds.

    Attributes:
        p99_of_seconds_ms: of each second of it.
        phases: what was done to the broker meanwhile.
        unaccounted: answers without an acknowledged pair in the end.
    """

    case: str
    round: int
    requests: int
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]
    p99_of_seconds_ms: tuple[float, ...]
    unaccounted: int
    phases: tuple[Phase, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Scene:
    """The instance under load, and the broker that it ships to."""

    fleet: Fleet
    target: Target
    broker: Any
    outage_s: float

    @property
    def seconds(self) -> float:
        """How long a load lasts: two outages and three rests."""
        return (2 + 3 * _REST) * self.outage_s

    def spoil(self, begin_s: float, phases: list[Phase]) -> None:
        """Freeze the broker, thaw it, kill it and start it again."""

        def note(name: str) -> None:
            phases.append(Phase(name, monotonic_s() - begin_s))

        rest_s = _REST * self.outage_s
        note("before")
        time.sleep(rest_s)
        self.broker.freeze()
        note("frozen")
        time.sleep(self.outage_s)
        self.broker.thaw()
        note("thawed")
        time.sleep(rest_s)
        self.broker.kill()
        note("dead")
        time.sleep(self.outage_s)
        note("back")
        self.broker.launch()
        self.broker.wait_until_up()


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure a run without and one with faults in each round."""
    rounds, outage_s = min(2, options.rounds), 2.0 if options.is_quick else 10.0 * options.seconds
    size = min(options.sizes)
    with own_broker(folder / "broker") as (broker, note):
        if broker is None:
            return Report(NAME, (note,), (), (), {})
        create_topic(Kafka((broker.bootstrap,), _PREFIX, {}))
        with Fleet(folder, options.is_pinned) as fleet:
            scene = _open(fleet, broker, outage_s)
            load = PacedLoad(size, scene.seconds, RATE_PER_S)
            replace(load, seconds=_WARM_UP_S).send(fleet, scene.target.url)
            sent, samples = _WARM_UP_S * RATE_PER_S, []
            for turn in range(rounds):
                for case in (UNDISTURBED, FAULTED):
                    say(f"round {turn + 1} of {rounds}, {scene.seconds:g} s: {case}")
                    samples.append(_measure(scene, case, load, turn, sent))
                    sent += samples[-1].requests
    return Report(
        name=NAME,
        conditions=(
            f"{RATE_PER_S:,} requests/s, open loop; 2 workers, 2 recorders, one broker",
            f"{rounds} rounds of {scene.seconds:g} s undisturbed, and of as long with faults",
            f"the broker frozen for {outage_s:g} s, then killed for as long",
            "by phase: the median second's p99",
        ),
        tables=(_runs(samples), _phases(samples)),
        samples=tuple(samples),
        summary={},
        claims=tuple(_claims(samples)),
        charts=(_chart(samples),),
        faults=tuple(
            f"{s.case}, round {s.round}: users saw {s.errors}" for s in samples if s.errors
        ),
    )


def _open(fleet: Fleet, broker: Any, outage_s: float) -> Scene:
    primary, candidate = (start_origin(fleet, name) for name in ("primary", "candidate"))
    setup = Setup(workers=2, recorders=2, kafka=f"{broker.bootstrap}", topic_prefix=_PREFIX)
    target = Understudy().start(fleet, Mode.MIRROR, Upstreams(primary, candidate), setup)
    return Scene(fleet, target, broker, outage_s)


def _measure(scene: Scene, case: str, load: PacedLoad, turn: int, sent: int) -> Sample:
    """Send one load, with faults or without, and wait until the books are closed."""
    phases: list[Phase] = []
    with ThreadPoolExecutor(1) as pool:
        begin_s = monotonic_s()
        asked = pool.submit(load.ask, scene.fleet, scene.target.url)
        if case == FAULTED:
            # Here, not in the thread: the kernel ends a broker with the thread that has started it.
            scene.spoil(begin_s, phases)
        said = asked.result()
    return Sample(
        case=case,
        round=turn,
        requests=said["requests"],
        p50_ms=said["latency_ns"]["0.5"] / 1e6,
        p99_ms=said["latency_ns"]["0.99"] / 1e6,
        errors=said["errors"],
        p99_of_seconds_ms=tuple(ns / 1e6 for ns in said["p99_of_seconds_ns"]),
        unaccounted=_unaccounted(scene.target, sent + said["requests"]),
        phases=tuple(phases),
    )


def _unaccounted(target: Target, answers: int) -> int:
    """Wait until every answer's pair is acknowledged; return how many are not when time is up."""
    give_up = monotonic_s() + _SETTLE_S
    while True:
        accounts = httpx.get(f"{target.admin}/api/v1/status", timeout=10).json()["ledger"]
        shipped = next(one for one in accounts if one["name"] == "pairs journaled")
        missing = answers - int(shipped["parts"].get("acknowledged", 0))
        if missing == 0 or monotonic_s() > give_up:
            return missing
        time.sleep(0.5)


def _seconds_of(sample: Sample, number: int) -> tuple[float, ...]:
    """Return the seconds' p99 of one phase, its first and last second included."""
    ends = [int(phase.begin_s) for phase in sample.phases[1:]] + [len(sample.p99_of_seconds_ms)]
    return sample.p99_of_seconds_ms[int(sample.phases[number].begin_s) : ends[number]]


def _runs(samples: Sequence[Sample]) -> Table:
    rows = [
        (
            f"{one.case}, round {one.round + 1}",
            f"{one.requests:,}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            str(sum(one.errors.values())),
            str(one.unaccounted),
        )
        for one in samples
    ]
    columns = ("", "requests", "p50 ms", "p99 ms", "errors", "pairs unaccounted")
    return Table("Users' latency over the whole run", columns, tuple(rows))


def _phases(samples: Sequence[Sample]) -> Table:
    rows = []
    for one in samples:
        parts = enumerate(one.phases) if one.phases else ()
        rows += [
            (
                f"round {one.round + 1}: {phase.name}",
                f"{len(p99s)}",
                f"{median(p99s):.2f}",
                f"{max(p99s):.2f}",
            )
            for number, phase in parts
            if (p99s := _seconds_of(one, number))
        ]
    columns = ("", "seconds", "median second's p99 ms", "worst second's p99 ms")
    return Table("Users' p99 by what the broker is doing", columns, tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about the users' p99, their errors, and the pairs."""
    p99s = [[one.p99_ms for one in samples if one.case == case] for case in (FAULTED, UNDISTURBED)]
    errors = sum(sum(one.errors.values()) for one in samples)
    return [
        judged(
            "users' p99, broker frozen and killed less undisturbed",
            claims.KAFKA_P99,
            paired_difference(*p99s),
        ),
        judged("errors that users saw", claims.NOTHING_LOST, spread([float(errors)])),
        judged(
            "pairs unaccounted for", claims.NOTHING_LOST, spread([float(samples[-1].unaccounted)])
        ),
    ]


def _chart(samples: Sequence[Sample]) -> Chart:
    """Return each second's p99 over the time of the load."""
    length = min(len(one.p99_of_seconds_ms) for one in samples)
    series = [
        Series(
            case,
            tuple(
                (second, spread([s.p99_of_seconds_ms[second] for s in samples if s.case == case]))
                for second in range(length)
            ),
        )
        for case in (UNDISTURBED, FAULTED)
    ]
    return Chart(
        name=NAME,
        title="Users' p99 while the broker freezes, dies and comes back",
        x_label="time, s",
        y_label="p99 of the second, ms",
        kind=Kind.LINES,
        series=tuple(series),
        is_log_y=True,
        ticks=tuple((phase.begin_s, phase.name) for phase in samples[-1].phases),
    )
