"""What the client raises and logs becomes a word, a reason and a remedy."""

from __future__ import annotations

import logging
import ssl
from typing import Any, NamedTuple

import pytest
from aiokafka import errors

from proxy.kafka.log import ClientLog
from proxy.recorder.kafka_trouble import Target, diagnose
from proxy.recorder.kafka_watch import AnswerWatch
from proxy.recorder.sink import SinkState, SinkStatus

TARGET = Target("broker:9092", "shadow.pairs.v1")
BOOTSTRAP = errors.KafkaConnectionError("Unable to bootstrap")
LATE = TimeoutError("not acknowledged in time")


class ProduceResponse_v8(NamedTuple):  # noqa: N801 - as aiokafka calls it
    """An answer as the client reads it."""

    topics: list[tuple[str, list[tuple[Any, ...]]]]
    throttle_time_ms: int


def told(error: BaseException, *causes: BaseException) -> SinkStatus:
    """Return the diagnosis of `error`, with what was logged before."""
    return diagnose(error, causes, "", TARGET)


@pytest.mark.parametrize(
    ("error", "cause", "state"),
    [
        (BOOTSTRAP, ConnectionRefusedError(), SinkState.BROKER_DOWN),
        (BOOTSTRAP, ssl.SSLError("bad certificate"), SinkState.TLS_FAILED),
        (BOOTSTRAP, errors.SaslAuthenticationFailed(), SinkState.UNAUTHENTICATED),
        (BOOTSTRAP, errors.IllegalSaslStateError(), SinkState.UNAUTHENTICATED),
        (BOOTSTRAP, TimeoutError(), SinkState.STUCK),
        (LATE, errors.RequestTimedOutError(), SinkState.STUCK),
        (LATE, errors.KafkaConnectionError("closed"), SinkState.BROKER_DOWN),
        (LATE, errors.UnknownTopicOrPartitionError(), SinkState.TOPIC_MISSING),
        (LATE, errors.NotEnoughReplicasError(), SinkState.RETRYING),
        (LATE, errors.TopicAuthorizationFailedError("t"), SinkState.UNAUTHORIZED),
    ],
)
def test_what_the_client_met_decides_and_not_how_it_ended(
    error: BaseException, cause: BaseException, state: SinkState
) -> None:
    """Whoever calls the pager gets a sentence and a remedy."""
    found = told(error, cause)
    assert found.state is state
    assert found.message
    assert found.remedy


def test_what_a_certificate_did_to_a_connection_is_seen_behind_it() -> None:
    """A broker that wants a certificate hangs up after the handshake."""
    closed = errors.KafkaConnectionError("closed")
    closed.__cause__ = ssl.SSLError("certificate required")
    assert told(BOOTSTRAP, closed).state is SinkState.TLS_FAILED


def test_an_unknown_error_is_told_in_its_own_words() -> None:
    """And an error chain that bites its tail ends."""
    first, second = errors.KafkaError("first"), errors.KafkaError("second")
    first.__cause__, second.__cause__ = second, first
    found = told(first)
    assert (found.state, "first" in found.message) == (SinkState.RETRYING, True)


def test_the_log_keeps_errors_that_are_logged_as_their_class() -> None:
    """And takes a password in the clear for what the operator chose."""
    log = ClientLog()
    try:
        logger = logging.getLogger("aiokafka.producer")
        logger.warning("Sending username and password in the clear")
        assert log.latest == ""
        logger.warning("retrying. Error: %s", errors.UnknownTopicOrPartitionError)
        assert [type(cause) for cause in log.causes] == [errors.UnknownTopicOrPartitionError]
    finally:
        log.close()


def test_an_invalid_record_is_told_apart_from_other_unknown_errors() -> None:
    """The client knows neither it nor the quota; each is asked for once."""
    answer = ProduceResponse_v8
    watch = AnswerWatch()
    watch.look(answer([("t", [(0, 0, 5), (3, 87, -1)])], 250))
    assert (watch.throttle_ms, watch.is_invalid(0)) == (250, False)
    assert (watch.is_invalid(3), watch.is_invalid(3)) == (True, False)
    watch.look(answer([], 0))
    assert (watch.throttle_ms, watch.throttled_ms) == (0, 250)


def test_the_library_stays_quiet_until_the_last_who_listens_has_gone() -> None:
    """A look at the cluster beside a client must not fill the launcher's log from then on."""
    logger = logging.getLogger("aiokafka")
    first, second = ClientLog(), ClientLog()
    second.close()
    assert not logger.propagate
    first.close()
    assert logger.propagate
