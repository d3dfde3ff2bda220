"""Claim: one worker carries more mirrored requests than Envoy's, from one connection to a thousand.

Throughput and CPU per request at concurrency 1, 8, 64, 256 and 1,000, with one worker and with two
(Understudy's `workers`, Envoy's `--concurrency`, nginx's `worker_processes`), one candidate
mirrored at 100%. On two cores a second worker competes with upstreams and load for the other core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import claims, tables
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import judged
from benchmarks.figures import Spread, size_label, spread
from benchmarks.load import Load
from benchmarks.mirror_cpu import measure_rounds
from benchmarks.options import Options
from benchmarks.peers import Mode, Setup
from benchmarks.report import Report, Table
from benchmarks.stage import Sample, Stage, chosen_peers, open_stage
from benchmarks.verify import recording_faults

NAME = "concurrency"
CONCURRENCIES = (1, 8, 64, 256, 1_000)
QUICK = (1, 256)
WORKERS = (1, 2)
_ROUNDS = 3
_SHOWN = (tables.RATE, tables.WORKER, tables.TREE, tables.P50, tables.P99)


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every concurrency with one worker and with two."""
    peers, _ = chosen_peers(options.peers, is_fast_only=True)
    # Above some hundred connections it would make no copies, which are what is measured.
    setups = [Setup(label=f"{count}w", workers=count, mirror_lag="0") for count in WORKERS]
    rounds, size = min(options.rounds, _ROUNDS), min(options.sizes)
    samples: list[Sample] = []
    with open_stage(
        folder, peers, [Mode.MIRROR], is_pinned=options.is_pinned, setups=setups
    ) as stage:
        for count in QUICK if options.is_quick else CONCURRENCIES:
            load = Load(size, count, options.seconds)
            samples += _measured(
                stage, load, rounds, say, is_warm=bool(samples) or options.is_quick
            )
        faults = recording_faults(stage)
    faults += [tables.fault_line(sample) for sample in samples if sample.faults]
    at_one = _ratio(samples, 1, 1)
    return Report(
        name=NAME,
        conditions=(
            f"POST of {size_label(size)}, one candidate mirrored at 100%, saturated (wrk)",
            f"{rounds} rounds of {options.seconds} s, all in turn in each, one less with two workers",
        ),
        tables=tuple(_table(samples, workers) for workers in WORKERS),
        samples=tuple(samples),
        summary={
            f"{workers} workers/{count} connections": {"throughput over Envoy's": found}
            for workers in WORKERS
            for count in CONCURRENCIES
            if (found := _ratio(samples, workers, count))
        },
        claims=(
            judged(
                "throughput of one worker over Envoy's at concurrency 1, mirrored",
                claims.THROUGHPUT,
                at_one,
            ),
        ),
        charts=(
            _chart(samples, tables.RATE, "Throughput", "requests/s"),
            _chart(samples, tables.TREE, "CPU", "CPU µs per request, tree"),
        ),
        faults=tuple(faults),
    )


def _measured(
    stage: Stage, load: Load, rounds: int, say: Callable[[str], None], *, is_warm: bool
) -> list[Sample]:
    """Measure one concurrency; the direct way is left out, and more workers get a round less."""
    found = []
    for workers in WORKERS:
        same = [one for one in stage.targets if one.root_pid and one.workers == workers]
        fewer = rounds if workers == WORKERS[0] else max(1, rounds - 1)
        found += measure_rounds(stage, same, load, fewer, say, is_warm=is_warm)
    return found


def _of(samples: Sequence[Sample], peer: str, workers: int, count: int) -> list[Sample]:
    return [
        one for one in samples if (one.peer, one.workers, one.connections) == (peer, workers, count)
    ]


def _ratio(samples: Sequence[Sample], workers: int, count: int) -> Spread | None:
    """Return Understudy's throughput over Envoy's, round by round."""
    same = [one for one in samples if (one.workers, one.connections) == (workers, count)]
    return tables.ratio_to(same, tables.RATE, "Envoy")


def _table(samples: Sequence[Sample], workers: int) -> Table:
    """Return the medians of every peer at every concurrency."""
    rows = []
    for count in dict.fromkeys(one.connections for one in samples):
        for peer in dict.fromkeys(one.peer for one in samples):
            group = _of(samples, peer, workers, count)
            if group:
                cells = [spread(tables.values(quantity, group)).median for quantity in _SHOWN]
                shown = f"{cells[0]:,.0f}", f"{cells[1]:.1f}", f"{cells[2]:.1f}"
                times = tuple(f"{cell / 1e3:.2f}" for cell in cells[3:])
                rows.append((f"{peer}, concurrency {count:,}", *shown, *times))
    columns = ("", "req/s", "worker µs/req", "tree µs/req", "p50 ms", "p99 ms")
    return Table(f"{workers} worker{'s' if workers > 1 else ''}", columns, tuple(rows))


def _chart(samples: Sequence[Sample], quantity: tables.Quantity, part: str, label: str) -> Chart:
    """Return a quantity by concurrency."""
    counts = tuple(dict.fromkeys(one.connections for one in samples))
    series = []
    for peer in dict.fromkeys(one.peer for one in samples):
        for workers in WORKERS:
            points = [
                (float(count), spread(tables.values(quantity, group)))
                for count in counts
                if (group := _of(samples, peer, workers, count))
            ]
            name = f"{peer}, {workers} worker{'s' if workers > 1 else ''}"
            series.append(Series(name, tuple(points)))
    return Chart(
        name=f"{NAME}-{part.lower()}",
        title=f"{part} of mirrored requests, by concurrency",
        x_label="connections",
        y_label=label,
        kind=Kind.LINES,
        series=tuple(one for one in series if one.points),
        is_log_x=True,
        ticks=tuple((float(count), f"{count:,}") for count in counts),
    )
