"""Keys fall where Kafka's own client puts them; headers are CloudEvents."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import encode_varint_py
from hypothesis import given, strategies as st

from proxy.recorder.kafka_batch import RecordBatch, open_codec
from proxy.recorder.kafka_messages import murmur2, partitions_of, varint
from proxy.recorder.sink import Pair
from tests.recorder.support import pair


def headers(a_pair: Pair) -> dict[str, bytes]:
    """Return a pair's headers as the client reads them."""
    batch = RecordBatch(1_000, open_codec(None))
    batch.append(a_pair, b"key")
    found = MemoryRecords(batch._build()).next_batch()
    assert found is not None
    (record,) = found
    return dict(record.headers)


equal_keys = st.sampled_from((4, 32, 36)).flatmap(
    lambda size: st.lists(st.binary(min_size=size, max_size=size), max_size=30)
)


@given(st.one_of(st.lists(st.binary(max_size=100)), equal_keys), st.integers(1, 200))
def test_a_key_gets_the_partition_that_other_clients_give_it(
    keys: list[bytes], partitions: int
) -> None:
    """Labels written by any Kafka client meet their pairs in the same partition."""
    expected = [DefaultPartitioner()(key, list(range(partitions)), []) for key in keys]
    assert partitions_of(keys, partitions) == expected


def test_the_hash_is_kafkas() -> None:
    """Values of Apache Kafka's own test of Utils.murmur2, as unsigned numbers."""
    assert murmur2(b"21") == -973932308 & 0xFFFF_FFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFF_FFFF
    assert murmur2(b"a-little-bit-long-string") == -985981536 & 0xFFFF_FFFF


def test_headers_are_cloudevents_in_binary_mode() -> None:
    """With a traceparent that names the exchange's span, and says of it what the client said."""
    traced = pair(1)._replace(span_id="00f067aa0ba90280", trace_sampled=True)
    assert headers(traced) == {
        "ce_specversion": b"1.0",
        "ce_type": b"understudy.pair.v1",
        "ce_id": b"018bcfe5-687b-7746-9a94-000000000001",
        "ce_source": b"/understudy/test-w0",
        "ce_time": b"2023-11-14T22:13:20.123456Z",
        "content-type": b"application/json; charset=UTF-8",
        "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba90280-01",
    }
    unsampled = headers(traced._replace(trace_sampled=False))["traceparent"]
    assert unsampled.endswith(b"-00f067aa0ba90280-00")


def test_a_record_without_a_span_gets_a_parent_made_of_its_own_id() -> None:
    """Which older versions journaled."""
    for sampled in (None, False):
        found = headers(pair(1)._replace(trace_sampled=sampled))["traceparent"]
        assert found == b"00-4bf92f3577b34da6a3ce929d0e0e4736-9a94000000000001-00"


def test_without_a_trace_there_is_no_traceparent() -> None:
    """Half a trace context would be refused by whoever reads it."""
    assert "traceparent" not in headers(pair(1)._replace(trace_id=""))


def test_an_instance_may_have_a_long_name() -> None:
    """Its length then takes two bytes."""
    name = "host-" * 30
    assert headers(pair(1)._replace(instance=name))["ce_source"] == f"/understudy/{name}".encode()


@given(st.integers(-(2**40), 2**40))
def test_numbers_are_written_as_the_client_writes_them(number: int) -> None:
    """Zigzag varints."""
    expected = bytearray()
    encode_varint_py(number, expected.append)
    assert varint(number) == expected
