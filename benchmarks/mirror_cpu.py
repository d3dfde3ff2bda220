"""Claim: Understudy mirrors, pairs and journals for less CPU than Envoy mirrors (saturated load).

CPU per request of the worker and of the whole tree, throughput and latency; forward only and
with one candidate mirrored at 100%; at several body sizes; all peers in turn in every round, the
order rotated. Ratios are taken round by round.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.figures import rotated, size_label
from benchmarks.load import Load
from benchmarks.options import Options
from benchmarks.peers import Mode
from benchmarks.report import Report
from benchmarks.stage import Sample, Stage, chosen_peers, open_stage
from benchmarks.verify import recording_faults

NAME = "mirror-cpu"


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure all sizes and return tables and ratios."""
    peers, _ = chosen_peers(options.peers)
    samples: list[Sample] = []
    with open_stage(folder, peers, list(Mode), is_pinned=options.is_pinned) as stage:
        kind = stage.upstreams.primary.kind
        for size in options.sizes:
            samples += measure_rounds(stage, _load(options, size), options.rounds, say)
        faults = recording_faults(stage)
    faults += [tables.fault_line(sample) for sample in samples if sample.faults]
    per_size = [tables.per_target(samples, size) for size in options.sizes]
    ratios = tables.ratios(samples, tables.SATURATED)
    return Report(
        name=NAME,
        conditions=(
            f"POST of JSON over {options.connections} keep-alive connections, saturated (wrk)",
            f"upstreams: {kind}, one process each; one worker per proxy",
            f"{options.rounds} rounds of {options.seconds} s, all peers in turn in each; medians",
            "Understudy also pairs, journals, compares and records; the others only copy",
        ),
        tables=(*per_size, *([ratios] if ratios.rows else [])),
        samples=tuple(samples),
        summary=tables.summary(samples, tables.SATURATED),
        faults=tuple(faults),
    )


def measure_rounds(
    stage: Stage, load: Load, rounds: int, say: Callable[[str], None]
) -> list[Sample]:
    """Warm every target up for a second, then measure them in turn, `rounds` times."""
    warm = Load(load.size_bytes, load.connections, 1, 0)
    for target in stage.targets:
        stage.measure(target, warm, -1)
    found: list[Sample] = []
    for turn in range(rounds):
        for target in rotated(stage.targets, turn):
            say(
                f"{size_label(load.size_bytes)}, round {turn + 1} of {rounds}: "
                f"{target.peer} {target.mode}"
            )
            found.append(stage.measure(target, load, turn))
    return found


def _load(options: Options, size_bytes: int) -> Load:
    """Return the saturating load of one body size."""
    return Load(size_bytes, options.connections, options.seconds)
