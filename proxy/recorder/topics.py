"""The topics that Understudy writes, and making them: what each needs, and what to mend.

It decides partitions, replicas and settings, and whether a topic that exists will do. It never
changes one that exists: more partitions move keys to other partitions, a shorter retention deletes
records, and both are the operator's to order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aiokafka import errors

from proxy.kafka.cluster import Cluster, Topic, Wanted
from proxy.recorder.sink import DECISIONS_TOPIC, LABELS_TOPIC, PAIRS_TOPIC
from proxy.replicas.messages import STATE_TOPIC
from proxy.telemetry import monotonic_s

#: Of the topic of states, so that a replica that joins reads little: what is rolled is compacted.
_STATE_SEGMENT: Final = {"segment.bytes": str(16 * 1024 * 1024), "segment.ms": "3600000"}

#: As many records as a day's pairs of a busy route are read side by side.
PARTITIONS: Final = 6
#: Replicas where there are as many brokers; acks=all then survives the loss of any one.
REPLICAS: Final = 3
RETENTION_S: Final = 7 * 86_400.0
_FOR_EVER: Final = "-1"
#: How long a topic may take to be known to the broker that is asked.
SETTLE_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.1
_EXISTS: Final = errors.TopicAlreadyExistsError

CLEANUP: Final = "cleanup.policy"
COMPACT: Final = "compact"
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
MIN_IN_SYNC: Final = "min.insync.replicas"


class Fate(StrEnum):
    """What became of a topic."""

    CREATED = "created"
    WOULD_CREATE = "would_create"
    EXISTS = "exists"
    DIFFERS = "differs"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator asked for; None: not asked, so a topic that exists may have any.

    Attributes:
        partitions: of the topics of pairs and labels.
        replication_factor: of all topics.
        retention_s: of pairs and labels.
        retention_bytes: of pairs and labels, per partition.
    """

    partitions: int | None = None
    replication_factor: int | None = None
    retention_s: float | None = None
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a topic has otherwise than it ought to; `mend` says what to run or do."""

    what: str
    wanted: str
    found: str
    mend: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one topic.

    Attributes:
        partitions, replication_factor: as they are, or would be.
        settings: what was asked for at its creation; empty for one that existed.
        differences: of a topic that existed.
        message: why it failed, or what could not be looked at.
    """

    topic: str
    fate: Fate
    partitions: int
    replication_factor: int
    settings: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    message: str = ""


async def make_topics(
    cluster: Cluster, prefix: str, asked: Asked, *, servers: str, is_rehearsal: bool
) -> list[Outcome]:
    """Create the topics that are missing, look at the others; return what became of each.

    Args:
        cluster: to ask.
        prefix: `record.kafka.topic_prefix`.
        asked: the operator's wishes.
        servers: the bootstrap servers, for the commands that mend.
        is_rehearsal: create nothing; the broker says whether it would.

    Raises:
        ClusterError: the cluster did not answer.
    """
    brokers, there = await cluster.brokers(), await cluster.topics()
    wanted = topics(prefix, asked, brokers)
    missing = [each for each in wanted if each.name not in there]
    refused = await cluster.create(missing, is_rehearsal=is_rehearsal) if missing else {}
    made = {name for name, (error, _) in refused.items() if error is None and not is_rehearsal}
    # Made a moment ago by somebody else, or not ours to see: only waiting tells.
    unseen = {name for name, (error, _) in refused.items() if error is _EXISTS}
    if made or unseen:
        there = {n: t for n, t in (await _settled(cluster, made | unseen)).items() if n not in made}
    settings = await cluster.settings(each.name for each in wanted if each.name in there)
    fate = Fate.WOULD_CREATE if is_rehearsal else Fate.CREATED
    found = []
    for each in wanted:
        if each.name in there:
            known = settings.get(each.name)
            found.append(_of_existing(each, there[each.name], known, asked, servers))
            continue
        error, words = refused.get(each.name, (None, ""))
        message = "" if error is None else _explained(error, words, each, brokers)
        found.append(
            Outcome(
                each.name, fate if error is None else Fate.FAILED, each.partitions,
                each.replication_factor, each.settings, message=message,
            )
        )  # fmt: skip
    return found


async def _settled(cluster: Cluster, names: set[str]) -> dict[str, Topic]:
    """Return all topics once `names` are among them, or after `SETTLE_S`.

    A controller answers before every broker has heard of a topic (KIP-500).
    """
    deadline_s = monotonic_s() + SETTLE_S
    there = await cluster.topics()
    while not names <= there.keys() and monotonic_s() < deadline_s:
        await asyncio.sleep(_LOOK_AGAIN_S)
        there = await cluster.topics()
    return there


def topics(prefix: str, asked: Asked, brokers: int) -> list[Wanted]:
    """Return the topics of `prefix` as they are made in a cluster of so many brokers.

    Pairs and labels have the same number of partitions, so that a request's pairs and labels lie in
    partitions of the same number and can be joined one by one.
    """
    replicas = asked.replication_factor or max(1, min(REPLICAS, brokers))
    retention_s = RETENTION_S if asked.retention_s is None else asked.retention_s
    lasting = {MIN_IN_SYNC: "2"} if replicas >= REPLICAS else {}
    records = {CLEANUP: "delete", RETENTION_MS: _milliseconds(retention_s), **lasting}
    if asked.retention_bytes is not None:
        records[RETENTION_BYTES] = str(asked.retention_bytes)
    by_name = {
        PAIRS_TOPIC: (asked.partitions or PARTITIONS, records),
        LABELS_TOPIC: (asked.partitions or PARTITIONS, records),
        # In the order they were taken, all of them, for ever: they are the audit.
        DECISIONS_TOPIC: (1, {CLEANUP: "delete", RETENTION_MS: _FOR_EVER, **lasting}),
        STATE_TOPIC: (1, {CLEANUP: COMPACT, **_STATE_SEGMENT, **lasting}),
    }
    return [
        Wanted(f"{prefix}.{name}", partitions, replicas, settings)
        for name, (partitions, settings) in by_name.items()
    ]


def _of_existing(
    wanted: Wanted,
    topic: Topic,
    settings: Mapping[str, str] | None,
    asked: Asked,
    servers: str,
) -> Outcome:
    found = [*_of_shape(wanted, topic, asked, servers)]
    if settings is not None:
        found += _of_settings(wanted, settings, asked, servers)
    return Outcome(
        wanted.name,
        Fate.DIFFERS if found else Fate.EXISTS,
        topic.partitions,
        topic.replication_factor,
        differences=tuple(found),
        message="" if settings is not None else "its settings are not ours to see",
    )


def _of_shape(wanted: Wanted, topic: Topic, asked: Asked, servers: str) -> Iterable[Difference]:
    is_single = wanted.name.endswith((DECISIONS_TOPIC, STATE_TOPIC))
    is_asked = asked.partitions is not None or is_single
    if is_asked and topic.partitions != wanted.partitions:
        mend = (
            f"kafka-topics.sh --bootstrap-server {servers} --alter --topic {wanted.name} "
            f"--partitions {wanted.partitions} (keys move to other partitions)"
            if topic.partitions < wanted.partitions
            else "partitions cannot be taken away: make the topic anew, or ask for "
            f"{topic.partitions}"
        )
        yield Difference("partitions", str(wanted.partitions), str(topic.partitions), mend)
    if asked.replication_factor not in (None, topic.replication_factor):
        yield Difference(
            "replication factor",
            str(wanted.replication_factor),
            str(topic.replication_factor),
            "kafka-reassign-partitions.sh, with a plan that names the replicas",
        )


def _of_settings(
    wanted: Wanted, settings: Mapping[str, str], asked: Asked, servers: str
) -> Iterable[Difference]:
    names = [CLEANUP]
    if not wanted.name.endswith((DECISIONS_TOPIC, STATE_TOPIC)):
        names += [RETENTION_MS] if asked.retention_s is not None else []
        names += [RETENTION_BYTES] if asked.retention_bytes is not None else []
    for name in names:
        value, found = wanted.settings[name], settings.get(name, "unknown")
        # `compact,delete` still compacts, and a topic of records that compacts loses some.
        if found != value:
            yield Difference(
                name,
                value,
                found,
                f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
                f"--entity-name {wanted.name} --add-config {name}={value}",
            )


def _explained(error: type[errors.KafkaError], words: str, wanted: Wanted, brokers: int) -> str:
    """Return why a topic was not made, and how to mend it."""
    if issubclass(error, errors.InvalidReplicationFactorError):
        return (
            f"replication factor {wanted.replication_factor} is more than the {brokers} "
            f"{'broker' if brokers == 1 else 'brokers'} there are; give --replication-factor "
            f"{brokers} or less"
        )
    if issubclass(
        error, errors.TopicAuthorizationFailedError | errors.ClusterAuthorizationFailedError
    ):
        return (
            "not authorised to create it: it needs the right Create on the topic or the cluster, "
            "or somebody else to make it"
        )
    if issubclass(error, _EXISTS):
        return "it exists, and is not ours to see: it needs the right Describe on the topic"
    if issubclass(error, errors.PolicyViolationError):
        return f"the cluster's policy forbids it: {words}"
    return words or error.__name__


def _milliseconds(duration_s: float) -> str:
    return str(round(duration_s * 1000)) if duration_s > 0 else _FOR_EVER
