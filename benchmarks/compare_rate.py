"""Claim: `understudy compare` decides over 10 million pairs within 60 s on two cores, memory flat.

The command as an operator runs it, evidence, drift, worst pairs and all, over NDJSON in zstd as the
local log has it (3.6 KB a pair, some 400 bytes compressed) and over Parquet as `understudy pairs export`
writes it. CPU is that of all its processes; divided by two it is the time on two cores that are
free, which is what the claim is about; what the clock said is beside it. Data come from
`benchmarks.programs.pair_files`. `UNDERSTUDY_COMPARE_PAIRS=10000000` takes the claim's own number.

What was learnt (microseconds per pair of NDJSON, Python 3.11, a busy machine): parsing every line (orjson
5.6, msgspec with half of the fields 4.6, polars 6.5, pyarrow 9) and taking its fields out came to 14 in all;
finding where fields lie, cutting 15 pieces out and parsing each combination once comes to 8 to 9
(`proxy.analysis.layout`), of which unpacking is 1.4. Pieces that are kept beyond 64 lines cost 1.2 more,
because new memory is cold; a look at 2 MB for commas at once, not by 128 KB, 2; glibc's heap giving memory
back 3.5.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import claims, processes
from benchmarks.claims import Claim, judged
from benchmarks.figures import spread
from benchmarks.fleet import BenchmarkError
from benchmarks.options import Options
from benchmarks.report import Report, Table
from proxy.telemetry import monotonic_s

NAME = "compare-rate"
PAIRS, QUICK_PAIRS = 500_000, 30_000
FORMS = ("ndjson", "parquet")
_CLAIMED_PAIRS = 10_000_000
_CORES = 2
_MB = 1e6
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the command.

    Attributes:
        form: ndjson or parquet.
        stored_bytes: of a pair.
        wall_s, cpu_s: of all its processes.
        middle_mb, peak_mb: memory of all its processes (proportional set size): half-way, greatest.
        sentence: what it says.
    """

    form: str
    pairs: int
    stored_bytes: float
    wall_s: float
    cpu_s: float
    middle_mb: float
    peak_mb: float
    sentence: str

    @property
    def claimed_s(self) -> float:
        """Return the time for 10 million pairs on two free cores."""
        return self.cpu_s / self.pairs * _CLAIMED_PAIRS / _CORES


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Make pairs in both forms, and compare them."""
    given = os.environ.get("UNDERSTUDY_COMPARE_PAIRS")
    pairs = int(given) if given else QUICK_PAIRS if options.is_quick else PAIRS
    samples, faults = [], []
    for form in FORMS:
        say(f"making {pairs:,} pairs as {form}")
        data = folder / form
        program = [sys.executable, "-m", "benchmarks.programs.pair_files"]
        subprocess.run([*program, str(data), form, str(pairs)], check=True)
        say(f"comparing {pairs:,} pairs of {form}")
        try:
            samples.append(_compared(form, data, pairs))
        except BenchmarkError as error:
            faults.append(f"{form}: {error}")
        shutil.rmtree(data)
    return Report(
        name=NAME,
        conditions=(
            f"{pairs:,} pairs of 3.6 KB, 4% of which differ; 2 cores",
            "10 million: CPU of all processes for as many pairs, over two cores",
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={one.form: one.claimed_s for one in samples},
        claims=tuple(_claims(samples)),
        faults=tuple(faults),
    )


def _compared(form: str, data: Path, pairs: int) -> Sample:
    """Run the command and return what it took.

    Raises:
        BenchmarkError: it failed, or did not count each pair once.
    """
    stored = sum(path.stat().st_size for path in data.iterdir())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = monotonic_s()
    command = [sys.executable, "-m", "proxy", "compare", "--from", str(data), "--json"]
    out = data.with_suffix(".json")
    memory = []
    with out.open("wb") as stream, subprocess.Popen(command, stdout=stream) as process:
        while process.poll() is None:
            memory.append(processes.memory_bytes(process.pid) / _MB)
            time.sleep(_POLL_S)
    wall_s = monotonic_s() - start_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise BenchmarkError(f"compare ended with {process.returncode}")
    found = orjson.loads(out.read_bytes())
    if (found["health"]["selected"], found["health"]["missing"]) != (pairs, 0):
        raise BenchmarkError(f"{pairs} pairs are there, and it says {found['health']}")
    return Sample(
        form=form,
        pairs=pairs,
        stored_bytes=stored / pairs,
        wall_s=wall_s,
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        middle_mb=memory[len(memory) // 2],
        peak_mb=max(memory),
        sentence=found["sentence"],
    )


def _table(samples: list[Sample]) -> Table:
    return Table(
        "Comparing recorded pairs",
        (
            "",
            "bytes/pair",
            "clock s",
            "CPU s",
            "CPU µs/pair",
            "10 million, s",
            "half-way MB",
            "peak MB",
        ),
        tuple(
            (
                one.form,
                f"{one.stored_bytes:,.0f}",
                f"{one.wall_s:,.1f}",
                f"{one.cpu_s:,.1f}",
                f"{one.cpu_s / one.pairs * 1e6:,.1f}",
                f"{one.claimed_s:,.0f}",
                f"{one.middle_mb:,.0f}",
                f"{one.peak_mb:,.0f}",
            )
            for one in samples
        ),
    )


def _claims(samples: list[Sample]) -> list[Claim]:
    found = []
    for one in samples:
        what = f"compare, 10 million pairs of {one.form}, two cores"
        # Of few pairs the start of the processes is most of it.
        figure = spread([one.claimed_s]) if one.pairs >= PAIRS else None
        found.append(judged(what, claims.COMPARE, figure))
        what = f"compare, memory of all processes, {one.form}"
        found.append(judged(what, claims.COMPARE_MEMORY, spread([one.peak_mb])))
    return found
