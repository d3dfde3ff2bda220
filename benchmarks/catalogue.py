"""Every benchmark, by name. A new one is a module with `NAME`, `run` and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    client_gone,
    compare_rate,
    concurrency,
    constant_rate,
    evidence,
    hung_candidate,
    journal,
    kafka_faults,
    kill_switch,
    mirror_cpu,
    openai_route,
    overload,
    recorder_backlog,
    recorder_rate,
    replicas,
    slowloris,
    sse,
)
from benchmarks.options import Options
from benchmarks.report import Report

#: `run(options, folder, say)`: `folder` is empty and removed afterwards, `say` shows progress.
Benchmark = Callable[[Options, Path, Callable[[str], None]], Report]

BENCHMARKS: dict[str, Benchmark] = {
    module.NAME: module.run
    for module in (
        mirror_cpu,
        constant_rate,
        concurrency,
        hung_candidate,
        overload,
        sse,
        slowloris,
        client_gone,
        kill_switch,
        replicas,
        recorder_rate,
        journal,
        recorder_backlog,
        kafka_faults,
        openai_route,
        evidence,
        compare_rate,
    )
}

#: Those that send no requests, and so need no load generator.
WITHOUT_LOAD = frozenset({evidence.NAME, compare_rate.NAME})
