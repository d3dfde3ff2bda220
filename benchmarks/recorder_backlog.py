"""Claim: a backlog of 5 million pairs drains into Kafka under 200 MB of memory, none unaccounted.

What an outage of the broker leaves: the journal of one worker, `--pairs` long, is there when the
recorder starts. Its resident memory is sampled until the last pair is acknowledged, and the broker's
own offsets say how many arrived. The journal is one prepared segment, linked as often as it takes:
the ids repeat, the bytes are what they would be, and 5 million pairs take no disk but the broker's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import claims, processes
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import spread
from benchmarks.fleet import Fleet
from benchmarks.journal_lines import real_line
from benchmarks.kafka import kafka_address
from benchmarks.memory import MemoryLog, flatness
from benchmarks.options import Options
from benchmarks.recorder_stage import DIFFERING, RecorderStage
from benchmarks.report import Report, Table
from proxy.telemetry import monotonic_s

NAME = "recorder-backlog"
ANSWER_BYTES = 200
#: About 16 MB of journal.
PAIRS_PER_SEGMENT = 50_000
#: The bar is 20,000 a second; a machine that others use may take twenty times as long.
_SLOWEST_PER_S = 1_000
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """One backlog.

    Attributes:
        sink: `kafka`, or `local log` where there is no broker.
        pairs: its length.
        seconds: until the last was acknowledged.
        cpu_us: user and system time of the recorder per pair.
        peak_bytes: the most resident memory that the recorder had.
        memory: seconds since the start and resident bytes.
    """

    sink: str
    pairs: int
    seconds: float
    cpu_us: float
    peak_bytes: int
    memory: tuple[tuple[float, int], ...]


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Drain one backlog."""
    line, config = real_line(folder / "real", is_pinned=options.is_pinned)
    with kafka_address(folder / "broker") as (bootstrap, note):
        stage = RecorderStage(folder / "state", line, config, ANSWER_BYTES, bootstrap or None)
        say(f"a backlog of {options.pairs:,} pairs into {stage.sink}")
        with Fleet(folder, options.is_pinned) as fleet:
            sample = _drain(stage, fleet, options.pairs)
        faults = stage.faults()
    return Report(
        name=NAME,
        conditions=(
            f"one recorder; {options.pairs:,} journaled pairs with answers of {ANSWER_BYTES} B",
            f"{DIFFERING:.0%} of the candidates differ from the primary",
            *([note] if note else []),
        ),
        tables=(_table(sample),),
        samples=(sample,),
        summary={},
        claims=tuple(_claims(sample, faults)),
        charts=(_chart(sample),),
        faults=tuple(faults),
    )


def _drain(stage: RecorderStage, fleet: Fleet, pairs: int) -> Sample:
    """Make the journal, start the recorder and wait until it has nothing left."""
    stage.journal.mkdir(parents=True)
    segments, rest = divmod(pairs, PAIRS_PER_SEGMENT)
    prepared = stage.prepare(PAIRS_PER_SEGMENT if segments else rest)
    for number in range(1, max(segments, 1) + 1):
        stage.give(prepared, number, PAIRS_PER_SEGMENT if segments else rest)
    began_s = monotonic_s()
    recorder = stage.start(fleet)
    with MemoryLog(recorder.pid) as memory:
        stage.wait(fleet, 60 + stage.fed / _SLOWEST_PER_S)
        seconds = monotonic_s() - began_s
        cpu_ns = processes.cpu_ns(recorder.pid)
        peak_bytes = processes.peak_bytes(recorder.pid)
    return Sample(
        stage.sink, stage.fed, seconds, cpu_ns / stage.fed / 1e3, peak_bytes, tuple(memory.points)
    )


def _claims(sample: Sample, faults: list[str]) -> list[Claim]:
    """Return the claims about memory and about pairs that are unaccounted for."""
    what = f"recorder's memory over a backlog of {sample.pairs:,} pairs"
    flat = flatness([size for _, size in sample.memory])
    return [
        judged(f"{what}, peak", claims.BACKLOG_MEMORY, spread([sample.peak_bytes / _MB])),
        judged(f"{what}, end over middle", claims.FLAT, None if flat is None else spread([flat])),
        judged("backlogs with pairs unaccounted for", claims.NOTHING_LOST, spread([len(faults)])),
    ]


def _chart(sample: Sample) -> Chart:
    """Return the resident memory over time."""
    every = max(1, len(sample.memory) // 200)
    points = tuple((at_s, spread([size / _MB])) for at_s, size in sample.memory[::every])
    return Chart(
        name=NAME,
        title=f"The recorder's memory over a backlog of {sample.pairs:,} pairs",
        x_label="seconds",
        y_label="resident memory, MB",
        kind=Kind.LINES,
        series=(Series(sample.sink, points),),
        limits=((claims.BACKLOG_MEMORY.limit, "bar"),),
    )


def _table(sample: Sample) -> Table:
    row = (
        f"{sample.sink}, {sample.pairs:,} pairs",
        f"{sample.pairs / sample.seconds:,.0f}",
        f"{sample.cpu_us:.1f}",
        f"{1e6 / sample.cpu_us:,.0f}",
        f"{sample.peak_bytes / _MB:.0f}",
    )
    columns = ("", "pairs/s", "CPU µs/pair", "pairs per CPU-second", "peak memory, MB")
    return Table("The backlog", columns, (row,))
