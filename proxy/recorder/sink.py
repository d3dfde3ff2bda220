"""What a sink of pairs is, whichever kind: the words and the contract, no I/O.

A sink takes whole batches and returns when every pair of one is safe or given up with a reason.
While its far end is down it waits and retries for ever: the journal is the buffer, and it is the
caller that ends the wait by cancelling.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from proxy.config.resolved import Config, Fsync

#: The topics of pair records, labels and decisions, behind the configured prefix (DESIGN section 5).
PAIRS_TOPIC = "pairs.v1"
LABELS_TOPIC = "labels.v1"
DECISIONS_TOPIC = "decisions.v1"


class Pair(NamedTuple):
    """One pair, ready to be shipped: the record as JSON, and what sinks need beside it.

    Attributes:
        span_id: of the exchange; None in what an older version journaled.
        trace_sampled: the client's trace is sampled.
    """

    pair_id: str
    request_id: str
    trace_id: str
    instance: str
    ts: str
    ts_ms: int
    value: bytes
    span_id: str | None = None
    trace_sampled: bool | None = False


class Message(Protocol):
    """What every sink needs of what it ships: a pair, a label, or a decision."""

    @property
    def request_id(self) -> str:
        """The key."""
        ...

    @property
    def ts_ms(self) -> int:
        """When it happened, milliseconds since the epoch."""
        ...

    @property
    def value(self) -> bytes:
        """The record as JSON, without a newline."""
        ...


class SinkState(StrEnum):
    """How a sink is doing, in one word that an operator can act on."""

    CONNECTING = "connecting"
    OK = "ok"
    BROKER_DOWN = "broker_down"
    STUCK = "stuck"
    SLOW = "slow"
    STARVED = "starved"
    THROTTLED = "throttled"
    TOPIC_MISSING = "topic_missing"
    UNAUTHENTICATED = "unauthenticated"
    UNAUTHORIZED = "unauthorized"
    TLS_FAILED = "tls_failed"
    RETRYING = "retrying"
    MISCONFIGURED = "misconfigured"
    DISK_ERROR = "disk_error"
    CLOSED = "closed"


class Drop(StrEnum):
    """Why a pair that was journaled is not in the sink.

    `rejected`: its line cannot be expanded. `too_large`, `refused`: the broker will never take it;
    it was split out of its batch. `journal_full`: the disk budget was used up before it was read.
    """

    REJECTED = "rejected"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    JOURNAL_FULL = "journal_full"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """A sink's state, what is wrong and why, and how to mend it; empty when all is well."""

    state: SinkState
    message: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a batch: acknowledged plus dropped is its length."""

    acknowledged: int
    dropped: Mapping[Drop, int] = field(default_factory=dict)


class Sink(Protocol):
    """Where pairs go."""

    @property
    def name(self) -> str:
        """Say what kind of sink it is, and where: for status and logs."""
        ...

    @property
    def status(self) -> SinkStatus:
        """Say how the sink is doing now."""
        ...

    async def prepare(self) -> None:
        """Try to be ready, and know it, while there is nothing to write; called when idle."""
        ...

    async def write(self, pairs: Sequence[Pair]) -> Delivery:
        """Return when every pair is acknowledged or given up.

        Cancelled, some pairs may be delivered although nobody is told: they will be sent again,
        under the same `pair_id`.
        """
        ...

    async def close(self) -> None:
        """Let all resources go, within a few seconds, whatever state the far end is in."""
        ...

    def statistics(self) -> Mapping[str, int]:
        """Return the sink's own counters by name."""
        ...


def open_sink(config: Config, index: int) -> Sink:
    """Return the sink that the config asks for.

    The module is imported here and not at the top: aiokafka is 20 MB that a sidecar which writes a
    local log should not carry.

    Raises:
        ConfigError: the Kafka options make no sense.
        StateError: the local log's directory cannot be used.
    """
    if config.record.kafka is not None:
        kafka = importlib.import_module("proxy.recorder.kafka")
        sink: Sink = kafka.KafkaSink(config.record.kafka)
        return sink
    local_log = importlib.import_module("proxy.recorder.local_log")
    directory = Path(config.state_dir) / "pairs"
    local: Sink = local_log.LocalLog(
        directory,
        index,
        disk_budget_bytes=config.limits.journal_disk_bytes,
        is_synced=config.journal.fsync is not Fsync.NONE,
    )
    return local
