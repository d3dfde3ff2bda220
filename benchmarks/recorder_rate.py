"""Claim: one recorder takes 20,000 pairs per second from a journal into Kafka, none unaccounted.

CPU of the recorder process per pair and the rate that follows from it, into the local log and into
a real Kafka broker, from a journal that is there (a backlog), by size of the answers; then from a
stream of 1,000 pairs per second, where every wake-up counts.

The journal's lines are made from one that a running worker wrote: other ids, times and answers,
the layout as it is. One in five candidates differs a little from its primary; no answer comes
twice, so nothing can be remembered. The broker comes from `KAFKA_BOOTSTRAP_SERVERS`, or is started
here where java, mvn and the test extra are; else Kafka is left out.

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
- A broker's JVM on the other thread of the core makes everything 1.4 times slower: of Kafka's 43,
  30 are left alone.
- mypyc takes another 3 off; 5 with Kafka.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import claims, processes
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import Spread, size_label, spread
from benchmarks.fleet import BenchmarkError, Fleet, Place
from benchmarks.journal_lines import Lines, real_line
from benchmarks.kafka import create_topic, kafka_address, stored_messages
from benchmarks.options import Options
from benchmarks.peers.understudy import PYTHON, count_pairs
from benchmarks.report import Report, Table
from proxy.config.resolved import Config, Kafka, digest, dumps
from proxy.journal.segments import load_shipped, segment_path
from proxy.journal.writer import FLUSH_BYTES, FLUSH_S, JournalWriter
from proxy.telemetry import monotonic_s

NAME = "recorder-rate"
ANSWER_BYTES = (200, 1024)
PAIRS = 10_000
WARM_UP_PAIRS = 2_000
STREAM_RATE_PER_S = 1_000
_DIFFERING = 0.2
_GIB = 1 << 30
_LIMIT_S = 120.0
_POLL_S = 0.02


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
            f"no answer comes twice; {_DIFFERING:.0%} of the candidates differ from the primary",
            *([note] if note else []),
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={_name(key): asdict(value) for key, value in _spreads(samples).items()},
        claims=tuple(_claims(samples, faults)),
        charts=(_chart(samples),),
        faults=tuple(faults),
    )


class _Bench:
    """One recorder with a journal of its own."""

    def __init__(
        self,
        state: Path,
        line: dict[str, Any],
        config: Config,
        answer_bytes: int,
        kafka: str | None,
    ) -> None:
        self._answer_bytes = answer_bytes
        self._sink = "kafka" if kafka else "local log"
        self._topic = f"bench-{os.getpid()}-{state.name}"
        target = Kafka((kafka,), self._topic, {}) if kafka else None
        config = replace(config, state_dir=str(state), record=replace(config.record, kafka=target))
        self._config = replace(config, version=digest(config))
        self._state = state
        self._journal = state / "journal" / "worker-0"
        self._lines = Lines(line, self._config.version, answer_bytes, _DIFFERING)
        self._fed = 0

    def measure(self, fleet: Fleet, options: Options) -> list[Sample]:
        """Start the recorder, warm it up, and measure backlogs and a stream."""
        path = self._state / "config" / f"{self._config.version}.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(dumps(self._config))
        (prepared,) = self._prepare(self._state / "prepared")
        if self._config.record.kafka:
            create_topic(self._config.record.kafka)
        command = [*PYTHON, "-m", "proxy.recorder", "--config", str(path), "--index", "0"]
        recorder = fleet.start("recorder", command, Place.PROXY)
        writer = JournalWriter(self._journal, disk_budget_bytes=_GIB)
        self._write(writer, WARM_UP_PAIRS)
        writer.close()
        self._wait(fleet)
        found = [
            self._backlog(fleet, recorder.pid, prepared, number)
            for number in range(2, options.rounds + 2)
        ]
        return [*found, self._stream(fleet, recorder.pid, options.seconds)]

    def faults(self) -> list[str]:
        """Return what is not accounted for, by the recorder's word and by the sink's."""
        accounts = load_shipped(self._journal).accounts
        wrong = {key: count for key, count in accounts.items() if key.startswith("dropped.")}
        kafka = self._config.record.kafka
        stored = stored_messages(kafka) if kafka else count_pairs(self._state / "pairs")
        if wrong or accounts.get("acknowledged") != self._fed or stored != self._fed:
            return [f"{self._sink}: {self._fed} pairs journaled, {stored} stored, {dict(accounts)}"]
        return []

    def _prepare(self, directory: Path) -> list[Path]:
        """Write a segment of `PAIRS` lines."""
        writer = JournalWriter(directory, disk_budget_bytes=64 * _GIB)
        self._write(writer, PAIRS)
        self._fed -= PAIRS
        writer.close()
        return sorted(directory.glob("*.zst"))

    def _backlog(self, fleet: Fleet, pid: int, prepared: Path, number: int) -> Sample:
        """Give the recorder a whole segment at once, and wait until it is shipped."""
        with _Usage(pid) as usage:
            os.link(prepared, segment_path(self._journal, number))
            self._fed += PAIRS
            self._wait(fleet)
        return usage.sample(self._sink, "backlog", self._answer_bytes, PAIRS)

    def _stream(self, fleet: Fleet, pid: int, seconds: int) -> Sample:
        """Feed the recorder as a worker under moderate load does: a frame each 20 ms."""
        writer = JournalWriter(self._journal, disk_budget_bytes=_GIB)
        per_frame = round(STREAM_RATE_PER_S * FLUSH_S)
        frames = round(seconds / FLUSH_S)
        with _Usage(pid) as usage:
            start_s = monotonic_s()
            for frame in range(frames):
                self._write(writer, per_frame)
                writer.flush()
                time.sleep(max(0.0, start_s + (frame + 1) * FLUSH_S - monotonic_s()))
            self._wait(fleet)
        writer.close()
        return usage.sample(self._sink, "stream", self._answer_bytes, frames * per_frame)

    def _write(self, writer: JournalWriter, count: int) -> None:
        for _ in range(count):
            writer.append(self._lines.make())
            if writer.buffered_bytes >= FLUSH_BYTES:
                writer.flush()
        self._fed += count

    def _wait(self, fleet: Fleet) -> None:
        """Wait until everything is acknowledged and committed."""
        give_up = monotonic_s() + _LIMIT_S
        while load_shipped(self._journal).accounts.get("acknowledged", 0) < self._fed:
            fleet.check_all()
            if monotonic_s() > give_up:
                raise BenchmarkError(f"the recorder is not done after {_LIMIT_S:g} s")
            time.sleep(_POLL_S)


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
