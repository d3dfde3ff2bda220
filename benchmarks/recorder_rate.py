"""Claim: one recorder takes 20,000 pairs per second from a journal into Kafka, none unaccounted.

CPU of the recorder process per pair and the rate that follows from it, into the local log and into
a real Kafka broker, from a journal that is there (a backlog), by size of the answers; then from a
stream of 1,000 pairs per second, where every wake-up counts.

What the journal holds is made in `recorder_stage`. The broker comes from `KAFKA_BOOTSTRAP_SERVERS`,
or is started here where java, mvn and the test extra are; else Kafka is left out.

What was learnt (microseconds per pair with answers of 200 bytes, Python 3.11, interpreted; medians
before and after: backlog into the local log 55 and 28, into Kafka 61 and 43; stream 90 and 50; the
same with answers of 1 KB: 70 and 48, 91 and 73):

- orjson reads a line's 66 fields in 3 and writes the record's 113 in 3. Cutting lines by patterns
  and assembling records from slices took longer than both: sre needs 12 instructions a character.
  What pays is to do little in between: 20 became 10.
- glibc gave each window's memory back to the kernel: 3 page faults and 9 for each pair. Kept: 0.
- Kafka: a record batch of our own takes 3.4 for a message with 7 headers (aiokafka's builder 8), its
  zstd at level 1 3 (level 3: 6, and larger), murmur2 over all keys of a window at once 0.5 (one by
  one 3 to 4).
- zstd parameters other than level 1's (hash size, match length, larger windows) gave nothing.
- A pass over the journals costs 0.3 ms and a commit as much, so both are few. Most of what a stream
  costs more than a backlog is caches that others have filled meanwhile.
- orjson returns the buffer that it wrote to, up to four times as large as what is in it: 32 KiB for a
  record of 7. Held until they are acknowledged, such records made the recorder 20 MB larger with
  windows of 768 KiB, and 75 with 3 MiB. A copy out of a buffer that is still in the cache takes 0.2,
  one later, from memory, took 1. zstandard's `compress` returns its buffer as well.
- A round through aiokafka costs as much as 20 pairs, and longer batches are compressed faster, so
  windows of 1.5 MiB take 2 to 4 off what 768 KiB cost, at 6 MB. Windows of 2.3 MiB are no cheaper.
- Vectors that differ were a tenth of all at 1 KB, although only every fifth did: passes of `map` over
  48 elements take 10, a loop that mypyc makes machine instructions of 1.5.
- mypyc leaves format specifications (`{number:08x}`) and formats that are no literals to Python: an
  id and a time cost 1.4 with them and 0.5 without.
- Counting the brackets of an answer of 1 KB byte by byte takes 0.8; to see that it is a vector, 0.5.
- A broker's JVM on the other thread of the core makes everything 1.4 times slower: of Kafka's 43,
  30 are left alone.
- mypyc takes another 3 off; 5 with Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import claims, processes
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import Spread, size_label, spread
from benchmarks.fleet import Fleet
from benchmarks.journal_lines import real_line
from benchmarks.kafka import kafka_address
from benchmarks.options import Options
from benchmarks.recorder_stage import DIFFERING, GIB, RecorderStage
from benchmarks.report import Report, Table
from proxy.journal.writer import FLUSH_S, JournalWriter
from proxy.telemetry import monotonic_s

NAME = "recorder-rate"
ANSWER_BYTES = (200, 1024)
PAIRS = 10_000
WARM_UP_PAIRS = 2_000
STREAM_RATE_PER_S = 1_000
_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One round.

    Attributes:
        sink: `local log` or `kafka`.
        work: `backlog` or `stream`.
        answer_bytes: size of each answer.
        cpu_us: user and system time of the recorder per pair.
        pairs_per_s: by the clock; of a stream, what it was fed.
        switches_per_s: how often it was woken up or interrupted.
    """

    sink: str
    work: str
    answer_bytes: int
    cpu_us: float
    pairs_per_s: float
    switches_per_s: float


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every sink with every size of answers."""
    samples: list[Sample] = []
    faults: list[str] = []
    line, config = real_line(folder / "real", is_pinned=options.is_pinned)
    with kafka_address(folder / "broker") as (bootstrap, note):
        for kafka in (None, *([bootstrap] if bootstrap else [])):
            for answer_bytes in ANSWER_BYTES[: 1 if options.is_quick else None]:
                say(f"{'kafka' if kafka else 'local log'}, answers of {size_label(answer_bytes)}")
                bench = _Bench(folder / f"state-{len(samples)}", line, config, answer_bytes, kafka)
                with Fleet(folder, options.is_pinned) as fleet:
                    samples += bench.measure(fleet, options)
                faults += bench.faults()
    return Report(
        name=NAME,
        conditions=(
            f"one recorder; {options.rounds} rounds of {PAIRS:,} journaled pairs; medians",
            f"no answer comes twice; {DIFFERING:.0%} of the candidates differ from the primary",
            *([note] if note else []),
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={_name(key): asdict(value) for key, value in _spreads(samples).items()},
        claims=tuple(_claims(samples, faults)),
        charts=(_chart(samples),),
        faults=tuple(faults),
    )


class _Bench(RecorderStage):
    """Backlogs and a stream for one recorder."""

    def measure(self, fleet: Fleet, options: Options) -> list[Sample]:
        """Start the recorder, warm it up, and measure backlogs and a stream."""
        prepared = self.prepare(PAIRS)
        recorder = self.start(fleet)
        writer = JournalWriter(self.journal, disk_budget_bytes=GIB)
        self.write(writer, WARM_UP_PAIRS)
        writer.close()
        self.wait(fleet, _LIMIT_S)
        found = [
            self._backlog(fleet, recorder.pid, prepared, number)
            for number in range(2, options.rounds + 2)
        ]
        return [*found, self._stream(fleet, recorder.pid, options.seconds)]

    def _backlog(self, fleet: Fleet, pid: int, prepared: Path, number: int) -> Sample:
        """Give the recorder a whole segment at once, and wait until it is shipped."""
        with _Usage(pid) as usage:
            self.give(prepared, number, PAIRS)
            self.wait(fleet, _LIMIT_S)
        return usage.sample(self.sink, "backlog", self.answer_bytes, PAIRS)

    def _stream(self, fleet: Fleet, pid: int, seconds: int) -> Sample:
        """Feed the recorder as a worker under moderate load does: a frame each 20 ms."""
        writer = JournalWriter(self.journal, disk_budget_bytes=GIB)
        per_frame = round(STREAM_RATE_PER_S * FLUSH_S)
        frames = round(seconds / FLUSH_S)
        with _Usage(pid) as usage:
            start_s = monotonic_s()
            for frame in range(frames):
                self.write(writer, per_frame)
                writer.flush()
                time.sleep(max(0.0, start_s + (frame + 1) * FLUSH_S - monotonic_s()))
            self.wait(fleet, _LIMIT_S)
        writer.close()
        return usage.sample(self.sink, "stream", self.answer_bytes, frames * per_frame)


class _Usage:
    """CPU time and context switches of a process inside a `with` block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._spent = (0.0, 0, 0)

    def __enter__(self) -> _Usage:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, cpu_ns, switches = self._now()
        before_s, before_ns, before_switches = self._before
        self._spent = seconds - before_s, cpu_ns - before_ns, switches - before_switches

    def sample(self, sink: str, work: str, answer_bytes: int, pairs: int) -> Sample:
        """Return what the block cost for each of its pairs."""
        seconds, cpu_ns, switches = self._spent
        return Sample(
            sink, work, answer_bytes, cpu_ns / pairs / 1e3, pairs / seconds, switches / seconds
        )

    def _now(self) -> tuple[float, int, int]:
        status = (processes.PROC / str(self._pid) / "status").read_text()
        switches = [int(line.split()[1]) for line in status.splitlines() if "_ctxt_" in line]
        return monotonic_s(), processes.cpu_ns(self._pid), sum(switches)


_Key = tuple[str, str, int]


def _spreads(samples: list[Sample]) -> dict[_Key, Any]:
    """Return the spread of the CPU time by sink, work and size."""
    groups: dict[_Key, list[float]] = {}
    for sample in samples:
        key = (sample.sink, sample.work, sample.answer_bytes)
        groups.setdefault(key, []).append(sample.cpu_us)
    return {key: spread(values) for key, values in groups.items()}


def _name(key: _Key) -> str:
    sink, work, answer_bytes = key
    return f"{sink}, {work}, {size_label(answer_bytes)}"


def _claims(samples: list[Sample], faults: list[str]) -> list[Claim]:
    """Return the claims about the rate into Kafka, and about pairs that are unaccounted for."""
    found = []
    for answer_bytes in dict.fromkeys(one.answer_bytes for one in samples):
        key = ("kafka", "backlog", answer_bytes)
        rates = [1e6 / s.cpu_us for s in samples if (s.sink, s.work, s.answer_bytes) == key]
        what = f"recorder, journal to Kafka, per second of one core, {size_label(answer_bytes)}"
        found.append(judged(what, claims.RECORDER, spread(rates) if rates else None))
    lost = spread([float(len(faults))])
    return [*found, judged("sinks with pairs unaccounted for", claims.NOTHING_LOST, lost)]


def _chart(samples: list[Sample]) -> Chart:
    """Return CPU per pair by sink, work and size."""
    by_size: dict[int, list[tuple[str, Spread]]] = {}
    for (sink, work, answer_bytes), cpu in _spreads(samples).items():
        by_size.setdefault(answer_bytes, []).append((f"{sink}, {work}", cpu))
    return Chart(
        name=NAME,
        title="The recorder's CPU per pair",
        x_label="sink and work",
        y_label="CPU µs per pair",
        kind=Kind.BARS,
        series=tuple(
            Series(f"answers of {size_label(size)}", tuple(points))
            for size, points in by_size.items()
        ),
    )


def _table(samples: list[Sample]) -> Table:
    rows = []
    for key, cpu in _spreads(samples).items():
        same = [s for s in samples if (s.sink, s.work, s.answer_bytes) == key]
        rows.append(
            (
                _name(key),
                f"{cpu.median:.1f} ({cpu.low:.1f} to {cpu.high:.1f})",
                f"{1e6 / cpu.median:,.0f}",
                f"{spread([s.pairs_per_s for s in same]).median:,.0f}",
                f"{spread([s.switches_per_s for s in same]).median:,.0f}",
            )
        )
    columns = ("", "CPU µs/pair", "pairs per CPU-second", "pairs/s", "switches/s")
    return Table("The recorder", columns, tuple(rows))
