"""A replica that stood still, on a real broker: it reads what has come before it does anything.

Its event loop is held up, as by SIGSTOP; what others write meanwhile is written from a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from proxy.config.resolved import Kafka, ReplicaGroup
from proxy.control.replicas import Replicas
from proxy.replicas.messages import Kill, Lead, Message, Origin, Weight, encode, whole_key
from proxy.state.control_page import ControlPage, Part, for_config, open_page, update
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.kafka_topics import create_topic
from tests.support.resolved_config import small_config

# A client that is cancelled while it connects leaves its connection to the collector (aiokafka).
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TAKEOVER_S = 1.5
#: Shorter than a lease, and long enough for another one to lead.
STOP_S = 0.7 * TAKEOVER_S
OTHER = Origin("b", "f00d", 0, "ada", "api", "t")
#: More than one answer of a broker holds, so that what follows comes by a later one.
FILLER = (b"elsewhere/filler", b"x" * 900_000)


@asynccontextmanager
async def replica(bootstrap: str, folder: Path) -> AsyncIterator[tuple[Replicas, ControlPage, str]]:
    """Give a replica that is connected, its page, and its topic."""
    prefix = f"stop-{uuid.uuid4().hex[:8]}"
    topic = f"{prefix}.state.v1"
    create_topic(bootstrap, topic, 1, {"cleanup.policy": "compact"})
    config = small_config(folder)
    record = replace(config.record, kafka=Kafka((bootstrap,), prefix, {}))
    group = ReplicaGroup("g", TAKEOVER_S)
    config = replace(config, instance="a", record=record, replicas=group)
    page = open_page(folder, create=True)
    update(page, lambda before: for_config(config, before))
    found = Replicas(config, group, lambda: page)
    task = asyncio.get_running_loop().create_task(found.run())
    try:
        await until(lambda: found.is_connected, "the line")
        await until(lambda: "iris/v3" in found.shared.weights, "its weights")
        yield found, page, topic
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)
        page.close()


def stop_while(bootstrap: str, topic: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Hold up the event loop, while others write."""

    def write() -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        for key, value in messages:
            producer.produce(topic, value, key, partition=0)
            producer.flush(PATIENCE_S)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(STOP_S)  # the stop under test: the event loop stands still
    thread.join()


def told(message: Message) -> tuple[bytes, bytes]:
    """Return a message of the group as it is in the topic."""
    return whole_key("g", message), encode(message)


@contextmanager
def seen_weights(page: ControlPage) -> Iterator[set[int]]:
    """Give every weight of v3 that the page has until the block ends; looks each millisecond."""
    found: set[int] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.001):
            found.add(page.read().routes["iris"].candidates["v3"].weight_bp)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


async def test_what_is_over_by_then_is_not_put_on_the_page(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """A weight that was raised and taken back meanwhile is never live here; a kill is, at once."""
    async with replica(kafka_bootstrap, tmp_path) as (found, page, topic):
        revision = found.shared.weights["iris/v3"].revision
        rise = Weight("iris", "v3", 2_000, -1, revision + 1, 0, OTHER)
        fall = replace(rise, weight_bp=100, revision=revision + 2)
        kill = Kill("iris/v2", int(Part.DEFAULT), 1, adds=True, origin=OTHER)
        lead = Lead(found.shared.term + 1, OTHER)
        with seen_weights(page) as seen:
            later = [told(lead), told(kill), told(fall)]
            stop_while(kafka_bootstrap, topic, [told(rise), FILLER, FILLER, *later])
            assert "is cut off" in found.refusal()
            assert not found.leads
            await until(lambda: found.is_connected, "the line again")
            state = page.read().routes["iris"].candidates
        assert state["v3"].weight_bp == 100
        assert seen <= {0, 100}
        assert state["v2"].killed == Part.DEFAULT
        assert found.leader == "b"


async def test_a_kill_that_was_given_to_it_meanwhile_is_told_though_it_was_revived_elsewhere(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """The revive has not seen it: everybody is killed in the end."""
    async with replica(kafka_bootstrap, tmp_path) as (found, page, topic):
        kill = Kill("*", int(Part.DEFAULT), 1, adds=True, origin=OTHER)
        revive = Kill("*", 0, 2, adds=False, origin=OTHER)
        update(page, lambda before: replace(before, killed=Part.CANARY, notes={"*": "given here"}))
        stop_while(kafka_bootstrap, topic, [told(kill), told(revive)])
        await until(lambda: found.shared.killed_parts("*") == Part.CANARY, "the kill of here")
        await until(lambda: not found.is_under_way("*"), "all of it")
        assert page.read().killed == Part.CANARY
