"""Keys fall where Kafka's own client puts them; headers are CloudEvents."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given, strategies as st

from proxy.recorder.kafka_messages import headers, murmur2, partition
from tests.recorder.support import pair


@given(st.binary(max_size=100), st.integers(1, 200))
def test_a_key_gets_the_partition_that_other_clients_give_it(key: bytes, partitions: int) -> None:
    """Labels written by any Kafka client meet their pairs in the same partition."""
    expected = DefaultPartitioner()(key, list(range(partitions)), [])
    assert partition(key, partitions) == expected


def test_the_hash_is_kafkas() -> None:
    """Values of Apache Kafka's own test of Utils.murmur2, as unsigned numbers."""
    assert murmur2(b"21") == -973932308 & 0xFFFF_FFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFF_FFFF
    assert murmur2(b"a-little-bit-long-string") == -985981536 & 0xFFFF_FFFF


def test_headers_are_cloudevents_in_binary_mode() -> None:
    """With a traceparent that names the request's trace."""
    found = dict(headers(pair(1)))
    assert found == {
        "ce_specversion": b"1.0",
        "ce_type": b"understudy.pair.v1",
        "ce_id": b"018bcfe5-687b-7746-9a94-000000000001",
        "ce_source": b"/understudy/test-w0",
        "ce_time": b"2023-11-14T22:13:20.123456Z",
        "content-type": b"application/json; charset=UTF-8",
        "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-9a94000000000001-01",
    }


def test_without_a_trace_there_is_no_traceparent() -> None:
    """Half a trace context would be refused by whoever reads it."""
    assert "traceparent" not in dict(headers(pair(1)._replace(trace_id="")))
