"""Labels from control's journal to their sink: the topic of labels, or files beside the local log.

Like the recorder's loop, and beside it: on a thread of its own, because the client of one topic
must not wait for the other's, and because `proxy.recorder.kafka` throws away every task of the
client that it finds on its event loop. It begins with the first label, so that who sends none pays
nothing. The position moves after the sink has acknowledged: labels are shipped at least once, and a
label that is shipped twice says the same thing twice.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from proxy.config.resolved import Config
from proxy.errors import StateError, UnderstudyError
from proxy.journal.cursor import Batch
from proxy.journal.label_journal import DISK_SHARE, label_journal
from proxy.journal.reader import JournalReader
from proxy.pairs.label import Label, LabelError, read_line
from proxy.recorder.local_log import LocalLog
from proxy.recorder.sink import LABELS_TOPIC, Delivery, Message, SinkStatus
from proxy.telemetry import wall_ns

if TYPE_CHECKING:  # needs numpy, which only a recorder of ramps should carry
    from proxy.recorder.label_join import LabelJoin

#: Uncompressed bytes of labels in memory at once.
WINDOW_BYTES: Final = 512 * 1024
#: Between looks at the journal, and at whether there is one.
POLL_S: Final = 0.25
_REPORT_S: Final = 1.0
#: What a file of statistics is called, in `state_dir`.
STATISTICS_NAME: Final = "labels.json"

#: Keys of the accounts.
READ, ACKNOWLEDGED, DROPPED = "read", "acknowledged", "dropped."


class LabelSink(Protocol):
    """The part of `proxy.recorder.sink.Sink` that labels need, in the same words."""

    @property
    def name(self) -> str:
        """Say what kind of sink it is, and where."""
        ...

    @property
    def status(self) -> SinkStatus:
        """Say how the sink is doing now."""
        ...

    async def write(self, pairs: list[Message]) -> Delivery:
        """Return when every label is acknowledged or given up."""
        ...

    async def close(self) -> None:
        """Let all resources go."""
        ...


class LabelShipper:
    """Ships labels from `start` until `stop`, on a thread of its own; the caller's loop is free.

    Args:
        config: the current revision.
        join: gets the labels that are shipped; None where no ramp judges who is right.
    """

    def __init__(self, config: Config, join: LabelJoin | None = None) -> None:
        self._config = config
        self._join = join
        self._state_dir = Path(config.state_dir)
        self._directory = label_journal(self._state_dir)
        self._stop = threading.Event()
        self._wake: Callable[[], object] = bool
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)
        self._counts: Counter[str] = Counter()
        self._message = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def request_stop(self) -> None:
        """Ask it to ship what is there and end, within `limits.recorders_stop_s`."""
        self._stop.set()
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Return when it has ended, or after `timeout_s`; what is left then waits in the journal."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        """Wait for a journal, then ship it; a fault of the sink's settings is told, and final."""
        while not self._directory.exists():
            if self._stop.wait(POLL_S):
                return
        try:
            asyncio.run(self._ship())
        except UnderstudyError as exc:
            self._store({"state": "misconfigured", "message": str(exc)})

    async def _ship(self) -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stopping.set)

        self._wake = wake
        if self._stop.is_set():  # since before there was anybody to wake
            stopping.set()
        reader = await self._open()
        if reader is None:
            return
        sink = open_label_sink(self._config)
        try:
            async with asyncio.TaskGroup() as group:
                reporter = group.create_task(self._report(reader, sink))
                await self._ship_until(stopping, reader, sink)
                reporter.cancel()
        finally:
            await sink.close()
            self._tell(reader, sink)
            reader.close()

    async def _open(self) -> JournalReader | None:
        """Return the reader; None when stopped before a predecessor has let it go."""
        while not self._stop.is_set():
            try:
                return JournalReader(self._directory)
            except StateError as exc:
                self._store({"state": "journal_error", "message": str(exc)})
                await asyncio.sleep(POLL_S)
        return None

    async def _ship_until(
        self, stopping: asyncio.Event, reader: JournalReader, sink: LabelSink
    ) -> None:
        """Ship, and be done `limits.recorders_stop_s` after the stop, whatever the sink is doing."""
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(stopping.wait())
            shipping = group.create_task(self._ship_all(stopping, reader, sink))
            await asyncio.wait([shipping, stopped], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([shipping], timeout=self._config.limits.recorders_stop_s)
            shipping.cancel()
            stopped.cancel()

    async def _ship_all(
        self, stopping: asyncio.Event, reader: JournalReader, sink: LabelSink
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
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await stopping.wait()

    async def _deliver(self, reader: JournalReader, batch: Batch, sink: LabelSink) -> None:
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

    async def _report(self, reader: JournalReader, sink: LabelSink) -> None:
        while True:
            self._tell(reader, sink)
            await asyncio.sleep(_REPORT_S)

    def _tell(self, reader: JournalReader, sink: LabelSink) -> None:
        accounts = reader.accounts
        self._store(
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

    def _store(self, content: dict[str, object]) -> None:
        path = self._state_dir / STATISTICS_NAME
        fresh = path.with_name(f".{STATISTICS_NAME}.new")
        data = orjson.dumps({"updated_ms": wall_ns() // 1_000_000, **content})
        with suppress(OSError):  # a file that grows old is told as such
            # Not synced, because it is stale after a second anyway.
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            fresh.replace(path)


def open_label_sink(config: Config) -> LabelSink:
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
        sink: LabelSink = kafka.KafkaSink(config.record.kafka, stream=stream)
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
