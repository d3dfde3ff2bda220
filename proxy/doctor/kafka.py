"""Whether Kafka will take the pairs: a broker, the topics, their leaders, the right to write.

Nothing is written and no topic is made, not by accident either: topics are listed all at once.
"""

from __future__ import annotations

from typing import Final

from proxy.config.resolved import Kafka
from proxy.doctor.findings import Finding, Level, ok
from proxy.errors import ConfigError
from proxy.kafka.cluster import Access, Cluster, ClusterError, Topic, connect
from proxy.recorder.sink import DECISIONS_TOPIC, LABELS_TOPIC, PAIRS_TOPIC
from proxy.recorder.topics import CLEANUP, COMPACT
from proxy.replicas.messages import STATE_TOPIC

#: For one question; there are a handful.
CALL_S: Final = 4.0
_TOPICS: Final = {PAIRS_TOPIC: "pairs", LABELS_TOPIC: "labels", DECISIONS_TOPIC: "decisions"}
#: Joined by request id, partition by partition.
_JOINED: Final = (PAIRS_TOPIC, LABELS_TOPIC)
_MEND_TOPIC: Final = "run `understudy topics create`"


async def kafka_findings(kafka: Kafka, *, has_replicas: bool = False) -> list[Finding]:
    """Return what there is to know about the Kafka of `record.kafka`; and of replicas, if there are."""
    servers = ", ".join(kafka.bootstrap_servers)
    why = "pairs wait in the journal until the disk budget is used up"
    try:
        async with connect(kafka, call_s=CALL_S) as cluster:
            brokers, there = await cluster.brokers(), await cluster.topics()
            reached = f"{brokers} {'broker answers' if brokers == 1 else 'brokers answer'}"
            found = [ok("kafka", servers, reached)]
            for name, what in _TOPICS.items():
                found += await _topic(cluster, f"{kafka.topic_prefix}.{name}", what, there)
            if has_replicas:
                found += await _states(cluster, f"{kafka.topic_prefix}.{STATE_TOPIC}", there)
    except ConfigError as exc:
        return [Finding("kafka", servers, Level.FAULT, str(exc), why, "mend record.kafka.options")]
    except ClusterError as exc:
        mend = (
            "ask for the right user, or mend record.kafka.options"
            if exc.is_refusal
            else "start the broker, or mend record.kafka.bootstrap_servers"
        )
        return [Finding("kafka", servers, Level.FAULT, str(exc), why, mend)]
    return found + _widths(kafka, there)


async def _topic(cluster: Cluster, name: str, what: str, there: dict[str, Topic]) -> list[Finding]:
    bad = Level.FAULT if name.endswith(PAIRS_TOPIC) else Level.WARNING
    why = f"{what} wait on the disk"
    access = await cluster.can_write(name)
    if access is Access.DENIED:
        mend = f"grant the right Write (and Describe) on the topic {name} to this user"
        return [Finding("topic", name, bad, "we may not write to it", why, mend)]
    topic = there.get(name)
    if topic is None or access is Access.NO_TOPIC:
        told = "does not exist, or we may not describe it"
        return [
            Finding(
                "topic",
                name,
                bad,
                told,
                f"{why} unless the broker makes topics by itself",
                _MEND_TOPIC,
            )
        ]
    if topic.offline:
        told = f"{topic.offline} of {topic.partitions} partitions have no leader"
        return [Finding("topic", name, bad, told, why, "bring the missing brokers back")]
    rights = (
        "we may write to it" if access is Access.ALLOWED else "whether we may write is not known"
    )
    told = f"{topic.partitions} partitions, {topic.replication_factor} replicas; {rights}"
    if topic.replication_factor == 1:
        return [
            Finding("topic", name, Level.WARNING, told, "the loss of one broker loses records",
                    "give it two replicas or more (`understudy topics create` does where it can)")
        ]  # fmt: skip
    return [ok("topic", name, told)]


async def _states(cluster: Cluster, name: str, there: dict[str, Topic]) -> list[Finding]:
    """Look at the topic through which replicas agree."""
    why = "this replica cannot join the others: it is on its own, and raises no weight"
    topic, told, mend = there.get(name), "", _MEND_TOPIC
    if topic is None:
        told = "does not exist, or we may not describe it"
    elif topic.partitions != 1:
        told = f"has {topic.partitions} partitions, not 1: replicas would read it in another order each"
        mend = f"delete it, and {_MEND_TOPIC}"
    elif await cluster.can_write(name) is Access.DENIED:
        told = "we may not write to it"
        mend = (
            f"grant the rights Read, Write and Describe on the topic {name}, and Read on its group"
        )
    if told:
        return [Finding("topic", name, Level.FAULT, told, why, mend)]
    cleanup = (await cluster.settings([name])).get(name, {}).get(CLEANUP, COMPACT)
    if cleanup != COMPACT:
        lost = "what replicas agreed on is deleted with time, or never shrinks"
        mend = f"set {CLEANUP}={COMPACT} (kafka-configs.sh --alter)"
        return [Finding("topic", name, Level.FAULT, f"{CLEANUP} is {cleanup}", lost, mend)]
    return [ok("topic", name, "1 partition, compacted; we may write to it")]


def _widths(kafka: Kafka, there: dict[str, Topic]) -> list[Finding]:
    """Compare the partitions of pairs and labels: whoever joins them counts on the same number."""
    pairs, labels = (there.get(f"{kafka.topic_prefix}.{name}") for name in _JOINED)
    if pairs is None or labels is None or pairs.partitions == labels.partitions:
        return []
    return [
        Finding(
            "topic", labels.name, Level.WARNING,
            f"{labels.partitions} partitions, where {pairs.name} has {pairs.partitions}",
            "stream processors cannot join the two without copying one",
            "make it anew with as many (`understudy topics create`)",
        )
    ]  # fmt: skip
