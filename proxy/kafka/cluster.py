"""A Kafka cluster as an operator's command sees it: brokers, topics, settings, what we may do.

It asks and creates; what ought to be there is decided in `proxy.recorder.topics`, and what to make
of an answer by the commands. Connections are made as the recorder makes them, from the same
options. Every call has a deadline of ours, because the client retries some of them for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.produce import ProduceRequest

from proxy.config.resolved import Kafka
from proxy.errors import UnderstudyError
from proxy.kafka.log import ClientLog
from proxy.kafka.options import client_settings
from proxy.kafka.refusals import refusal_of

#: For one call to the cluster, connecting included.
CALL_S: Final = 10.0
_CLOSE_S: Final = 1.0

#: What the admin client does not take.
_PRODUCER_ONLY: Final = "compression_type"

_T = TypeVar("_T")


class ClusterError(UnderstudyError):
    """The cluster cannot be asked.

    Attributes:
        is_refusal: it is there and does not let us in.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class Access(StrEnum):
    """Whether we may do something to a topic."""

    ALLOWED = "allowed"
    DENIED = "denied"
    NO_TOPIC = "no_topic"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Topic:
    """What the cluster says of one topic; `offline` partitions have no leader."""

    name: str
    partitions: int
    replication_factor: int
    offline: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic that ought to be there; `settings` as Kafka names them."""

    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


class Cluster:
    """A connection to a cluster; made by `connect`."""

    def __init__(self, admin: AIOKafkaAdminClient, log: ClientLog, call_s: float) -> None:
        self._admin = admin
        self._log = log
        self._call_s = call_s

    async def brokers(self) -> int:
        """Return how many brokers there are.

        Raises:
            ClusterError: no answer in time.
        """
        return len((await self._ask(self._admin.describe_cluster()))["brokers"])

    async def topics(self) -> dict[str, Topic]:
        """Return every topic that we may describe, by name.

        Raises:
            ClusterError: no answer in time.
        """
        # All at once: asking for one by its name may create it.
        found = await self._ask(self._admin.describe_topics())
        return {each["topic"]: _topic(each) for each in found if not each["error_code"]}

    async def settings(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the settings of topics by name; those that we may not see are left out.

        Raises:
            ClusterError: no answer in time.
        """
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        answers = await self._ask(self._admin.describe_configs(resources))
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for answer in answers
            for code, _, _, name, entries in answer.resources
            if not code
        }

    async def create(
        self, topics: Sequence[Wanted], *, is_rehearsal: bool
    ) -> dict[str, tuple[type[errors.KafkaError] | None, str]]:
        """Create topics; return for each the error, None when it is there, and the broker's words.

        Args:
            topics: each with a name of its own.
            is_rehearsal: the broker checks everything, rights included, and creates nothing.

        Raises:
            ClusterError: no answer in time.
        """
        fresh = [
            NewTopic(t.name, t.partitions, t.replication_factor, None, dict(t.settings))
            for t in topics
        ]
        timeout_ms = int(self._call_s * 1000)
        answer = await self._ask(
            self._admin.create_topics(fresh, timeout_ms=timeout_ms, validate_only=is_rehearsal)
        )
        return {
            name: (errors.for_code(code) if code else None, (rest[0] if rest else "") or "")
            for name, code, *rest in answer.topic_errors
        }

    async def can_write(self, topic: str) -> Access:
        """Return whether we may write to `topic`, without writing.

        A request with no record in it is refused by every broker: for lack of a right first, for
        its emptiness only after that (`KafkaApis.handleProduceRequest`).

        Raises:
            ClusterError: no answer in time.
        """
        request = ProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=int(self._call_s * 1000),
            topics=[(topic, [(0, b"")])],
        )
        answer = await self._ask(self._send(request))
        code = answer.topics[0][1][0][1]
        if code == errors.TopicAuthorizationFailedError.errno:
            return Access.DENIED
        if code == errors.UnknownTopicOrPartitionError.errno:
            return Access.NO_TOPIC
        # INVALID_RECORD (87) from Kafka; CORRUPT_MESSAGE from brokers that look at the bytes first.
        is_past_rights = code in (87, errors.CorruptRecordException.errno)
        return Access.ALLOWED if is_past_rights else Access.UNKNOWN

    async def _send(self, request: ProduceRequest) -> Any:
        client = self._admin._client  # noqa: SLF001 - the admin client has no call for it
        return await client.send(client.get_random_node(), request)

    async def _ask(self, call: Awaitable[_T]) -> _T:
        try:
            return await asyncio.wait_for(call, self._call_s)
        except (errors.KafkaError, OSError, TimeoutError) as exc:
            raise _explained(exc, self._log, "the Kafka cluster") from exc


@asynccontextmanager
async def connect(kafka: Kafka, *, call_s: float = CALL_S) -> AsyncIterator[Cluster]:
    """Give a connection to the cluster of `record.kafka`.

    Raises:
        ConfigError: an option makes no sense.
        ClusterError: no broker answers, or it refuses us.
    """
    settings = client_settings(kafka.options)
    settings.pop(_PRODUCER_ONLY, None)
    settings |= {"request_timeout_ms": int(call_s * 1000)}
    log = ClientLog()
    admin = AIOKafkaAdminClient(
        bootstrap_servers=list(kafka.bootstrap_servers),
        **{"client_id": "understudy-command", **settings},
    )
    try:
        try:
            await asyncio.wait_for(admin.start(), call_s)
        except (errors.KafkaError, OSError, TimeoutError) as exc:
            raise _explained(exc, log, ", ".join(kafka.bootstrap_servers)) from exc
        yield Cluster(admin, log, call_s)
    finally:
        log.close()
        with suppress(errors.KafkaError, OSError, TimeoutError):
            await asyncio.wait_for(admin.close(), _CLOSE_S)


def _explained(error: BaseException, log: ClientLog, where: str) -> ClusterError:
    """Return what to tell of a failure; the client hides most causes in its log."""
    refusal = refusal_of(error, log)
    if refusal is not None:
        return ClusterError(
            f"{where} refuses us: {refusal}; look at security.protocol and sasl.* in "
            "record.kafka.options",
            is_refusal=True,
        )
    detail = log.latest or str(error) or "no answer in time"
    return ClusterError(f"cannot reach a Kafka broker at {where}: {detail}")


def _topic(found: Mapping[str, Any]) -> Topic:
    partitions = found["partitions"]
    return Topic(
        found["topic"],
        len(partitions),
        max((len(each["replicas"]) for each in partitions), default=0),
        sum(each["leader"] < 0 for each in partitions),
    )
