"""Claim: at a moderate load Understudy adds little latency, and its CPU per request stays low.

About 1,000 requests per second over keep-alive connections that pause between requests, so that
nothing queues: what a proxy adds to the direct way, and CPU per request when little is batched.
The generator is a closed loop with pauses; it is not free of coordinated omission.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.figures import spread
from benchmarks.load import Load
from benchmarks.mirror_cpu import measure_rounds
from benchmarks.options import Options
from benchmarks.peers import Mode
from benchmarks.report import Report
from benchmarks.stage import Sample, chosen_peers, open_stage

NAME = "moderate-load"
RATE_PER_S = 1_000


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure the smallest body size at about 1,000 requests per second."""
    peers, _ = chosen_peers(options.peers)
    size = min(options.sizes)
    pause_ms = round(1_000 * options.connections / RATE_PER_S)
    load = Load(size, options.connections, options.seconds, pause_ms)
    with open_stage(folder, peers, list(Mode), is_pinned=options.is_pinned) as stage:
        samples: list[Sample] = measure_rounds(stage, load, options.rounds, say)
    rate = spread([sample.rate_per_s for sample in samples])
    ratios = tables.ratios(samples, tables.MODERATE)
    return Report(
        name=NAME,
        conditions=(
            f"{options.connections} keep-alive connections with random pauses (wrk)",
            f"{rate.median:,.0f} requests/s ({rate.low:,.0f} to {rate.high:,.0f})",
            f"{options.rounds} rounds of {options.seconds} s, all peers in turn in each; medians",
        ),
        tables=(
            tables.per_target(samples, size),
            tables.added_latency(samples),
            *([ratios] if ratios.rows else []),
        ),
        samples=tuple(samples),
        summary=tables.summary(samples, tables.MODERATE),
        faults=tuple(tables.fault_line(sample) for sample in samples if sample.faults),
    )
