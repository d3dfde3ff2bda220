"""The Kafka sink: batches of pairs in, acknowledgements out, through one aiokafka client.

It decides when a client is beyond repair and what the operator is told. It is imported only when
Kafka is configured.

One task owns the client, and each call has a deadline of our own, because aiokafka's do not cover
what happens with a broker that freezes: an idempotent batch is retried for ever (its future stays
pending), a full accumulator blocks the sender, and `stop()` waits for both (aiokafka issues 1101
and 1013). Nor does the client survive a batch that the broker refuses: the next batch's sequence
number then has a gap, which the broker takes for loss. So there is one answer to every failure:
throw the client away and send what was not acknowledged through a new one. That may write a batch
twice, under the same `pair_id`s, and never loses one.
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
from proxy.recorder.kafka_batch import RecordBatch, open_codec
from proxy.recorder.kafka_log import ClientLog
from proxy.recorder.kafka_messages import headers_block, partitions_of
from proxy.recorder.kafka_options import client_settings
from proxy.recorder.sink import PAIRS_TOPIC, Delivery, Drop, Message, SinkState, SinkStatus
from proxy.telemetry import monotonic_s

#: Uncompressed bytes per batch. The broker's default `message.max.bytes` is 1 MiB, compressed.
BATCH_BYTES = 960 * 1024
MIN_BATCH_BYTES = 16 * 1024

_UNAUTHORIZED = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
# TimeoutError is ours, and what the client logs of a connection that nobody answers.
_SILENT = (TimeoutError, errors.KafkaTimeoutError, errors.RequestTimedOutError)
_TOO_LARGE = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.RecordTooLargeError,
)
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
        backoff_s, backoff_limit_s: first and longest pause between attempts.
    """

    connect_s: float = 15.0
    deliver_s: float = 20.0
    close_s: float = 1.0
    request_s: float = 10.0
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
        self._state = SinkState.CONNECTING
        self._message = f"looking for {', '.join(self._servers)}"
        self._counters: Counter[str] = Counter(clients=0, batches=0, failures=0)

    @property
    def name(self) -> str:
        """The kind of sink, and where it writes."""
        return f"kafka {','.join(self._servers)} topic {self._topic}"

    @property
    def status(self) -> SinkStatus:
        """How the broker is doing; while batches wait, what the client itself complains of."""
        trouble = self._log.latest
        if self._state is SinkState.OK and trouble:
            return SinkStatus(SinkState.RETRYING, trouble)
        return SinkStatus(self._state, self._message)

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
        pending: Sequence[Message] = pairs
        dropped: Counter[Drop] = Counter()
        pause_s = self._deadlines.backoff_s
        while pending:
            before = len(pending)
            try:
                if self._producer is None:
                    await self._connect()
                pending = await self._deliver(pending, dropped)
            except _CLIENT_ERRORS as exc:
                self._fail(exc)
            if not pending:
                break
            await self._discard()
            # Progress of any kind, also a smaller batch size, deserves a prompt next attempt.
            pause_s = self._deadlines.backoff_s if len(pending) < before else pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._deadlines.backoff_limit_s)
        return Delivery(len(pairs) - dropped.total(), dict(dropped))

    async def close(self) -> None:
        """Let the client go; nothing of ours is pending between writes."""
        await self._discard()
        self._log.close()
        self._state, self._message = SinkState.CLOSED, ""

    def statistics(self) -> Mapping[str, int]:
        """Return the sink's counters: clients built, batches acknowledged, failures."""
        return {**self._counters, "partitions": self._partitions, "batch_bytes": self._batch_bytes}

    async def _connect(self) -> None:
        """Build a client and learn the topic's partitions.

        Raises:
            KafkaError, OSError, TimeoutError: no cluster, no topic, or not allowed.
        """
        self._counters["clients"] += 1
        self._log.clear()
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._servers,
            enable_idempotence=True,
            acks="all",
            **self._settings,
        )
        async with asyncio.timeout(self._deadlines.connect_s):
            await self._producer.start()
            self._partitions = len(await self._producer.partitions_for(self._topic))
        self._succeed()

    async def _deliver(self, pairs: Sequence[Message], dropped: Counter[Drop]) -> Sequence[Message]:
        """Send `pairs` as batches; return those that must be sent again, by a new client."""
        async with asyncio.timeout(self._deadlines.connect_s):
            # Known to the client already, unless the topic was deleted or has grown.
            self._partitions = len(await self._producer.partitions_for(self._topic))
        batches = list(self._batches(pairs))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadlines.deliver_s):
                await self._send(batches)
        again: list[Message] = []
        for batch in batches:
            error = batch.error()
            if error is None:
                self._counters["batches"] += 1
            elif isinstance(error, _TOO_LARGE):
                again += self._shrink(batch, dropped)
            else:
                self._fail(error)
                again += batch.records.pairs
        if not again:
            self._succeed()
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

    def _batches(self, pairs: Sequence[Message]) -> Iterator[_Batch]:
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

    def _shrink(self, batch: _Batch, dropped: Counter[Drop]) -> list[Message]:
        """Return the pairs of a batch the broker found too large; a single one is given up."""
        self._counters["failures"] += 1
        if len(batch.records.pairs) == 1:
            dropped[Drop.TOO_LARGE] += 1
            return []
        self._batch_bytes = max(MIN_BATCH_BYTES, self._batch_bytes // 2)
        return batch.records.pairs

    def _succeed(self) -> None:
        """Forget all trouble."""
        self._log.clear()
        self._state, self._message = SinkState.OK, ""

    def _fail(self, error: BaseException) -> None:
        """Take note of a failure: what the operator is told until it is over."""
        self._counters["failures"] += 1
        causes = [error, *self._log.causes]
        detail = str(error) or type(error).__name__
        if any(isinstance(cause, _UNAUTHORIZED) for cause in causes):
            self._state = SinkState.UNAUTHORIZED
            self._message = f"{', '.join(self._servers)} refuses us: {self._log.latest or detail}"
        elif any(isinstance(cause, _SILENT) for cause in causes):
            self._state = SinkState.STUCK
            self._message = f"no answer in time, trying a new client: {self._log.latest or detail}"
        elif isinstance(error, errors.UnknownTopicOrPartitionError) and not self._log.causes:
            self._state = SinkState.TOPIC_MISSING
            self._message = (
                f"topic {self._topic} does not exist and the broker does not create it; "
                "run `understudy topics create`"
            )
        else:
            self._state = SinkState.RETRYING
            self._message = self._log.latest or detail

    async def _discard(self) -> None:
        """Throw the client away, with everything it may still be doing."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._deadlines.close_s):
                await producer.stop()
        with suppress(errors.KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._deadlines.close_s):
                await producer.client.close()
        await _end_client_tasks(self._deadlines.close_s)


async def _end_client_tasks(timeout_s: float) -> None:
    """Cancel whatever tasks the client has left running.

    Its `stop()` gives up on nothing, so an abandoned client would go on retrying beside its
    successor, and keep its buffers. Only one client exists at a time, so every task that runs the
    library's code is the abandoned one's.
    """
    library = os.path.dirname(aiokafka.__file__)  # noqa: PTH120 - compared as text below
    left = []
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename.startswith(library):
            task.cancel()
            left.append(task)
    if left:
        await asyncio.wait(left, timeout=timeout_s)
