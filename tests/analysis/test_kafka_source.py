"""A topic is read from its beginning to its end, once, and never for ever."""

from __future__ import annotations

import socket
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from hypothesis import given, strategies as st

from proxy.analysis import parallel, topic as topics
from proxy.analysis.aggregate import Reading
from proxy.analysis.kafka_source import KafkaSource, Span, Topic, parse_topic
from proxy.analysis.sources import open_source
from proxy.analysis.summarise import summarise, summary_of
from proxy.analysis.summary import Selection
from proxy.errors import SourceError
from tests.analysis.test_parallel import counted, mixed
from tests.support.deadline import PATIENCE_S
from tests.support.kafka import broker
from tests.support.kafka_topics import create_topic
from tests.support.records import START_MS, pair
from tests.support.upstreams import unused_port


def produce(bootstrap: str, topic: str, records: Iterable[dict[str, Any] | None]) -> None:
    """Send `records` as the recorder does, stamped with their own time."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for record in records:
        if record is None:
            producer.produce(topic, key="gone", value=None)
        else:
            producer.produce(
                topic,
                key=record["request_id"],
                value=orjson.dumps(record),
                timestamp=record["ts_ms"],
            )
    assert producer.flush(PATIENCE_S) == 0


@pytest.fixture
def topic(kafka_bootstrap: str) -> str:
    """Return the name of a fresh topic of four partitions."""
    name = f"compare-{uuid.uuid4().hex[:8]}.pairs.v1"
    create_topic(kafka_bootstrap, name)
    return name


@pytest.mark.kafka
def test_every_record_of_all_partitions_is_read_once(kafka_bootstrap: str, topic: str) -> None:
    """Redelivered pairs, tombstones and bad messages included, each where it belongs."""
    records = [pair(n, 3, 8 if n % 10 == 0 else 3) for n in range(1, 1001)]
    produce(kafka_bootstrap, topic, [*records, *records[:50], None])
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, value=b"not json")
    assert producer.flush(PATIENCE_S) == 0
    source = open_source(f"kafka://{kafka_bootstrap}/{topic}")
    summary = summarise(source)
    (comparison,) = summary.comparisons
    assert (comparison.pairs, comparison.agreement.count) == (1000, 900)
    assert (summary.health.duplicates, summary.health.missing) == (50, 0)
    found = source.statistics()
    assert (found.parts, found.done, found.total, found.bad_lines) == (4, 1052, 1052, 1)
    assert found.examples[0].startswith(f"{topic}[")


@pytest.mark.kafka
def test_several_processes_count_what_one_counts(
    kafka_bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pair once, also one that came twice, in parts of partitions; within a window, too."""
    monkeypatch.setattr(topics, "PART_RECORDS", 150)
    records = mixed(700)
    produce(kafka_bootstrap, topic, [*records, *records[:60], None])
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, value=b"not json")
    producer.produce(topic, value=orjson.dumps(pair(9_001), option=orjson.OPT_INDENT_2))
    assert producer.flush(PATIENCE_S) == 0
    for span in (Span(), Span(since_ms=START_MS + 401_000)):
        one, two = (KafkaSource(Topic((kafka_bootstrap,), topic), span) for _ in range(2))
        expected, _ = read_by(one, 1)
        found, ends = read_by(two, 2)
        assert found == expected
        assert len(ends) > 2
        assert ends[-1] == two.statistics().total == one.statistics().done
        assert two.statistics().offsets == one.statistics().offsets
        assert two.statistics().bad_lines == one.statistics().bad_lines


def read_by(source: KafkaSource, processes: int) -> tuple[dict[str, Any], list[int]]:
    """Return the summary of a topic, and how far the reading was after each part.

    Pairs that differ equally much are shown in the order of reading, so none is.
    """
    reading, ends = Reading(Selection(worst=0)), list[int]()
    found = parallel.aggregate_topic(
        source, reading, lambda: ends.append(source.statistics().done), processes=processes
    )
    return counted(summary_of(found, reading)), ends


@given(
    st.dictionaries(
        st.integers(0, 40), st.tuples(st.integers(0, 500), st.integers(0, 2_000)), max_size=12
    ),
    st.integers(1, 5),
    st.integers(1, 500),
)
def test_parts_of_a_topic_hold_each_record_once(
    sizes: dict[int, tuple[int, int]], groups: int, most: int
) -> None:
    """However many partitions, groups and records there are; no part is too large."""
    ranges = {number: (start, start + size) for number, (start, size) in sizes.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "PART_RECORDS", most)
        parts = [*topics.topic_parts(Topic(("a:1",), "t"), ranges, groups)]
    found = Counter(
        (number, offset)
        for part in parts
        for number, (start, stop) in part.ranges.items()
        for offset in range(start, stop)
    )
    assert {*found.values()} <= {1}
    assert {*found} == {
        (number, offset)
        for number, (start, stop) in ranges.items()
        for offset in range(start, stop)
    }
    sizes_of = [sum(stop - start for start, stop in part.ranges.values()) for part in parts]
    assert max(sizes_of, default=0) <= most + len(ranges)


@pytest.mark.kafka
def test_reading_ends_where_the_topic_ended_when_it_began(kafka_bootstrap: str, topic: str) -> None:
    """A topic that grows faster than it is read must not be read for ever."""
    produce(kafka_bootstrap, topic, [pair(n) for n in range(1, 101)])
    reading = iter(KafkaSource(Topic((kafka_bootstrap,), topic)))
    first = next(reading)
    produce(kafka_bootstrap, topic, [pair(n) for n in range(101, 201)])
    assert {first["seq"], *(record["seq"] for record in reading)} == set(range(1, 101))


@pytest.mark.kafka
def test_an_empty_topic_gives_nothing_at_once(kafka_bootstrap: str, topic: str) -> None:
    """Not a wait for its first record."""
    source = KafkaSource(Topic((kafka_bootstrap,), topic))
    assert list(source) == []
    assert source.statistics().total == 0


@pytest.mark.kafka
def test_a_window_skips_what_was_before_it(kafka_bootstrap: str, topic: str) -> None:
    """By the broker's index, so a week's topic is not read for the last hour."""
    produce(kafka_bootstrap, topic, [pair(n) for n in range(1, 501)])
    name = f"kafka://{kafka_bootstrap}/{topic}"
    source = open_source(name, since_ms=START_MS + 401_000)
    assert sorted(record["seq"] for record in source) == list(range(401, 501))
    assert source.statistics().is_window
    assert list(open_source(name, since_ms=START_MS + 9_000_000)) == []


@pytest.mark.kafka
def test_a_missing_topic_is_named_and_not_created(kafka_bootstrap: str, topic: str) -> None:
    """The error says which topics there are."""
    with pytest.raises(SourceError, match=rf"there is no topic 'nope'.*{topic}"):
        list(KafkaSource(Topic((kafka_bootstrap,), "nope")))
    client = AdminClient({"bootstrap.servers": kafka_bootstrap})
    topics = client.list_topics(timeout=PATIENCE_S).topics
    assert "nope" not in topics


@pytest.mark.kafka
def test_a_reading_that_is_given_up_leaves_no_connection(kafka_bootstrap: str, topic: str) -> None:
    """Warnings are errors here, so an unclosed consumer would fail the test."""
    produce(kafka_bootstrap, topic, [pair(n) for n in range(1, 101)])
    reading = iter(KafkaSource(Topic((kafka_bootstrap,), topic)))
    next(reading)
    reading.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.real_kafka
def test_a_broker_that_freezes_midway_is_an_error_and_not_a_hang(
    kafka_cache: Path, tmp_path: Path
) -> None:
    """The error says how far the reading came; one that waits for more notices, too."""
    with broker(kafka_cache, tmp_path / "kafka") as found:
        create_topic(found.bootstrap, "t", partitions=1)
        produce(found.bootstrap, "t", [pair(n, "x" * 20_000) for n in range(1, 3001)])
        reading = iter(KafkaSource(Topic((found.bootstrap,), "t"), call_s=4, stall_s=4))
        next(reading)
        span = Span(after={0: 2_999}, is_endless=True)
        endless = iter(KafkaSource(Topic((found.bootstrap,), "t"), span, call_s=4, stall_s=4))
        assert next(endless)["seq"] == 3_000
        found.freeze()
        with pytest.raises(SourceError, match=r"stopped answering after [\d,]+ of 3,000 records"):
            list(reading)
        with pytest.raises(SourceError, match="the broker did not answer in 4 s"):
            next(endless)


def test_no_broker_is_an_error_that_names_the_address() -> None:
    """A refused connection does not wait for the deadline."""
    address = f"127.0.0.1:{unused_port()}"
    with pytest.raises(SourceError, match=f"cannot reach a Kafka broker at {address}"):
        list(KafkaSource(Topic((address,), "t")))


def test_a_broker_that_accepts_and_says_nothing_is_an_error_in_time() -> None:
    """A port that belongs to something else, or a frozen process."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(SourceError, match=f"cannot reach a Kafka broker at {address}"):
            list(KafkaSource(Topic((address,), "t"), call_s=0.5))


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("kafka://a:1/t", ("a:1",)),
        ("kafka://a/t", ("a:9092",)),
        ("kafka://a:1,b/t", ("a:1", "b:9092")),
        ("kafka://[::1]:5/t", ("[::1]:5",)),
        ("kafka://[::1]/t", ("[::1]:9092",)),
    ],
)
def test_a_topic_names_its_brokers(name: str, servers: tuple[str, ...]) -> None:
    """The port may be left out, and there may be several brokers."""
    assert parse_topic(name) == Topic(servers, "t")
