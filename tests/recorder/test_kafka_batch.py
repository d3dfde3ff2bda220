"""A batch made here is one that any Kafka client reads, and that aiokafka sends as its own."""

from __future__ import annotations

import inspect

import pytest
from aiokafka.producer import message_accumulator
from aiokafka.record.memory_records import MemoryRecords

from proxy.recorder.kafka_batch import RecordBatch, open_codec
from proxy.recorder.sink import Pair
from tests.recorder.support import pair

CODECS = (None, "gzip", "snappy", "lz4", "zstd")


def batch_of(pairs: list[Pair], codec: str | None = "zstd", limit_bytes: int = 1 << 20) -> bytes:
    """Return pairs as a batch on the wire."""
    batch = RecordBatch(limit_bytes, open_codec(codec))
    for each in pairs:
        assert batch.append(each, each.request_id.encode())
    batch._set_producer_state(7, 2, 40)
    return batch._build()


@pytest.mark.parametrize("codec", CODECS)
def test_the_client_reads_what_was_put_in(codec: str | None) -> None:
    """Keys, values, times (also earlier ones) and the checksum, with every compression."""
    pairs = [
        pair(number, size)._replace(ts_ms=1_700_000_000_123 + step)
        for number, (size, step) in enumerate([(10, 0), (100, 5), (10_000, -3), (100_000, 90_000)])
    ]
    records = MemoryRecords(batch_of(pairs, codec))
    batch = records.next_batch()
    assert batch is not None
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 2, 40)
    assert (batch.first_timestamp, batch.max_timestamp) == (pairs[0].ts_ms, pairs[-1].ts_ms)
    found = list(batch)
    assert [record.offset for record in found] == [0, 1, 2, 3]
    assert [record.timestamp for record in found] == [each.ts_ms for each in pairs]
    assert [record.key for record in found] == [each.request_id.encode() for each in pairs]
    assert [record.value for record in found] == [each.value for each in pairs]
    assert not records.has_next()


def test_a_full_batch_takes_no_more_and_an_empty_one_anything() -> None:
    """The limit is of uncompressed bytes, all of a message counted."""
    batch = RecordBatch(1_000, open_codec("zstd"))
    assert batch.append(pair(1, 5_000), b"k")
    assert not batch.append(pair(2), b"k")
    small = RecordBatch(10_000, open_codec(None))
    while small.append(pair(3, 100), b"k"):
        pass
    assert 8_000 < len(small._build()) <= 10_000


def test_a_batch_is_the_same_however_often_it_is_sent() -> None:
    """The broker tells a repeated one by its sequence number."""
    batch = RecordBatch(1_000, open_codec("zstd"))
    batch.append(pair(1), b"k")
    batch._set_producer_state(1, 0, 0)
    assert batch._build() is batch._build()


def test_the_client_asks_for_nothing_else() -> None:
    """What its accumulator calls on a builder, ours has; a new release may ask for more."""
    source = inspect.getsource(message_accumulator.MessageBatch)
    asked = {word.split("(")[0] for word in source.split("self._builder.")[1:]}
    ours = set(dir(RecordBatch))
    assert asked - {"append"} <= ours
