"""Topics of a broker for tests: made, read to their end, deleted."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from confluent_kafka import Consumer, Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, wait_for


def create_topic(
    bootstrap: str, topic: str, partitions: int = 4, config: Mapping[str, str] | None = None
) -> None:
    """Create a topic; return when the broker leads it.

    A controller answers before the broker has heard of the topic (KIP-500).
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    fresh = NewTopic(topic, partitions, 1, config=dict(config or {}))
    for future in admin.create_topics([fresh]).values():
        future.result(timeout=PATIENCE_S)
    wait_for(lambda: _is_led(admin, topic, partitions), f"the topic {topic}")


def _is_led(admin: AdminClient, topic: str, partitions: int) -> bool:
    found = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions.values()
    return len(found) == partitions and all(each.leader >= 0 for each in found)


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic; return when the broker has taken the order."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics([topic]).values():
        future.result(timeout=PATIENCE_S)


def consume(
    bootstrap: str, topic: str, enough: int, timeout_s: float = PATIENCE_S, quiet_s: float = 0.3
) -> list[Message]:
    """Return the messages of a topic from its beginning.

    Ends `quiet_s` after the last one once there are `enough` and no partition has more, so that one too
    many is seen, and what was sent twice does not stand for what has not been read yet.

    Raises:
        AssertionError: fewer than `enough` within `timeout_s`.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    messages: list[Message] = []
    end = monotonic_s() + timeout_s
    try:
        consumer.subscribe([topic])
        while monotonic_s() < end:
            fresh = consumer.consume(num_messages=1000, timeout=quiet_s)
            messages += [message for message in fresh if message.error() is None]
            if not fresh and len(messages) >= enough and _is_at_end(consumer):
                return messages
    finally:
        consumer.close()
    raise AssertionError(f"{len(messages)} of {enough} messages in {topic} after {timeout_s} s")


def _is_at_end(consumer: Consumer) -> bool:
    """Return whether a consumer has read all that its partitions have."""
    places = consumer.position(consumer.assignment())
    ends = [consumer.get_watermark_offsets(place, timeout=PATIENCE_S)[1] for place in places]
    return all(max(place.offset, 0) >= end for place, end in zip(places, ends, strict=True))
