"""One recorder over a journal of our making, into the local log or a topic of its own.

The journal's lines are made from one that a running worker wrote: other ids, times and answers, the
layout as it is. One in five candidates differs a little from its primary; no answer comes twice, so
nothing can be remembered.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet import BenchmarkError, Child, Fleet, Place
from benchmarks.journal_lines import Lines
from benchmarks.kafka import create_topic, stored_messages
from benchmarks.peers.understudy import PYTHON, count_pairs
from proxy.config.resolved import Config, Journal, Kafka, digest, dumps
from proxy.journal.segments import load_shipped, segment_path
from proxy.journal.writer import FLUSH_BYTES, JournalWriter
from proxy.telemetry import monotonic_s

#: Share of the pairs whose candidate answers something else.
DIFFERING: Final = 0.2
GIB: Final = 1 << 30
_POLL_S = 0.02


class RecorderStage:
    """One recorder with a journal of its own.

    Attributes:
        sink: `local log` or `kafka`.
        journal: where its lines are.
        fed: how many pairs it has been given.
        answer_bytes: size of each answer.
    """

    def __init__(
        self,
        state: Path,
        line: dict[str, Any],
        config: Config,
        answer_bytes: int,
        kafka: str | None,
    ) -> None:
        self.answer_bytes = answer_bytes
        self.sink = "kafka" if kafka else "local log"
        self._topic = f"bench-{os.getpid()}-{state.name}"
        target = Kafka((kafka,), self._topic, {}) if kafka else None
        config = replace(config, state_dir=str(state), record=replace(config.record, kafka=target))
        self._config = replace(config, version=digest(config))
        self._state = state
        self.journal = state / "journal" / "worker-0"
        self._lines = Lines(line, self._config.version, answer_bytes, DIFFERING)
        self.fed = 0

    def start(self, fleet: Fleet) -> Child:
        """Write the config, make the topic and start the recorder."""
        path = self._state / "config" / f"{self._config.version}.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(dumps(self._config))
        if self._config.record.kafka:
            create_topic(self._config.record.kafka)
        command = [*PYTHON, "-m", "proxy.recorder", "--config", str(path), "--index", "0"]
        return fleet.start("recorder", command, Place.PROXY)

    def prepare(self, pairs: int) -> Path:
        """Write a segment of so many lines beside the journal."""
        directory = self._state / "prepared"
        writer = JournalWriter(
            directory, disk_budget_bytes=1024 * GIB, journal=Journal(segment_bytes=64 * GIB)
        )
        self.write(writer, pairs)
        self.fed -= pairs
        writer.close()
        (found,) = sorted(directory.glob("*.zst"))
        return found

    def give(self, prepared: Path, number: int, pairs: int) -> None:
        """Make a prepared segment the journal's segment `number`."""
        os.link(prepared, segment_path(self.journal, number))
        self.fed += pairs

    def faults(self) -> list[str]:
        """Return what is not accounted for, by the recorder's word and by the sink's."""
        accounts = load_shipped(self.journal).accounts
        wrong = {key: count for key, count in accounts.items() if key.startswith("dropped.")}
        kafka = self._config.record.kafka
        stored = stored_messages(kafka) if kafka else count_pairs(self._state / "pairs")
        if wrong or accounts.get("acknowledged") != self.fed or stored != self.fed:
            return [f"{self.sink}: {self.fed} pairs journaled, {stored} stored, {dict(accounts)}"]
        return []

    def write(self, writer: JournalWriter, count: int) -> None:
        """Write so many lines, a frame when it is full."""
        for _ in range(count):
            writer.append(self._lines.make())
            if writer.buffered_bytes >= FLUSH_BYTES:
                writer.flush()
        self.fed += count

    def wait(self, fleet: Fleet, limit_s: float) -> None:
        """Wait until everything is acknowledged and committed."""
        give_up = monotonic_s() + limit_s
        while load_shipped(self.journal).accounts.get("acknowledged", 0) < self.fed:
            fleet.check_all()
            if monotonic_s() > give_up:
                raise BenchmarkError(f"the recorder is not done after {limit_s:g} s")
            time.sleep(_POLL_S)
