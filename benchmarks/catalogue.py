"""Every benchmark, by name. A new one is a module with `NAME`, `run` and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import mirror_cpu, moderate_load
from benchmarks.options import Options
from benchmarks.report import Report

#: `run(options, folder, say)`: `folder` is empty and removed afterwards, `say` shows progress.
Benchmark = Callable[[Options, Path, Callable[[str], None]], Report]

BENCHMARKS: dict[str, Benchmark] = {
    mirror_cpu.NAME: mirror_cpu.run,
    moderate_load.NAME: moderate_load.run,
}
