"""The line between replicas, on a real broker: what is sent comes back, and what is unfit is told."""

from __future__ import annotations

import asyncio
import gc
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from confluent_kafka import KafkaException

from proxy.config.resolved import Kafka
from proxy.control.replica_link import ReplicaLink
from proxy.telemetry import monotonic_s
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.kafka_topics import create_topic, delete_topic

# A client that is cancelled while it connects leaves its connection to the collector (aiokafka).
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COMPACTED = {"cleanup.policy": "compact"}


class Listener:
    """Who is told what came.

    Attributes:
        has_echoes: what was sent comes back in time; without a beat now and then it would not.
    """

    link: ReplicaLink

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bytes | None]] = []
        self.beginnings: list[bool] = []
        self.has_echoes = True

    def took(self, key: bytes, value: bytes | None) -> None:
        """Keep it."""
        self.heard.append((key, value))

    def awoke(self) -> None:
        """Something comes."""

    def ended(self) -> None:
        """Nothing more is there."""
        if self.has_echoes:
            self.link.echoed_s = monotonic_s()

    def lose(self) -> None:
        """Let nothing of ours have come back for long."""
        self.has_echoes = False
        self.link.echoed_s = monotonic_s() - 60

    def began_anew(self, *, has_lost_log: bool) -> None:
        """Keep it."""
        self.beginnings.append(has_lost_log)


@asynccontextmanager
async def line(bootstrap: str, prefix: str) -> AsyncIterator[tuple[ReplicaLink, Listener]]:
    """Keep a line until the block ends."""
    listener = Listener()
    link = ReplicaLink(Kafka((bootstrap,), prefix, {}), "g", 6.0, listener)
    listener.link = link
    task = asyncio.get_running_loop().create_task(link.run())
    try:
        yield link, listener
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect what a cancelled client has left, so that no later test is blamed for it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def prefix() -> str:
    """Return a prefix that nobody else uses."""
    return f"line-{uuid.uuid4().hex[:8]}"


async def test_what_is_sent_comes_back_in_order_and_one_may_lead(
    kafka_bootstrap: str, prefix: str
) -> None:
    """Kills before all else of the same moment; a second line reads all of it from the beginning."""
    create_topic(kafka_bootstrap, f"{prefix}.state.v1", 1, COMPACTED)
    async with line(kafka_bootstrap, prefix) as (link, listener):
        link.send(b"g/early", b"lost")
        await until(lambda: link.is_caught_up, "the line")
        link.send(b"g/weight/m", b"1")
        link.send(b"g/weight/m", b"2")
        link.send(b"g/kill/*", b"3")
        link.send(b"g/beat/gone", None)
        await until(lambda: len(listener.heard) == 3, "the messages")
        assert listener.heard == [
            (b"g/kill/*", b"3"), (b"g/weight/m", b"2"), (b"g/beat/gone", None),
        ]  # fmt: skip
        await until(lambda: link.may_lead, "the lead")
        listener.lose()
        await until(lambda: len(listener.beginnings) == 2, "a new beginning")
        listener.has_echoes = True
        await until(lambda: link.is_caught_up, "the line again")
        assert listener.beginnings == [False, False]
        assert len(listener.heard) == 3  # it goes on where it was
    async with line(kafka_bootstrap, prefix) as (link, later):
        await until(lambda: link.is_caught_up, "the second line")
        assert later.heard == listener.heard
        await until(lambda: link.may_lead, "the lead")


async def test_after_doubt_all_is_read_first_and_the_group_is_asked_anew(
    kafka_bootstrap: str, prefix: str
) -> None:
    """What the clients say of before a long stop counts for nothing; the line itself lives on."""
    create_topic(kafka_bootstrap, f"{prefix}.state.v1", 1, COMPACTED)
    async with line(kafka_bootstrap, prefix) as (link, listener):
        await until(lambda: link.may_lead, "the lead")
        link.doubt()
        assert not link.is_caught_up
        link.note_turn(is_ours=True)  # an answer of before that lies in the socket still
        assert not link.may_lead
        await until(lambda: link.is_caught_up, "the end of the topic")
        await until(lambda: link.may_lead, "the lead as a new member")
        assert listener.beginnings == [False]


async def test_a_topic_that_was_made_anew_is_noticed(kafka_bootstrap: str, prefix: str) -> None:
    """So that what holds is written once more."""
    create_topic(kafka_bootstrap, f"{prefix}.state.v1", 1, COMPACTED)
    async with line(kafka_bootstrap, prefix) as (link, listener):
        await until(lambda: link.is_caught_up, "the line")
        link.send(b"g/kill/*", b"3")
        await until(lambda: len(listener.heard) == 1, "the message")
        delete_topic(kafka_bootstrap, f"{prefix}.state.v1")
        listener.lose()
        # A broker that makes topics by itself has made one that is unfit, since clients asked for it.
        await until(lambda: "topic" in link.trouble, "the trouble")
        listener.has_echoes = True
        await until(lambda: _is_made_anew(kafka_bootstrap, f"{prefix}.state.v1"), "a fit one")
        await until(lambda: link.is_caught_up, "the line again")
        assert listener.beginnings[-1]
        await until(lambda: link.may_lead, "the lead")


def _is_made_anew(bootstrap: str, topic: str) -> bool:
    """Delete a topic if it is there, and make it; return whether it could be made already."""
    with suppress(KafkaException):
        delete_topic(bootstrap, topic)
    try:
        create_topic(bootstrap, topic, 1, COMPACTED)
    except KafkaException:
        return False
    return True


async def test_a_topic_that_is_unfit_is_told_and_waited_for(
    kafka_bootstrap: str, prefix: str
) -> None:
    """Missing, and with too many partitions; it is not made by accident."""
    async with line(kafka_bootstrap, prefix) as (link, listener):
        await until(lambda: "does not exist" in link.trouble, "the trouble")
        create_topic(kafka_bootstrap, f"{prefix}.state.v1", 2, COMPACTED)
        await until(lambda: "has 2 partitions, not 1" in link.trouble, "another trouble")
        delete_topic(kafka_bootstrap, f"{prefix}.state.v1")
        await until(lambda: "does not exist" in link.trouble, "the first trouble")
        assert not link.is_caught_up
        assert listener.beginnings == []


async def test_no_broker_is_a_trouble_and_no_end(prefix: str) -> None:
    """It is tried again and again."""
    async with line("127.0.0.1:1", prefix) as (link, _):
        await until(lambda: "127.0.0.1:1" in link.trouble, "the trouble")
        assert not link.is_caught_up
