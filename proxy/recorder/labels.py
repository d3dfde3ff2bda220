"""Labels from control's journal to their sink: the topic of labels, or files beside the local log.

Like the recorder's loop, and beside it (`proxy.recorder.beside`). It begins with the first label, so
that who sends none pays nothing. The position moves after the sink has acknowledged: labels are shipped
at least once, and a label that is shipped twice says the same thing twice.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.journal.cursor import Batch
from proxy.journal.label_journal import DISK_SHARE, label_journal
from proxy.journal.reader import JournalReader
from proxy.pairs.label import Label, LabelError, read_line
from proxy.recorder.beside import POLL_S, REPORT_S, Beside, PlainSink, rest
from proxy.recorder.local_log import LocalLog
from proxy.recorder.sink import LABELS_TOPIC, Delivery
from proxy.telemetry import wall_ns

if TYPE_CHECKING:  # needs numpy, which only a recorder of ramps should carry
    from proxy.recorder.label_join import LabelJoin

#: Uncompressed bytes of labels in memory at once.
WINDOW_BYTES: Final = 512 * 1024
#: What a file of statistics is called, in `state_dir`.
STATISTICS_NAME: Final = "labels.json"

#: Keys of the accounts.
READ, ACKNOWLEDGED, DROPPED = "read", "acknowledged", "dropped."


class LabelShipper(Beside):
    """Ships labels from `start` until `request_stop`, on a thread of its own.

    Args:
        config: the current revision.
        join: gets the labels that are shipped; None where no ramp judges who is right.
    """

    def __init__(self, config: Config, join: LabelJoin | None = None) -> None:
        self._config = config
        self._join = join
        self._state_dir = Path(config.state_dir)
        super().__init__(
            "labels", config.limits.recorders_stop_s, self._state_dir / STATISTICS_NAME
        )
        self._directory = label_journal(self._state_dir)
        self._counts: Counter[str] = Counter()
        self._message = ""

    def is_wanted(self) -> bool:
        """Return whether anybody has ever sent a label."""
        return self._directory.exists()

    async def ship(self, stopping: asyncio.Event) -> None:
        """Ship until the stop, and then what is there."""
        reader = await self._open()
        if reader is None:
            return
        sink = open_label_sink(self._config)
        try:
            async with asyncio.TaskGroup() as group:
                reporter = group.create_task(self._report(reader, sink))
                await self.for_a_while(stopping, self._ship_all(stopping, reader, sink))
                reporter.cancel()
        finally:
            await sink.close()
            self._tell(reader, sink)
            reader.close()

    async def _open(self) -> JournalReader | None:
        """Return the reader; None when stopped before a predecessor has let it go."""
        while not self.is_stopping:
            try:
                return JournalReader(self._directory)
            except StateError as exc:
                self.store({"state": "journal_error", "message": str(exc)})
                await asyncio.sleep(POLL_S)
        return None

    async def _ship_all(
        self, stopping: asyncio.Event, reader: JournalReader, sink: PlainSink
    ) -> None:
        while True:
            is_last_look = stopping.is_set()
            try:
                batch = reader.read(WINDOW_BYTES)
                if batch.position != reader.committed:
                    await self._deliver(reader, batch, sink)
                    continue
                self._message = ""
            except OSError as exc:
                self._message = f"cannot read or commit in {self._directory}: {exc.strerror}"
            if is_last_look:
                return
            await rest(stopping)

    async def _deliver(self, reader: JournalReader, batch: Batch, sink: PlainSink) -> None:
        labels, rejected = _labels(batch.lines)
        delivery = await sink.write([*labels]) if labels else Delivery(0)
        if self._join is not None:
            self._join.arrive(labels)
        counts = self._counts
        counts[READ] += len(batch.lines)
        counts[ACKNOWLEDGED] += delivery.acknowledged
        counts[f"{DROPPED}rejected"] += rejected
        for reason, count in delivery.dropped.items():
            counts[f"{DROPPED}{reason}"] += count
        # Counts that a failed commit leaves are committed with the next one.
        reader.commit(batch.position, Counter(reader.accounts) + counts)
        counts.clear()

    async def _report(self, reader: JournalReader, sink: PlainSink) -> None:
        while True:
            self._tell(reader, sink)
            await asyncio.sleep(REPORT_S)

    def _tell(self, reader: JournalReader, sink: PlainSink) -> None:
        accounts = reader.accounts
        self.store(
            {
                "sink": sink.name,
                "state": sink.status.state,
                "message": sink.status.message or self._message,
                "remedy": sink.status.remedy,
                READ: accounts.get(READ, 0),
                ACKNOWLEDGED: accounts.get(ACKNOWLEDGED, 0),
                "dropped": {
                    key.removeprefix(DROPPED): count
                    for key, count in accounts.items()
                    if key.startswith(DROPPED)
                },
                "backlog_bytes": reader.statistics().backlog_bytes,
                "join": None if self._join is None else self._join.statistics(),
            }
        )


def open_label_sink(config: Config) -> PlainSink:
    """Return where labels go: the topic of labels where pairs go to Kafka, else `labels/`.

    Raises:
        ConfigError: the Kafka options make no sense.
        StateError: the folder cannot be used.
    """
    if config.record.kafka is not None:
        # Imported here: aiokafka is 20 MB that who has no Kafka should not carry.
        kafka = importlib.import_module("proxy.recorder.kafka")
        messages = importlib.import_module("proxy.recorder.kafka_messages")
        stream = kafka.Stream(LABELS_TOPIC, messages.label_headers)
        sink: PlainSink = kafka.KafkaSink(config.record.kafka, stream=stream)
        return sink
    return LocalLog(
        Path(config.state_dir) / "labels",
        0,
        disk_budget_bytes=int(config.limits.journal_disk_bytes * DISK_SHARE),
        stem="labels",
        is_synced=True,  # as the journal that they come from is: who sent them was told so
    )


def _labels(lines: list[bytes]) -> tuple[list[Label], int]:
    """Return the labels in `lines`, and how many lines are none: damage, or another version's."""
    found, rejected = [], 0
    for line in lines:
        try:
            found.append(read_line(line, wall_ns() // 1_000_000))
        except LabelError:
            rejected += 1
    return found, rejected
