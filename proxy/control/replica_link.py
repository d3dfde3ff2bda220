"""The replicas' line to each other: one task that owns every Kafka client of control.

It carries bytes, and decides when a client is beyond repair; what messages mean is decided in
`proxy.replicas`, what is done about them in `proxy.control.replicas`. Nothing awaits it: what is to
be sent is left in a box, and what came is handed over by a call.

Three clients: a producer; a reader of the whole topic, from its beginning or from where the reader
before it was; and a member of a consumer group, to whom the one partition belongs if it may lead.
Each call has a deadline of ours. When one of the first two fails, all are thrown away with what was
to be sent: after a new beginning it is decided anew what must be told. The member of the group is
replaced alone, so that a missing right on the group takes nothing from kills and weights.

After a long stop of this process (SIGSTOP, say) the clients live on, and what they hand over first is of
before it. So whoever notices it says `doubt`: then nothing counts as read until all that is in the topic
by then has been handed over, and a new member asks the group whose the partition is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
    errors,
)

from proxy.config.resolved import Kafka
from proxy.errors import ConfigError
from proxy.kafka.cluster import ClusterError, connect
from proxy.kafka.ending import end_client_tasks, stopped
from proxy.kafka.log import ClientLog
from proxy.kafka.options import client_settings
from proxy.replicas.messages import STATE_TOPIC
from proxy.telemetry import monotonic_s

logger = logging.getLogger("understudy.control")

#: Bytes of a message, key included; the broker's `max.message.bytes` is 1 MiB by default.
MAX_BYTES: Final = 900_000
_CLOSE_S: Final = 1.0
_CONNECT_S: Final = 10.0
_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 5.0
_READ_MS: Final = 200
#: A member that may not poll for as long leaves its group; it never polls for messages.
_NEVER_MS: Final = 2**31 - 1
_CLIENT_ERRORS: Final = (errors.KafkaError, OSError, TimeoutError, AssertionError)


class Hears(Protocol):
    """Who is told what came."""

    def took(self, key: bytes, value: bytes | None) -> None:
        """A message came; those of one call of `ended` belong together."""

    def awoke(self) -> None:
        """Something came, maybe after a long stop; called before it is handed over."""

    def ended(self) -> None:
        """All that had come by now was handed over."""

    def began_anew(self, *, has_lost_log: bool) -> None:
        """What was to be sent may not have been, and is forgotten; `has_lost_log`: the topic is new."""


class ReplicaLink:
    """The line of one replica.

    Attributes:
        is_caught_up: everything that was in the topic when the clients were made, or when there was doubt
            last, has been handed over.
        may_lead: the partition belongs to this member of the group.
        trouble: why there is no line; empty when there is one.
        lead_trouble: why this replica cannot be a member of the group.
        echoed_s: when a message of ours last came back; whoever reads them moves it.
    """

    def __init__(self, kafka: Kafka, group: str, takeover_s: float, hears: Hears) -> None:
        self.kafka = kafka
        self.is_caught_up = False
        self.may_lead = False
        self.trouble = "not connected yet"
        self.lead_trouble = ""
        self.echoed_s = 0.0
        self._group = group
        self._takeover_s = takeover_s
        self._hears = hears
        self._position = 0
        self._is_doubted = self._has_old_member = self._was_up = False
        self._box: dict[bytes, bytes | None] = {}
        self._wake = asyncio.Event()
        self._log = ClientLog()
        self._settings: dict[str, Any] = {}

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return f"{self.kafka.topic_prefix}.{STATE_TOPIC}"

    def send(self, key: bytes, value: bytes | None) -> None:
        """Leave a message to be sent; of one key only the latest is. Without a line it is forgotten."""
        if not self.is_caught_up:
            return
        self._box[key] = value
        self._wake.set()

    def doubt(self) -> None:
        """Take note that this process stood still: what was read and whose the partition is, is of then."""
        self.is_caught_up = self.may_lead = False
        self._is_doubted = self._has_old_member = True
        self.echoed_s = monotonic_s()  # nothing could come back meanwhile

    def note_turn(self, *, is_ours: bool) -> None:
        """Take note whose the partition is; what a member of before a long stop is told does not count."""
        self.may_lead = is_ours and not self._has_old_member

    async def run(self) -> None:
        """Keep the line until cancelled."""
        pause_s = _BACKOFF_S
        try:
            while True:
                try:
                    await self._session()
                except* _CLIENT_ERRORS as exc:
                    self.trouble = self._log.latest or _words(exc)
                except* (ClusterError, ConfigError, _UnfitError) as exc:
                    self.trouble = _words(exc)
                except* Exception as exc:
                    # A defect of ours must end neither control nor, for long, the line.
                    logger.exception("the replicas' line failed")
                    self.trouble = _words(exc)
                pause_s = _BACKOFF_S if self._was_up else min(2 * pause_s, _LONGEST_BACKOFF_S)
                self._was_up = False
                await asyncio.sleep(pause_s)
        finally:
            self._log.close()

    async def _session(self) -> None:
        """Make the clients and use them until one fails."""
        self._settings = client_settings(self.kafka.options)
        await self._look_at_topic()
        self._log.clear()
        async with self._clients() as (producer, reader):
            end = await self._seek(reader)
            self._box.clear()
            self.trouble, self.echoed_s = "", monotonic_s()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(reader, end))
                tasks.create_task(self._send(producer))
                tasks.create_task(self._be_member())

    async def _look_at_topic(self) -> None:
        """Look at the topic without making it: a broker would make one that is not compacted.

        Raises:
            ClusterError: no answer.
            _UnfitError: it is missing, or not what it must be.
        """
        async with connect(self.kafka, call_s=_CONNECT_S) as cluster:
            found = (await cluster.topics()).get(self.topic)
            if found is None:
                raise _UnfitError(
                    f"topic {self.topic} does not exist, or we may not describe it; "
                    "run `understudy topics create`"
                )
            if found.partitions != 1:
                raise _UnfitError(
                    f"topic {self.topic} has {found.partitions} partitions, not 1; delete it, and "
                    "run `understudy topics create`"
                )

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[AIOKafkaProducer, AIOKafkaConsumer]]:
        settings = {"client_id": f"understudy-control-{os.getpid()}", **self._settings}
        compression = settings.pop("compression_type", "zstd")
        settings |= {
            "bootstrap_servers": list(self.kafka.bootstrap_servers),
            "request_timeout_ms": round(1000 * self._takeover_s),
        }
        producer = AIOKafkaProducer(
            acks="all", enable_idempotence=True, compression_type=compression, **settings
        )
        reader = AIOKafkaConsumer(
            group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **settings
        )
        try:
            async with asyncio.timeout(_CONNECT_S):
                await producer.start()
                await reader.start()
            yield producer, reader
        finally:
            await stopped(producer, _CLOSE_S)
            await stopped(reader, _CLOSE_S)
            await end_client_tasks(_CLOSE_S)

    async def _seek(self, reader: AIOKafkaConsumer) -> int:
        """Go to where the reader before was; return the end of the topic."""
        partition = TopicPartition(self.topic, 0)
        reader.assign([partition])
        self._is_doubted = False
        end = await self._end_of(reader)
        async with asyncio.timeout(_CONNECT_S):
            begin = int((await reader.beginning_offsets([partition]))[partition])
        has_lost_log = end < self._position
        if has_lost_log:
            self._position = 0
        self._position = max(self._position, begin)
        reader.seek(partition, self._position)
        self._hears.began_anew(has_lost_log=has_lost_log)
        return end

    async def _end_of(self, reader: AIOKafkaConsumer) -> int:
        """Return the end of the topic."""
        partition = TopicPartition(self.topic, 0)
        async with asyncio.timeout(_CONNECT_S):
            return int((await reader.end_offsets([partition]))[partition])

    async def _read(self, reader: AIOKafkaConsumer, end: int) -> None:
        """Hand over what comes."""
        try:
            while True:
                while self._is_doubted:
                    self._is_doubted = False
                    end = await self._end_of(reader)
                    self._hears.awoke()
                self._note_position(end)
                async with asyncio.timeout(_CONNECT_S):
                    batches = await reader.getmany(timeout_ms=_READ_MS)
                self._hears.awoke()
                self._hand_over(batches)
                self._note_position(end)
                self._hears.ended()
                if monotonic_s() - self.echoed_s > self._takeover_s:
                    raise TimeoutError("what is sent does not come back in time")
        finally:
            self.is_caught_up = False  # throwing clients away may take seconds

    def _hand_over(self, batches: Mapping[TopicPartition, list[Any]]) -> None:
        for batch in batches.values():
            for message in batch:
                self._position = message.offset + 1
                if message.key is not None:
                    self._hears.took(message.key, message.value)

    def _note_position(self, end: int) -> None:
        if not self._is_doubted and self._position >= end:
            self.is_caught_up = self._was_up = True

    async def _send(self, producer: AIOKafkaProducer) -> None:
        """Send what is in the box, kills first; wait until the brokers have it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            box, self._box = self._box, {}
            async with asyncio.timeout(self._takeover_s):
                futures = [
                    await producer.send(self.topic, value=value, key=key, partition=0)
                    for key, value in sorted(box.items(), key=lambda item: b"/kill/" not in item[0])
                ]
                await asyncio.gather(*futures)

    async def _be_member(self) -> None:
        """Be a member of the group; with a new client whenever one fails."""
        while True:
            try:
                await self._be_one_member()
            except _CLIENT_ERRORS as exc:
                self.lead_trouble = self._log.latest or _words(exc)
                await asyncio.sleep(_LONGEST_BACKOFF_S)

    async def _be_one_member(self) -> None:
        """Be a member until its client fails, or is of before a long stop."""
        self._has_old_member = False
        settings = {"client_id": f"understudy-lead-{os.getpid()}", **self._settings}
        settings.pop("compression_type", None)
        session_ms = round(1000 * self._takeover_s)
        member = AIOKafkaConsumer(
            bootstrap_servers=list(self.kafka.bootstrap_servers),
            group_id=f"{self.kafka.topic_prefix}.replicas.{self._group}",
            enable_auto_commit=False,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 4,
            max_poll_interval_ms=_NEVER_MS,
            **settings,
        )
        try:
            async with asyncio.timeout(_CONNECT_S):
                await member.start()
            member.subscribe([self.topic], listener=_Turns(self, member))
            while not self._has_old_member:
                # Its partition is paused, so nothing comes; but this is how the client tells errors.
                await member.getmany(timeout_ms=_READ_MS)
                self.lead_trouble = self.lead_trouble if not self.may_lead else ""
        finally:
            self.may_lead = False
            await stopped(member, _CLOSE_S)


class _Turns(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Notes whose the partition is."""

    def __init__(self, link: ReplicaLink, member: AIOKafkaConsumer) -> None:
        self._link = link
        self._member = member

    def on_partitions_revoked(self, revoked: Any) -> None:
        """It may be another's."""
        del revoked
        self._link.note_turn(is_ours=False)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """It is ours, if there is one among them."""
        self._member.pause(*assigned)
        self._link.note_turn(is_ours=bool(assigned))
        self._link.lead_trouble = ""


class _UnfitError(Exception):
    """The topic is not what it must be."""


def _words(error: BaseException) -> str:
    """Return the first sentence of an error, or of those in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
