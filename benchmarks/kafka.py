"""A Kafka broker for the recorder's benchmark: the one that is named, or one started here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.config.resolved import Kafka
from proxy.recorder.sink import PAIRS_TOPIC

_PARTITIONS = 4


@contextlib.contextmanager
def kafka_address(data: Path) -> Iterator[tuple[str, str]]:
    """Give the address of a broker, or why there is none."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    if given and not _missing_client():
        yield given, ""
        return
    with own_broker(data) as (broker, note):
        yield (broker.bootstrap if broker else "", note)


@contextlib.contextmanager
def own_broker(data: Path) -> Iterator[tuple[Any, str]]:
    """Give a broker that may be mistreated (`tests.support.kafka.Broker`), or why there is none."""
    if missing := _missing_client():
        yield None, missing
        return
    support = importlib.import_module("tests.support.kafka")
    if not support.can_start_broker():
        yield None, "Kafka is left out: set KAFKA_BOOTSTRAP_SERVERS, or install java and mvn"
        return
    with support.broker(Path(".cache") / "kafka", data) as broker:
        yield broker, ""


def _missing_client() -> str:
    if importlib.util.find_spec("confluent_kafka") is None:
        return "Kafka is left out: it needs confluent-kafka, one of the bench extra"
    return ""


def create_topic(kafka: Kafka) -> None:
    """Create the topic of the pairs."""
    support = importlib.import_module("tests.support.kafka_topics")
    topic = f"{kafka.topic_prefix}.{PAIRS_TOPIC}"
    support.create_topic(kafka.bootstrap_servers[0], topic, _PARTITIONS)


def stored_messages(kafka: Kafka) -> int:
    """Return how many messages the topic holds, by its partitions' offsets."""
    client = importlib.import_module("confluent_kafka")
    consumer = client.Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers[0], "group.id": "benchmark"}
    )
    topic = f"{kafka.topic_prefix}.{PAIRS_TOPIC}"
    try:
        ends = [
            consumer.get_watermark_offsets(client.TopicPartition(topic, number), timeout=10)[1]
            for number in range(_PARTITIONS)
        ]
    finally:
        consumer.close()
    return sum(ends)
