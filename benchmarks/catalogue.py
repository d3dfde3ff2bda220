"""Every benchmark, by name. A new one is a module with `NAME`, `run` and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import concurrency, constant_rate, mirror_cpu, recorder_rate
from benchmarks.options import Options
from benchmarks.report import Report

#: `run(options, folder, say)`: `folder` is empty and removed afterwards, `say` shows progress.
Benchmark = Callable[[Options, Path, Callable[[str], None]], Report]

BENCHMARKS: dict[str, Benchmark] = {
    mirror_cpu.NAME: mirror_cpu.run,
    constant_rate.NAME: constant_rate.run,
    concurrency.NAME: concurrency.run,
    recorder_rate.NAME: recorder_rate.run,
}
