"""Topics are made once, as asked, and what exists is looked at and never changed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from proxy.config.resolved import Kafka
from proxy.doctor.findings import Level
from proxy.doctor.kafka import kafka_findings
from proxy.kafka.cluster import Access, ClusterError, connect
from proxy.recorder.topics import Asked, Fate, Outcome, make_topics, topics
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.kafka import Broker
from tests.support.kafka_security import sasl

#: Everybody on the open listener may do everything; alice, at first, nothing at all.
ADMIN: dict[str, str] = {}
ALICE = sasl("PLAIN")


@pytest.fixture
def bootstrap(own_broker: Broker) -> str:
    """Return the address of the open listener."""
    return own_broker.bootstrap


async def make(
    bootstrap: str,
    prefix: str,
    asked: Asked,
    *,
    is_rehearsal: bool = False,
    user: dict[str, str] = ADMIN,
) -> dict[str, Outcome]:
    """Run once; return the outcomes by the end of the topic's name."""
    async with connect(Kafka((bootstrap,), prefix, user)) as cluster:
        found = await make_topics(
            cluster, prefix, asked, servers=bootstrap, is_rehearsal=is_rehearsal
        )
    return {each.topic.removeprefix(f"{prefix}."): each for each in found}


def settings(bootstrap: str, topic: str) -> dict[str, str]:
    """Return the settings of a topic as another client sees them."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (future,) = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(PATIENCE_S).items()}


def watermarks(consumer: Consumer, topic: str) -> tuple[int, int] | None:
    """Return where the first partition begins and ends; None while it has no leader."""
    with suppress(KafkaException):
        found: tuple[int, int] = consumer.get_watermark_offsets(TopicPartition(topic, 0), 5)
        return found
    return None


@pytest.mark.real_kafka
async def test_topics_are_made_once_with_what_was_asked(bootstrap: str, prefix: str) -> None:
    """A rehearsal makes none, a second run changes nothing, state is compacted."""
    asked = Asked(partitions=3, retention_s=3600, retention_bytes=2**20)
    rehearsed = await make(bootstrap, prefix, asked, is_rehearsal=True)
    assert {each.fate for each in rehearsed.values()} == {Fate.WOULD_CREATE}
    made = await make(bootstrap, prefix, asked)
    assert {each.fate for each in made.values()} == {Fate.CREATED}
    assert {name: (each.partitions, each.replication_factor) for name, each in made.items()} == {
        "pairs.v1": (3, 1), "labels.v1": (3, 1), "decisions.v1": (1, 1), "state.v1": (1, 1),
    }  # fmt: skip
    pairs, state = (settings(bootstrap, f"{prefix}.{n}.v1") for n in ("pairs", "state"))
    assert (pairs["retention.ms"], pairs["retention.bytes"]) == ("3600000", "1048576")
    assert state["cleanup.policy"] == "compact"
    assert settings(bootstrap, f"{prefix}.decisions.v1")["retention.ms"] == "-1"
    again = await make(bootstrap, prefix, asked)
    assert {each.fate for each in again.values()} == {Fate.EXISTS}


@pytest.mark.real_kafka
async def test_what_exists_is_never_changed_and_what_differs_is_said(
    bootstrap: str, prefix: str
) -> None:
    """With the command that mends it; what was not asked for may be as it is."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    fresh = [NewTopic(f"{prefix}.pairs.v1", 2, 1), NewTopic(f"{prefix}.state.v1", 1, 1)]
    for future in admin.create_topics(fresh).values():
        future.result(PATIENCE_S)
    found = await make(bootstrap, prefix, Asked())
    assert found["pairs.v1"].fate is Fate.EXISTS
    assert found["labels.v1"].fate is Fate.CREATED
    (cleanup,) = found["state.v1"].differences
    assert (cleanup.wanted, cleanup.found) == ("compact", "delete")
    assert f"--entity-name {prefix}.state.v1 --add-config cleanup.policy=compact" in cleanup.mend
    found = await make(bootstrap, prefix, Asked(4, 2, retention_s=60))
    unlike = {each.what: each for each in found["pairs.v1"].differences}
    assert set(unlike) == {"partitions", "replication factor", "retention.ms"}
    assert "--partitions 4" in unlike["partitions"].mend
    assert settings(bootstrap, f"{prefix}.state.v1")["cleanup.policy"] == "delete"


@pytest.mark.real_kafka
async def test_more_replicas_than_brokers_is_said_in_numbers(bootstrap: str, prefix: str) -> None:
    """Not in Kafka's words, and in a rehearsal already."""
    found = await make(bootstrap, prefix, Asked(replication_factor=3), is_rehearsal=True)
    assert {each.fate for each in found.values()} == {Fate.FAILED}
    message = found["pairs.v1"].message
    assert message.startswith("replication factor 3 is more than the 1 broker there are")


@pytest.mark.real_kafka
async def test_rights_are_told_before_anything_needs_them(
    own_broker: Broker, bootstrap: str, prefix: str
) -> None:
    """A user without rights creates nothing, and is told so; whether it may write is known, too."""
    guarded = own_broker.addresses["SASL"]
    found = await make(guarded, prefix, Asked(), user=ALICE)
    assert {each.fate for each in found.values()} == {Fate.FAILED}
    assert "needs the right Create" in found["pairs.v1"].message
    assert (await make(bootstrap, prefix, Asked()))["pairs.v1"].fate is Fate.CREATED
    topic = f"{prefix}.pairs.v1"
    for address, user, access in (
        (bootstrap, ADMIN, Access.ALLOWED), (guarded, ALICE, Access.DENIED),
    ):  # fmt: skip
        kafka = Kafka((address,), prefix, user)
        async with connect(kafka) as cluster:
            assert await cluster.can_write(topic) is access
            assert (topic in await cluster.topics()) == (access is Access.ALLOWED)
        faults = [each for each in await kafka_findings(kafka) if each.level is Level.FAULT]
        told = [(topic, "we may not write to it")] if access is Access.DENIED else []
        assert [(each.subject, each.what) for each in faults] == told
    with pytest.raises(ClusterError, match="refuses us") as caught:
        async with connect(Kafka((guarded,), prefix, sasl("PLAIN", "guessed"))):
            pass
    assert caught.value.is_refusal
    assert "guessed" not in str(caught.value)


@pytest.mark.real_kafka
async def test_asking_whether_one_may_write_writes_nothing(bootstrap: str, prefix: str) -> None:
    """The topic's end stays where it was."""
    await make(bootstrap, prefix, Asked())
    topic = f"{prefix}.pairs.v1"
    async with connect(Kafka((bootstrap,), prefix, ADMIN)) as cluster:
        assert await cluster.can_write(topic) is Access.ALLOWED
        assert await cluster.can_write(f"{prefix}.none.v1") is Access.NO_TOPIC
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": prefix})
    try:
        # A broker that has just made a topic leads it a moment later.
        ends = wait_for(lambda: watermarks(consumer, topic), "the topic's ends")
        assert ends == (0, 0)
    finally:
        consumer.close()


async def test_no_broker_is_told_in_time_and_by_its_address() -> None:
    """The client itself would only say that it cannot bootstrap."""
    with pytest.raises(ClusterError, match=r"broker at 127\.0\.0\.1:1: .*refused|Connect call"):
        async with connect(Kafka(("127.0.0.1:1",), "x", {}), call_s=2):
            pass


def test_three_brokers_get_three_replicas_and_survive_one() -> None:
    """With fewer, as many replicas as there are brokers."""
    by_name = {each.name: each for each in topics("p", Asked(), brokers=5)}
    assert by_name["p.pairs.v1"].replication_factor == 3
    assert by_name["p.pairs.v1"].settings["min.insync.replicas"] == "2"
    few = topics("p", Asked(retention_s=0), brokers=2)[0]
    assert (few.replication_factor, few.settings["retention.ms"]) == (2, "-1")
    assert "min.insync.replicas" not in few.settings
