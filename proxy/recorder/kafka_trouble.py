"""What is wrong with Kafka, from the errors that its client raises and logs. Pure.

It decides the one word, the sentence and the remedy that an operator gets. The client itself hides
most of it: a refused password, an expired certificate and a closed port all end as "unable to
bootstrap", and only its log names the cause.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import errors

from proxy.recorder.sink import SinkState, SinkStatus
from proxy.recorder.starvation import Took, starved

_UNAUTHENTICATED: Final = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_UNAUTHORIZED: Final = (
    errors.TopicAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)
# TimeoutError is ours, and what the client logs of a connection that nobody answers.
_SILENT: Final = (TimeoutError, errors.KafkaTimeoutError, errors.RequestTimedOutError)
_UNREACHABLE: Final = (
    errors.KafkaConnectionError,
    errors.NoBrokersAvailable,
    errors.NodeNotReadyError,
    OSError,
)
_TOO_FEW_REPLICAS: Final = (
    errors.NotEnoughReplicasError,
    errors.NotEnoughReplicasAfterAppendError,
)
#: The broker will not take this batch, now or later: something in it is too large for the topic ...
TOO_LARGE: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.RecordTooLargeError,
)
#: ... or not what it allows, such as a time stamp older than `message.timestamp.before.max.ms`.
REFUSED: Final = (errors.InvalidTimestampError,)

#: How many errors behind an error are looked at; a chain may loop.
_MAX_CHAIN: Final = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Where the pairs go: the bootstrap servers as one text, and the topic."""

    servers: str
    topic: str


def diagnose(
    error: BaseException, causes: Sequence[BaseException], said: str, target: Target
) -> SinkStatus:
    """Return the state that `error` means, why, and how to mend it.

    Args:
        error: what ended an attempt.
        causes: what the client logged of it, the latest last.
        said: the last sentence of the client's log; may be empty.
        target: for the words.
    """
    every = [each for top in (error, *causes) for each in _chain(top)]
    detail = said or _words(error)
    if detail.endswith(": "):  # what was logged had no text, such as a reset in a TLS handshake
        detail += type(every[-1]).__name__
    for state, kinds in (
        (SinkState.TLS_FAILED, (ssl.SSLError,)),
        (SinkState.UNAUTHENTICATED, _UNAUTHENTICATED),
        (SinkState.UNAUTHORIZED, _UNAUTHORIZED),
    ):
        if any(isinstance(each, kinds) for each in every):
            return _status(state, detail, target)
    # A deadline of ours says only that it took too long; what the client met meanwhile says why.
    latest = causes[-1] if causes and isinstance(error, _SILENT) else error
    if isinstance(latest, errors.KafkaConnectionError) and causes:
        latest = causes[-1]
    if isinstance(latest, errors.UnknownTopicOrPartitionError):
        return _status(SinkState.TOPIC_MISSING, detail, target)
    if isinstance(latest, _SILENT):
        return _status(SinkState.STUCK, detail, target)
    if isinstance(latest, _TOO_FEW_REPLICAS):
        remedy = "bring replicas back until min.insync.replicas are in sync"
        return SinkStatus(SinkState.RETRYING, f"too few replicas are in sync: {detail}", remedy)
    if isinstance(latest, _UNREACHABLE):
        return _status(SinkState.BROKER_DOWN, detail, target)
    return SinkStatus(SinkState.RETRYING, detail)


def slow(waited: Took, target: Target) -> SinkStatus:
    """Return what is told of pairs that are acknowledged late: the broker is slow, or we are."""
    if waited.is_starved:
        return starved(waited)
    detail = f"the last pairs have waited {waited.all_s:.1f} s for their acknowledgement"
    return _status(SinkState.SLOW, detail, target)


def throttled(throttle_ms: int, target: Target) -> SinkStatus:
    """Return what is told of a broker that holds its client back for a quota (KIP-13)."""
    detail = f"a quota is used up: it holds our requests back, the last by {throttle_ms:,} ms"
    return _status(SinkState.THROTTLED, detail, target)


_MESSAGES: Final = {
    SinkState.BROKER_DOWN: "no broker at {servers} can be reached: {detail}",
    SinkState.STUCK: "{servers} takes connections and does not answer in time: {detail}",
    SinkState.SLOW: "{servers} is slow: {detail}",
    SinkState.THROTTLED: "{servers} is out of quota for us: {detail}",
    SinkState.TOPIC_MISSING: "topic {topic} does not exist and the broker does not create it",
    SinkState.UNAUTHENTICATED: "{servers} refuses who we say we are: {detail}",
    SinkState.UNAUTHORIZED: "{servers} does not allow this user to write to {topic}: {detail}",
    SinkState.TLS_FAILED: "no TLS connection to {servers}: {detail}",
}
_REMEDIES: Final = {
    SinkState.BROKER_DOWN: "start it, or mend record.kafka.bootstrap_servers, security.protocol (one "
    "that the listener does not speak is hung up on), the network or its advertised.listeners",
    SinkState.STUCK: "look at the broker: stopped, swapping, or its disk hangs; a new client is "
    "tried meanwhile",
    SinkState.SLOW: "look at the disk and the load of the broker and of its followers",
    SinkState.THROTTLED: "raise producer_byte_rate or request_percentage of this user or client.id "
    "(kafka-configs.sh --alter), or lower what is recorded",
    SinkState.TOPIC_MISSING: "run `understudy topics create`",
    SinkState.UNAUTHENTICATED: "mend sasl.username, sasl.password, sasl.mechanism and "
    "security.protocol in record.kafka.options",
    SinkState.UNAUTHORIZED: "let the user Write and Describe it "
    "(kafka-acls.sh --add --producer --topic {topic})",
    SinkState.TLS_FAILED: "mend ssl.ca.location, ssl.certificate.location and security.protocol in "
    "record.kafka.options, or the broker's certificate",
}


def _status(state: SinkState, detail: str, target: Target) -> SinkStatus:
    words = {"servers": target.servers, "topic": target.topic, "detail": detail}
    return SinkStatus(state, _MESSAGES[state].format_map(words), _REMEDIES[state].format_map(words))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    for _ in range(_MAX_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
