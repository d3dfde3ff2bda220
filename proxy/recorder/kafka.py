"""The Kafka sink: batches of pairs in, acknowledgements out, through one aiokafka client.

It decides when a client is beyond repair and which pairs no broker will take; what the operator is
told is decided in `kafka_trouble`. It is imported only when Kafka is configured.

One task owns the client, and each call has a deadline of our own, because aiokafka's do not cover
what happens with a broker that freezes: an idempotent batch is retried for ever (its future stays
pending), a full accumulator blocks the sender, and `stop()` waits for both (aiokafka issues 1101
and 1013). Nor does the client survive a batch that the broker refuses: the next batch's sequence
number then has a gap, which the broker takes for loss. So there is one answer to every failure:
throw the client away and send what was not acknowledged through a new one. That may write a batch
twice, under the same `pair_id`s, and never loses one.

A batch that the broker refuses for good is cut in two, until what it refuses is alone in its batch:
that pair is dropped and counted by reason, and its neighbours arrive.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.codec import has_snappy

from proxy.config.resolved import Kafka
from proxy.errors import ConfigError, ConfigFault
from proxy.kafka.ending import end_client_tasks, stopped
from proxy.kafka.log import ClientLog
from proxy.kafka.options import client_settings
from proxy.recorder.kafka_batch import RecordBatch, open_codec
from proxy.recorder.kafka_messages import headers_block, partitions_of
from proxy.recorder.kafka_trouble import REFUSED, TOO_LARGE, Target, diagnose, slow, throttled
from proxy.recorder.kafka_watch import AnswerWatch
from proxy.recorder.priority import Stopwatch
from proxy.recorder.sink import PAIRS_TOPIC, Delivery, Drop, Message, SinkState, SinkStatus
from proxy.recorder.starvation import Took, starved
from proxy.telemetry import monotonic_s

#: Uncompressed bytes per batch. The broker's default `message.max.bytes` is 1 MiB, compressed.
BATCH_BYTES = 960 * 1024
MIN_BATCH_BYTES = 16 * 1024
#: A pair below this part of a batch is not what makes it too large.
_ORDINARY = 4
_OK = SinkStatus(SinkState.OK)
_AT_ONCE = Took(0.0, 0.0)

# AssertionError is what the client raises when the topic changes under its feet.
_CLIENT_ERRORS = (errors.KafkaError, OSError, TimeoutError, AssertionError)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each step may take; tests shorten them.

    Attributes:
        connect_s: until the client has found the cluster, its producer id and the topic.
        deliver_s: until every batch of one write is acknowledged. Longer than a broker's usual
            leader election (6 to 10 s), which the client itself sees through.
        close_s: until a client that is thrown away has let go.
        request_s: one request; a frozen broker is noticed after this.
        slow_s: an acknowledgement that takes longer makes the broker a slow one.
        backoff_s, backoff_limit_s: first and longest pause between attempts.
    """

    connect_s: float = 15.0
    deliver_s: float = 20.0
    close_s: float = 1.0
    request_s: float = 10.0
    slow_s: float = 3.0
    backoff_s: float = 0.25
    backoff_limit_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """What is shipped: the end of the topic's name (or all of it), and the headers of a message."""

    suffix: str
    headers: Callable[[Any], bytes]
    topic: str = ""


PAIRS = Stream(PAIRS_TOPIC, headers_block)


@dataclass(slots=True)
class _Batch:
    """Pairs of one partition, and the client's promise about them."""

    partition: int
    records: RecordBatch
    future: asyncio.Future[Any] | None = None
    refusal: BaseException | None = None

    def error(self) -> BaseException | None:
        """Return why it is not acknowledged, None when it is."""
        if self.refusal is not None:
            return self.refusal
        if self.future is None or not self.future.done() or self.future.cancelled():
            return TimeoutError("not acknowledged in time")
        return self.future.exception()


#: Pairs that share batches with each other only.
_Group = Sequence[Message]


class KafkaSink:
    """Ships pairs to `<topic_prefix>.pairs.v1` (another stream: there), acknowledged by all in-sync replicas.

    `write` and `close` belong to one task; `status` and `statistics` to anyone.

    Raises:
        ConfigError: an option is unknown or makes no sense.
    """

    def __init__(
        self, kafka: Kafka, deadlines: Deadlines | None = None, stream: Stream = PAIRS
    ) -> None:
        self._deadlines = deadlines or Deadlines()
        self._servers = list(kafka.bootstrap_servers)
        self._topic = stream.topic or f"{kafka.topic_prefix}.{stream.suffix}"
        self._target = Target(", ".join(self._servers), self._topic)
        self._headers = stream.headers
        self._settings: dict[str, Any] = {
            "client_id": f"understudy-recorder-{os.getpid()}",
            "request_timeout_ms": int(self._deadlines.request_s * 1000),
            **client_settings(kafka.options),
        }
        # The batches are compressed here, not by the client.
        compression = self._settings.pop("compression_type", "zstd")
        if compression in ("snappy", "lz4") and not has_snappy():
            message = "this compression needs cramjam: pip install cramjam"
            raise ConfigError(
                [ConfigFault("", 0, "record.kafka.options.compression.type", message)]
            )
        self._codec = open_codec(compression)
        self._batch_bytes = BATCH_BYTES
        self._producer: Any = None
        self._partitions = 0
        self._next_attempt_s = 0.0
        self._log = ClientLog()
        self._answers = AnswerWatch()
        self._status = SinkStatus(SinkState.CONNECTING, f"looking for {self._target.servers}")
        self._watch = Stopwatch()
        self._is_waiting = False
        self._counters: Counter[str] = Counter(clients=0, batches=0, failures=0)

    @property
    def name(self) -> str:
        """The kind of sink, and where it writes."""
        return f"kafka {','.join(self._servers)} topic {self._topic}"

    @property
    def status(self) -> SinkStatus:
        """How the broker is doing; while batches wait, what the client itself complains of."""
        if self._status.state is not SinkState.OK:
            return self._status
        if self._log.latest:
            causes = self._log.causes
            error = causes[-1] if causes else errors.KafkaError(self._log.latest)
            return diagnose(error, causes, self._log.latest, self._target)
        if self._is_waiting:
            return self._pace(self._watch.took())
        return self._status

    async def prepare(self) -> None:
        """Connect when there is no client, or one that complains, so that `status` is true.

        An idle recorder would otherwise not notice that its broker is gone, or back.
        """
        now_s = monotonic_s()
        if (self._producer and not self._log.latest) or now_s < self._next_attempt_s:
            return
        self._next_attempt_s = now_s + self._deadlines.backoff_limit_s
        await self._discard()
        try:
            await self._connect()
        except _CLIENT_ERRORS as exc:
            self._fail(exc)
            await self._discard()

    async def write(self, pairs: Sequence[Message]) -> Delivery:
        """Return when every pair is acknowledged, or dropped because no broker would take it."""
        pending: list[_Group] = [pairs]
        dropped: Counter[Drop] = Counter()
        pause_s = self._deadlines.backoff_s
        while pending:
            before = pending
            try:
                if self._producer is None:
                    await self._connect()
                pending = await self._deliver(pending, dropped)
            except _CLIENT_ERRORS as exc:
                self._fail(exc)
            if not pending:
                break
            await self._discard()
            # Progress of any kind, also smaller batches, deserves a prompt next attempt.
            pause_s = self._deadlines.backoff_s if _is_progress(before, pending) else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._deadlines.backoff_limit_s)
        return Delivery(len(pairs) - dropped.total(), dict(dropped))

    async def close(self) -> None:
        """Let the client go; nothing of ours is pending between writes."""
        await self._discard()
        self._log.close()
        self._status = SinkStatus(SinkState.CLOSED)

    def statistics(self) -> Mapping[str, int]:
        """Return the sink's counters: clients built, batches acknowledged, failures."""
        return {
            **self._counters,
            "partitions": self._partitions,
            "batch_bytes": self._batch_bytes,
            "throttled_ms": self._answers.throttled_ms,
        }

    async def _connect(self) -> None:
        """Build a client and learn the topic's partitions.

        Raises:
            KafkaError, OSError, TimeoutError: no cluster, no topic, or not allowed.
        """
        self._counters["clients"] += 1
        self._log.clear()
        self._watch = Stopwatch()
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._servers,
            enable_idempotence=True,
            acks="all",
            **self._settings,
        )
        async with asyncio.timeout(self._deadlines.connect_s):
            await self._producer.start()
            client = self._producer.client
            client.send = self._answers.around(client.send)
            self._partitions = len(await self._producer.partitions_for(self._topic))
        self._succeed(_AT_ONCE)

    async def _deliver(self, groups: list[_Group], dropped: Counter[Drop]) -> list[_Group]:
        """Send all pairs as batches; return what must be sent again, by a new client."""
        async with asyncio.timeout(self._deadlines.connect_s):
            # Known to the client already, unless the topic was deleted or has grown.
            self._partitions = len(await self._producer.partitions_for(self._topic))
        batches = [batch for group in groups for batch in self._batches(group)]
        self._watch, self._is_waiting = Stopwatch(), True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._deadlines.deliver_s):
                    await self._send(batches)
        finally:
            self._is_waiting = False
        again: list[_Group] = []
        unsent: list[Message] = []
        for batch in batches:
            error = batch.error()
            if error is None:
                self._counters["batches"] += 1
            elif (reason := self._is_hopeless(batch, error)) is not None:
                again += self._split(batch, reason, dropped)
            else:
                # What follows a refused batch has a gap before it: that is no news.
                if not isinstance(error, errors.OutOfOrderSequenceNumber):
                    self._fail(error)
                unsent += batch.records.pairs
        if unsent:
            again.append(unsent)
        if not again:
            self._succeed(self._watch.took())
        return again

    async def _send(self, batches: list[_Batch]) -> None:
        """Hand the batches to the client, partitions side by side, and await their futures."""
        queues: dict[int, list[_Batch]] = {}
        for batch in batches:
            queues.setdefault(batch.partition, []).append(batch)

        async def send(queue: list[_Batch]) -> None:
            # The client holds one batch per partition: handing over the next waits for this one.
            for batch in queue:
                try:
                    batch.future = await self._producer.send_batch(
                        batch.records, self._topic, partition=batch.partition
                    )
                except _CLIENT_ERRORS as exc:
                    batch.refusal = exc
            await asyncio.gather(*(b.future for b in queue if b.future), return_exceptions=True)

        async with asyncio.TaskGroup() as group:
            for queue in queues.values():
                group.create_task(send(queue))

    def _batches(self, pairs: _Group) -> Iterator[_Batch]:
        """Yield the pairs as batches, each of one partition, in the order given."""
        filling: dict[int, _Batch] = {}
        keys = [pair.request_id.encode() for pair in pairs]
        numbers = partitions_of(keys, self._partitions)
        for pair, key, number in zip(pairs, keys, numbers, strict=True):
            batch = filling.get(number)
            if batch is None or not batch.records.append(pair, key):
                if batch is not None:
                    yield batch
                batch = filling[number] = _Batch(
                    number, RecordBatch(self._batch_bytes, self._codec, self._headers)
                )
                batch.records.append(pair, key)
        yield from filling.values()

    def _is_hopeless(self, batch: _Batch, error: BaseException) -> Drop | None:
        """Return why no broker will ever take this batch; None when it may."""
        if isinstance(error, TOO_LARGE):
            return Drop.TOO_LARGE
        if isinstance(error, REFUSED) or self._answers.is_invalid(batch.partition):
            return Drop.REFUSED
        return None

    def _split(self, batch: _Batch, reason: Drop, dropped: Counter[Drop]) -> list[_Group]:
        """Return the halves of a batch that the broker refused; a single pair is given up."""
        self._counters["failures"] += 1
        pairs = batch.records.pairs
        if len(pairs) == 1:
            dropped[reason] += 1
            return []
        largest = max(len(pair.value) for pair in pairs)
        if reason is Drop.TOO_LARGE and largest <= self._batch_bytes // _ORDINARY:
            # No pair is to blame: the topic takes no batches of this size.
            self._batch_bytes = max(MIN_BATCH_BYTES, self._batch_bytes // 2)
        middle = len(pairs) // 2
        return [pairs[:middle], pairs[middle:]]

    def _succeed(self, took: Took) -> None:
        """Forget all trouble, but that it took long."""
        self._log.clear()
        self._status = self._pace(took)

    def _pace(self, took: Took) -> SinkStatus:
        """Return how a broker is doing that has answered, or has been asked, for `took`."""
        if self._answers.throttle_ms:
            return throttled(self._answers.throttle_ms, self._target)
        return slow(took, self._target) if took.all_s > self._deadlines.slow_s else _OK

    def _fail(self, error: BaseException) -> None:
        """Take note of a failure: what the operator is told until it is over."""
        self._counters["failures"] += 1
        found = diagnose(error, self._log.causes, self._log.latest, self._target)
        took = self._watch.took()
        is_own = found.state is SinkState.STUCK and took.is_starved
        self._status = starved(took) if is_own else found

    async def _discard(self) -> None:
        """Throw the client away, with everything it may still be doing."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        await stopped(producer, self._deadlines.close_s)
        await end_client_tasks(self._deadlines.close_s)


def _is_progress(before: Sequence[_Group], after: Sequence[_Group]) -> bool:
    """Return whether fewer pairs are pending, or the same in more and so smaller batches."""
    return sum(map(len, after)) < sum(map(len, before)) or len(after) > len(before)
