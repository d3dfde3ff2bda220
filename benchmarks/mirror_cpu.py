"""Claim: Understudy mirrors, pairs and journals for less CPU than Envoy mirrors (saturated load).

CPU per request of the worker and of the whole tree, throughput and latency; forward only and
with one candidate mirrored at 100%; at several body sizes; all peers in turn in every round, the
order rotated. Ratios are taken round by round. Slow peers take part at the smallest size only. The
largest size, 8 MB, is exactly Understudy's default `limits.mirror_body`, and still mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import claims, processes, tables
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import rotated, size_label, spread
from benchmarks.load import Generator, Load
from benchmarks.options import Options
from benchmarks.peers import Mode, Target
from benchmarks.report import Report
from benchmarks.stage import Sample, Stage, chosen_peers, is_slow, open_stage
from benchmarks.verify import recording_faults

NAME = "mirror-cpu"
#: Bodies from here on take part in short rounds: they say little that smaller ones do not.
_LARGE = 4 << 20
#: What is under way when a load ends is sent and not mirrored, a large part of few requests.
_LARGE_CONNECTIONS = 8
_SLOW_S = 3
_MOST_ROUNDS = 3
#: The largest body that the claim speaks of.
_CLAIMED = 1 << 20


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure all sizes and return tables and ratios."""
    peers, _ = chosen_peers(options.peers)
    samples: list[Sample] = []
    with open_stage(folder, peers, list(Mode), is_pinned=options.is_pinned) as stage:
        kind = stage.upstreams.primary.kind
        idle = _idle_memory(stage.targets)
        for size in sorted(options.sizes):
            chosen = [
                one for one in stage.targets if size == min(options.sizes) or not is_slow(one)
            ]
            rounds = options.rounds if size == min(options.sizes) else _rounds(options)
            samples += measure_rounds(
                stage, chosen, _load(options, size), rounds, say, is_warm=options.is_quick
            )
        faults = recording_faults(stage)
    faults += [tables.fault_line(sample) for sample in samples if sample.faults]
    per_size = [tables.per_target(samples, size) for size in options.sizes]
    ratios = tables.ratios(samples, tables.SATURATED)
    return Report(
        name=NAME,
        conditions=(
            f"POST of JSON over {options.connections} keep-alive connections, saturated (wrk)",
            f"upstreams: {kind}, one process each; one worker per proxy",
            f"{options.rounds} rounds of {options.seconds} s, all peers in turn; medians",
            f"{_rounds(options)} rounds above {size_label(min(options.sizes))}",
            "Understudy also pairs, journals, compares and records; the others only copy",
        ),
        tables=(*per_size, *([ratios] if ratios.rows else [])),
        samples=tuple(samples),
        summary=tables.summary(samples, tables.SATURATED),
        claims=tuple(_claims(samples, idle)),
        charts=(_chart(samples), *_ratio_chart(samples)),
        faults=tuple(faults),
    )


def measure_rounds(
    stage: Stage,
    targets: Sequence[Target],
    load: Generator,
    rounds: int,
    say: Callable[[str], None],
    *,
    is_warm: bool = False,
) -> list[Sample]:
    """Warm every target up for a second unless it is warm, then measure them `rounds` times.

    Slow peers get more time, without which they would have answered next to nothing.
    """
    longer = load.for_seconds(_SLOW_S)
    for target in () if is_warm else targets:
        stage.measure(target, longer if is_slow(target) else load.for_seconds(1), -1)
    found: list[Sample] = []
    for turn in range(rounds):
        for target in rotated(targets, turn):
            say(
                f"{size_label(load.size_bytes)}, {load.connections} connections, "
                f"round {turn + 1} of {rounds}: {target.peer} {target.mode}"
            )
            found.append(stage.measure(target, longer if is_slow(target) else load, turn))
    return found


def _rounds(options: Options) -> int:
    """Return the rounds of all sizes but the smallest."""
    return min(options.rounds, _MOST_ROUNDS)


def _load(options: Options, size_bytes: int) -> Load:
    """Return the saturating load of one body size."""
    if size_bytes >= _LARGE:
        return Load(size_bytes, min(options.connections, _LARGE_CONNECTIONS), 1)
    return Load(size_bytes, options.connections, options.seconds)


def _idle_memory(targets: Sequence[Target]) -> int | None:
    """Return the proportional set size of Understudy's tree before it had any load."""
    for target in targets:
        if target.peer == tables.OURS and target.mode is Mode.MIRROR and target.root_pid:
            return processes.memory_bytes(target.root_pid)
    return None


def _claims(samples: Sequence[Sample], idle_bytes: int | None) -> list[Claim]:
    """Return the claims about CPU at each size, and about the memory of the idle tree."""
    found = []
    bars = ((tables.WORKER, claims.WORKER_CPU), (tables.TREE, claims.TREE_CPU))
    for quantity, bar in bars:
        for size in dict.fromkeys(one.size_bytes for one in samples if one.size_bytes <= _CLAIMED):
            same = [one for one in samples if one.size_bytes == size and one.mode is Mode.MIRROR]
            what = f"{quantity.title} per mirrored request over Envoy's, {size_label(size)}"
            found.append(judged(what, bar, tables.ratio_to(same, quantity, "Envoy")))
    idle = None if idle_bytes is None else spread([idle_bytes / 1e6])
    return [*found, judged("memory of the idle tree, one worker", claims.IDLE_MEMORY, idle)]


def _chart(samples: Sequence[Sample]) -> Chart:
    """Return CPU per mirrored request by body size."""
    lines = [("Understudy, worker", tables.OURS, tables.WORKER)]
    lines.append(("Understudy, whole tree", tables.OURS, tables.TREE))
    peers = dict.fromkeys(one.peer for one in samples)
    lines += [(peer, peer, tables.TREE) for peer in peers if peer != tables.OURS]
    series = []
    for label, peer, quantity in lines:
        points = []
        for size in dict.fromkeys(sample.size_bytes for sample in samples):
            same = [
                s for s in samples if (s.size_bytes, s.peer, s.mode) == (size, peer, Mode.MIRROR)
            ]
            if same:
                points.append((float(size), spread(tables.values(quantity, same))))
        if points:
            series.append(Series(label, tuple(points)))
    return Chart(
        name=NAME,
        title="CPU per mirrored request, saturated, one worker",
        x_label="request body",
        y_label="CPU µs per request",
        kind=Kind.LINES,
        series=tuple(series),
        is_log_x=True,
        is_log_y=True,
        ticks=tuple(
            (float(size), size_label(size))
            for size in dict.fromkeys(sample.size_bytes for sample in samples)
        ),
    )


def _ratio_chart(samples: Sequence[Sample]) -> list[Chart]:
    """Return Understudy's CPU over Envoy's by body size; nothing without Envoy."""
    series = []
    for quantity, label in ((tables.WORKER, "worker"), (tables.TREE, "whole tree")):
        points = []
        for size in dict.fromkeys(sample.size_bytes for sample in samples):
            same = [one for one in samples if (one.size_bytes, one.mode) == (size, Mode.MIRROR)]
            ratio = tables.ratio_to(same, quantity, "Envoy")
            if ratio is not None:
                points.append((size_label(size), ratio))
        series.append(Series(f"Understudy's {label}", tuple(points)))
    if not series[0].points:
        return []
    bars = ((claims.WORKER_CPU, "worker"), (claims.TREE_CPU, "whole tree"))
    chart = Chart(
        name=f"{NAME}-ratio",
        title="CPU per mirrored request, over Envoy's",
        x_label="request body",
        y_label="ratio to Envoy",
        kind=Kind.BARS,
        series=tuple(series),
        limits=tuple((bar.limit, f"bar of the {label}") for bar, label in bars),
    )
    return [chart]
