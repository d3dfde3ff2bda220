"""Decisions from their log to the topic of decisions, at least once, in the order of their numbers.

They stay in the log as well: it is what `understudy decisions` and the admin API read. The position is
the number of the last decision that the broker has acknowledged; it is moved after that. Without Kafka
the log is all there is, and nothing runs here.

Decisions are rare, so the client is let go when none has come for a while.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections import Counter
from pathlib import Path
from typing import Final

import orjson

from proxy.config.resolved import Config, Kafka
from proxy.errors import StateError
from proxy.journal.segments import replace_file, take_lock
from proxy.recorder.beside import POLL_S, REPORT_S, Beside, PlainSink, rest
from proxy.recorder.decision_reader import DecisionBatch, DecisionReader
from proxy.recorder.sink import DECISIONS_TOPIC, Delivery, SinkStatus
from proxy.state.decision_files import SHIPPED_NAME, last_seq, shipped
from proxy.telemetry import monotonic_s

#: Bytes of decisions in memory at once.
WINDOW_BYTES: Final = 512 * 1024
#: After so long without a decision the client is let go.
IDLE_S: Final = 30.0
#: What a file of statistics is called, in `state_dir`.
STATISTICS_NAME: Final = "decisions.json"
#: Held by the one process that ships the decisions of a `state_dir`.
SHIPPER_LOCK: Final = "decisions-shipper.lock"
#: Keys of the accounts.
ACKNOWLEDGED, DROPPED = "acknowledged", "dropped."


class DecisionShipper(Beside):
    """Ships decisions from `start` until `request_stop`, on a thread of its own.

    Args:
        config: of the instance.
        kafka: where its decisions go.
    """

    def __init__(self, config: Config, kafka: Kafka) -> None:
        self._kafka = kafka
        self._state_dir = Path(config.state_dir)
        super().__init__(
            "decisions", config.limits.recorders_stop_s, self._state_dir / STATISTICS_NAME
        )
        self._sink: PlainSink | None = None
        self._used_s = 0.0
        self._message = ""
        self._last: SinkStatus | None = None
        self._committed = self._done = 0
        self._accounts: Counter[str] = Counter()

    def is_wanted(self) -> bool:
        """Return whether a decision waits."""
        try:
            return last_seq(self._state_dir) > int(shipped(self._state_dir).get("seq", 0))
        except OSError:
            return False

    async def ship(self, stopping: asyncio.Event) -> None:
        """Ship until the stop, and then what is there."""
        lock = await self._take_lock()
        if lock is None:
            return
        try:
            known = shipped(self._state_dir)
            self._committed = self._done = known.get("seq", 0)
            self._accounts = Counter(known.get("accounts", {}))
            self._sink = open_decision_sink(self._kafka)
            async with asyncio.TaskGroup() as group:
                reporter = group.create_task(self._report())
                await self.for_a_while(stopping, self._ship_all(stopping))
                reporter.cancel()
        finally:
            await self._let_go()
            self._tell()
            os.close(lock)

    async def _take_lock(self) -> int | None:
        """Return the lock; None when stopped before a predecessor has let it go."""
        while not self.is_stopping:
            try:
                return take_lock(self._state_dir, SHIPPER_LOCK)
            except (OSError, StateError) as exc:
                self.store({"state": "journal_error", "message": str(exc)})
                await asyncio.sleep(POLL_S)
        return None

    async def _ship_all(self, stopping: asyncio.Event) -> None:
        reader = DecisionReader(self._state_dir, self._done)
        while True:
            is_last_look = stopping.is_set()
            try:
                batch = reader.read(WINDOW_BYTES)
                if batch.messages:
                    await self._deliver(batch)
                self._commit()
                self._message = ""
                if batch.messages:
                    continue
            except (OSError, StateError) as exc:
                self._message = f"cannot read or commit in {self._state_dir}: {exc}"
            if is_last_look:
                return
            if self._sink is not None and monotonic_s() - self._used_s > IDLE_S:
                await self._let_go()
            await rest(stopping)

    async def _deliver(self, batch: DecisionBatch) -> None:
        if self._sink is None:
            self._sink = open_decision_sink(self._kafka)
        delivery: Delivery = await self._sink.write([*batch.messages])
        self._used_s = monotonic_s()
        self._done = batch.seq
        self._accounts[ACKNOWLEDGED] += delivery.acknowledged
        for lost in (batch.lost, delivery.dropped):
            for reason, count in lost.items():
                self._accounts[f"{DROPPED}{reason}"] += count

    def _commit(self) -> None:
        """Make durable what is done; what the disk refuses is tried again with the next look.

        Raises:
            OSError: the disk refuses.
        """
        if self._done == self._committed:
            return
        content = {"seq": self._done, "accounts": self._accounts}
        replace_file(self._state_dir / SHIPPED_NAME, orjson.dumps(content))
        self._committed = self._done

    async def _let_go(self) -> None:
        """Close the client, if there is one."""
        sink, self._sink = self._sink, None
        if sink is not None:
            self._last = sink.status
            await sink.close()

    async def _report(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(REPORT_S)

    def _tell(self) -> None:
        status = self._sink.status if self._sink is not None else self._last
        self.store(
            {
                "sink": f"kafka {','.join(self._kafka.bootstrap_servers)} topic "
                f"{self._kafka.topic_prefix}.{DECISIONS_TOPIC}",
                "state": "ok" if status is None else status.state,
                "message": self._message or ("" if status is None else status.message),
                "remedy": "" if status is None else status.remedy,
            }
        )


def open_decision_sink(kafka: Kafka) -> PlainSink:
    """Return the topic of decisions.

    Raises:
        ConfigError: the Kafka options make no sense.
    """
    # Imported here, as `proxy.recorder.sink` does.
    module = importlib.import_module("proxy.recorder.kafka")
    messages = importlib.import_module("proxy.recorder.kafka_messages")
    stream = module.Stream(DECISIONS_TOPIC, messages.decision_headers)
    sink: PlainSink = module.KafkaSink(kafka, stream=stream)
    return sink
