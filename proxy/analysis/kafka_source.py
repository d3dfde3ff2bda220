"""Pairs from a Kafka topic: a span of it that ends where the topic did when the reading began, or never.

Reads without a consumer group, so it commits nothing, joins nothing and disturbs nobody. Every
call to the broker has a deadline of ours, because aiokafka retries some of them for ever; a
broker that goes silent ends the reading with an error instead of a hang. The event loop runs only
while a batch is being fetched, inside the caller's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from proxy.analysis.source import Block, MissingTopicError, Record, Source, SourceStatistics
from proxy.analysis.topic import WHOLE, Span, Topic, TopicPart, parse_topic, topic_parts
from proxy.errors import SourceError
from proxy.kafka.log import ClientLog
from proxy.kafka.options import client_settings
from proxy.kafka.refusals import refusal_of
from proxy.telemetry import monotonic_s

__all__ = ["KafkaSource", "Span", "Topic", "parse_topic"]

#: For connecting, for metadata and for offsets.
CALL_S: Final = 15.0
#: How long no partition may advance before the broker counts as gone.
STALL_S: Final = 30.0
#: For closing: the work is done by then, so it is cut short quietly.
CLOSE_S: Final = 3.0
BATCH_RECORDS: Final = 2_000
_POLL_MS: Final = 500
#: How long after a pair's own time it may reach the topic and still be found by `until_ms`: a pair
#: is stamped when its request came, and waits in a journal while Kafka is away.
LATE_MS: Final = 24 * 3_600_000
#: No partition ever gets here.
_NEVER: Final = 2**63 - 1

_T = TypeVar("_T")


class KafkaSource(Source):
    """The records of a topic up to its end offsets as of the first read, unless it is endless.

    Args:
        topic: what to read.
        span: which part of it.
        call_s: how long the broker may take to answer one question.
        stall_s: how long it may send nothing while records are due. An endless reading asks it
            after that time whether it is there.

    Attributes:
        ends: where each partition's reading has come to, by its number; an endless one could
            begin after it.
        is_cut: whether `last` left out earlier records. Both are known once the reading has begun.
    """

    def __init__(
        self,
        topic: Topic,
        span: Span = WHOLE,
        *,
        call_s: float = CALL_S,
        stall_s: float = STALL_S,
    ) -> None:
        super().__init__(SourceStatistics(str(topic), "kafka", is_window=not span.is_whole))
        self.ends: dict[int, int] = {}
        self.is_cut = False
        self._topic = topic
        self._span = span
        self._call_s = call_s
        self._stall_s = stall_s

    def __iter__(self) -> Iterator[Record]:
        for place, offset, values in self._batches():
            yield from self.parse(values, place, offset)

    def blocks(self) -> Iterator[Block]:
        """Yield all records, in blocks; each one's are read before the next is asked for.

        Raises:
            SourceError: the topic cannot be read.
        """
        for place, offset, values in self._batches():
            content = b"".join(value + b"\n" for value in values)
            is_lines = content.count(b"\n") == len(values)
            yield Block(content if is_lines else b"", self.parse(values, place, offset))

    def parts(self, groups: int) -> list[TopicPart]:
        """Return parts that processes can read apart, for so many at once; total is known then.

        Raises:
            SourceError: the topic cannot be read.
        """
        with asyncio.Runner() as runner:
            reader = _Reader(self._topic, self._span, self._call_s, self._stall_s)
            try:
                runner.run(reader.open())
                self._statistics.parts = reader.partitions
                self._statistics.total = reader.total
                return [*topic_parts(self._topic, reader.ranges, groups)]
            finally:
                runner.run(reader.close())

    def _batches(self) -> Iterator[tuple[str, int, list[bytes]]]:
        """Yield where values are from, the first one's offset, and the values."""
        with asyncio.Runner() as runner:
            reader = _Reader(self._topic, self._span, self._call_s, self._stall_s)
            try:
                runner.run(reader.open())
                self._statistics.parts = reader.partitions
                self._statistics.total = 0 if self._span.is_endless else reader.total
                self.is_cut = reader.is_cut
                self.ends = reader.ends
                while (batch := runner.run(reader.batch())) is not None:
                    for partition, offset, values in batch:
                        yield f"{self._topic.name}[{partition}]", offset, values
                    self._statistics.done = reader.done
                    self.ends = reader.ends
                self._statistics.offsets = {
                    f"{self._topic.name}[{partition}]": end for partition, end in self.ends.items()
                }
            except TopicAuthorizationFailedError as exc:
                raise SourceError(f"{self._topic}: we may not read it (the right Read)") from exc
            except (KafkaError, TimeoutError) as exc:
                raise SourceError(f"{self._topic}: {exc or 'no answer in time'}") from exc
            finally:
                runner.run(reader.close())


#: Partition, offset of the first value, values.
Batch = list[tuple[int, int, list[bytes]]]


class _Reader:
    """Reads each partition from its start to its end offset, in batches."""

    def __init__(self, topic: Topic, span: Span, call_s: float, stall_s: float) -> None:
        self._topic = topic
        self._span = span
        self.is_cut = False
        self._call_s = call_s
        self._stall_s = stall_s
        self._consumer: AIOKafkaConsumer | None = None
        self._log: ClientLog | None = None
        self._starts: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._advanced_s = 0.0

    @property
    def partitions(self) -> int:
        return len(self._ends)

    @property
    def total(self) -> int:
        return sum(end - self._starts[tp] for tp, end in self._ends.items())

    @property
    def done(self) -> int:
        return sum(
            min(position, self._ends[tp]) - self._starts[tp]
            for tp, position in self._positions.items()
        )

    @property
    def ranges(self) -> dict[int, tuple[int, int]]:
        return {tp.partition: (start, self._ends[tp]) for tp, start in self._starts.items()}

    @property
    def ends(self) -> dict[int, int]:
        return {tp.partition: position for tp, position in self._positions.items()}

    async def open(self) -> None:
        """Connect and find where each partition starts and ends.

        Raises:
            ConfigError: an option of the client makes no sense.
            SourceError: no broker answers, it refuses us, or there is no such topic.
        """
        consumer = await self._connect()
        ranges = self._span.ranges
        if ranges is None:
            partitions = await self._find_partitions(consumer)
            consumer.assign(partitions)
            await self._bound(consumer, partitions)
        else:
            for number, (start, end) in ranges.items():
                partition = TopicPartition(self._topic.name, number)
                self._starts[partition], self._ends[partition] = start, end
            consumer.assign([*self._starts])
        for partition, start in self._starts.items():
            consumer.seek(partition, start)
        self._positions = dict(self._starts)
        self._pause_finished(consumer)
        self._advanced_s = monotonic_s()

    async def _connect(self) -> AIOKafkaConsumer:
        settings = client_settings(self._topic.options)
        settings.pop("compression_type", None)  # a producer's
        settings |= {"request_timeout_ms": int(self._call_s * 1000)}
        self._log = log = ClientLog()
        self._consumer = consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self._topic.bootstrap_servers),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 * 1024 * 1024,
            **{"client_id": "understudy-analysis", **settings},
        )
        try:
            await asyncio.wait_for(consumer.start(), self._call_s)
        except (KafkaError, TimeoutError, OSError) as exc:
            raise SourceError(self._unreachable(exc, log)) from exc
        return consumer

    def _unreachable(self, error: BaseException, log: ClientLog) -> str:
        """Return what to tell of a failed connection; the client hides most causes in its log."""
        brokers = ", ".join(self._topic.bootstrap_servers)
        refusal = refusal_of(error, log)
        if refusal is not None:
            return (
                f"{brokers} refuses us: {refusal}; look at security.protocol and sasl.* in "
                "record.kafka.options of the config (--config), or in -X"
            )
        told = f"cannot reach a Kafka broker at {brokers}"
        detail = f": {log.latest}" if log.latest else ""
        if "security.protocol" in self._topic.options:
            return told + detail
        return f"{told}{detail} (if it wants TLS or a login: --config, or -X security.protocol=...)"

    async def batch(self) -> Batch | None:
        """Return what has arrived, possibly nothing; None when every partition is at its end.

        Raises:
            SourceError: nothing has arrived for too long.
        """
        consumer = self._consumer
        assert consumer is not None
        if all(position >= self._ends[tp] for tp, position in self._positions.items()):
            return None
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=BATCH_RECORDS)
        batch: Batch = []
        for partition, messages in fetched.items():
            end = self._ends[partition]
            values = [m.value for m in messages if m.offset < end and m.value is not None]
            batch.append((partition.partition, messages[0].offset, values))
        await self._advance(consumer)
        return batch

    async def close(self) -> None:
        """Disconnect; what does not close in time is left behind, for the process to end soon."""
        try:
            await self._stop()
        finally:
            if self._log is not None:
                self._log.close()

    async def _stop(self) -> None:
        if self._consumer is not None:
            try:
                await asyncio.wait_for(self._consumer.stop(), CLOSE_S)
            except (KafkaError, TimeoutError, OSError):
                return
            except asyncio.CancelledError:
                # aiokafka lets the cancellation of its own fetch tasks out when a broker hangs.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise

    async def _find_partitions(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        # Listing all topics never creates one; asking for one by name may, on a lenient broker.
        topics = await self._in_time(consumer.topics())
        if self._topic.name not in topics:
            similar = ", ".join(sorted(t for t in topics if not t.startswith("__"))[:10])
            raise MissingTopicError(
                f"there is no topic {self._topic.name!r} at "
                f"{', '.join(self._topic.bootstrap_servers)}; there are: {similar or 'none'}"
            )
        # The client keeps metadata of assigned topics only; asking for an offset waits for it.
        first = TopicPartition(self._topic.name, 0)
        consumer.assign([first])
        await self._in_time(consumer.end_offsets([first]))
        numbers = consumer.partitions_for_topic(self._topic.name)
        if not numbers:
            raise SourceError(f"{self._topic}: the broker names no partitions; try again")
        return [TopicPartition(self._topic.name, number) for number in sorted(numbers)]

    async def _bound(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Find where each partition starts and ends."""
        span = self._span
        first = await self._in_time(consumer.beginning_offsets(partitions))
        self._ends = await self._in_time(consumer.end_offsets(partitions))
        self._starts = dict(first)
        if span.since_ms is not None:
            self._starts = await self._at_time(consumer, span.since_ms)
        if span.until_ms is not None:
            self._ends = await self._at_time(consumer, span.until_ms + LATE_MS)
        for tp, end in self._ends.items():
            if span.last is not None and self._starts[tp] < end - span.last:
                self._starts[tp] = end - span.last
                self.is_cut = True
            if span.after is not None:
                self._starts[tp] = span.after.get(tp.partition, first[tp])
            if span.is_endless:
                self._ends[tp] = _NEVER
            self._starts[tp] = min(self._starts[tp], self._ends[tp])

    async def _at_time(
        self, consumer: AIOKafkaConsumer, instant_ms: int
    ) -> dict[TopicPartition, int]:
        """Return the offset of each partition's first record stamped then or later, or its end."""
        found = await self._in_time(
            consumer.offsets_for_times(dict.fromkeys(self._ends, instant_ms))
        )
        return {
            tp: end if found[tp] is None else min(found[tp].offset, end)
            for tp, end in self._ends.items()
        }

    async def _advance(self, consumer: AIOKafkaConsumer) -> None:
        """Note how far each partition is; positions move past compacted and control records too."""
        before = sum(self._positions.values())
        for partition in self._positions:
            self._positions[partition] = await self._in_time(consumer.position(partition))
        self._pause_finished(consumer)
        now_s = monotonic_s()
        if sum(self._positions.values()) > before:
            self._advanced_s = now_s
        elif now_s - self._advanced_s <= self._stall_s:
            return
        elif self._span.is_endless:
            await self._in_time(consumer.end_offsets([*self._positions]))
            self._advanced_s = now_s
        else:
            raise SourceError(
                f"{self._topic}: the broker stopped answering after {self.done:,} of "
                f"{self.total:,} records"
            )

    def _pause_finished(self, consumer: AIOKafkaConsumer) -> None:
        finished = [tp for tp, position in self._positions.items() if position >= self._ends[tp]]
        if finished:
            consumer.pause(*finished)

    async def _in_time(self, call: Awaitable[_T]) -> _T:
        try:
            return await asyncio.wait_for(call, self._call_s)
        except TimeoutError as exc:
            raise SourceError(
                f"{self._topic}: the broker did not answer in {self._call_s:g} s"
            ) from exc
