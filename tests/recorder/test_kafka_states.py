"""Each trouble with a real broker has a word of its own, a reason and a remedy, and passes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from proxy.recorder import priority
from proxy.recorder.kafka import KafkaSink
from proxy.recorder.sink import Delivery, SinkState
from tests.recorder.kafka_sinks import PATIENT, SHORT, opened, until, until_ok
from tests.recorder.support import pair
from tests.support.authority import Authority
from tests.support.deadline import PATIENCE_S
from tests.support.kafka import Broker
from tests.support.kafka_security import PASSWORD, allow, sasl
from tests.support.kafka_topics import create_topic

pytestmark = pytest.mark.real_kafka


async def refused(sink: KafkaSink, state: SinkState) -> tuple[str, str]:
    """Write until the sink is in `state`; return what it says then, and the remedy."""
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(sink.write([pair(1)]))
        await until(sink, state)
        found = sink.status  # as long as nothing else has happened
        writing.cancel()
    return found.message, found.remedy


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_who_one_is_and_what_one_may_are_told_apart(
    own_broker: Broker, prefix: str, mechanism: str
) -> None:
    """A wrong password, then a right one without rights, then with them."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic)
    address = own_broker.addresses["SASL"]
    async with opened(address, prefix, sasl(mechanism, "wr0ng")) as sink:
        message, remedy = await refused(sink, SinkState.UNAUTHENTICATED)
        assert address in message
        assert "wr0ng" not in message
        assert "sasl.password" in remedy
    async with opened(address, prefix, sasl(mechanism)) as sink:
        message, remedy = await refused(sink, SinkState.UNAUTHORIZED)
        assert topic in message
        assert f"--topic {topic}" in remedy
        assert PASSWORD not in message + remedy
        allow(own_broker, topic, "WRITE", "DESCRIBE")
        async with asyncio.timeout(PATIENCE_S):
            assert await sink.write([pair(1)]) == Delivery(1)
        assert sink.status.state is SinkState.OK


async def test_a_certificate_that_is_not_trusted_is_said_to_be_one(
    own_broker: Broker, prefix: str, authority: Authority
) -> None:
    """And TLS works when it is, alone and under SASL."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic)
    allow(own_broker, topic, "WRITE", "DESCRIBE")
    tls = {"security.protocol": "SSL"}
    trusting = {"ssl.ca.location": str(authority.ca_file)}
    async with opened(own_broker.addresses["TLS"], prefix, tls) as sink:
        message, remedy = await refused(sink, SinkState.TLS_FAILED)
        assert "certificate" in message.lower()
        assert "ssl.ca.location" in remedy
    async with opened(own_broker.bootstrap, prefix, tls | trusting) as sink:
        _, remedy = await refused(sink, SinkState.BROKER_DOWN)  # no TLS is spoken there
        assert "security.protocol" in remedy
    both = sasl("SCRAM-SHA-256") | {"security.protocol": "SASL_SSL"} | trusting
    for listener, options in (("TLS", tls | trusting), ("SASLTLS", both)):
        async with opened(own_broker.addresses[listener], prefix, options) as sink:
            assert await sink.write([pair(1)]) == Delivery(1)
            assert sink.status.state is SinkState.OK


async def test_a_broker_that_is_not_there_is_told_from_one_that_is_silent(prefix: str) -> None:
    """A closed port is known at once; an open one that says nothing after a deadline."""
    async with opened("127.0.0.1:1", prefix) as sink:
        message, remedy = await refused(sink, SinkState.BROKER_DOWN)
        assert "127.0.0.1:1" in message
        assert "bootstrap_servers" in remedy

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with opened(f"{host}:{port}", prefix, deadlines=SHORT) as sink:
            await refused(sink, SinkState.STUCK)


async def test_a_slow_broker_is_told_while_it_is_slow(
    own_broker: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands still for a while is slow first; nothing is sent again for it."""
    # The machine of a test may have no processor for it, which would be told instead.
    monkeypatch.setattr(priority, "queued_s", lambda: None)
    create_topic(own_broker.bootstrap, f"{prefix}.pairs.v1")
    watchful = replace(PATIENT, slow_s=0.2)
    async with opened(own_broker.bootstrap, prefix, deadlines=watchful) as sink:
        await sink.write([pair(1)])
        own_broker.freeze()
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(sink.write([pair(2)]))
                await until(sink, SinkState.SLOW)
                own_broker.thaw()
        finally:
            own_broker.thaw()
        assert writing.result() == Delivery(1)
        assert "followers" in sink.status.remedy, "until one is quick again"
        await until_ok(sink, pair(3))
        assert sink.statistics()["clients"] == 1


async def test_a_recorder_without_a_processor_does_not_blame_the_broker(
    own_broker: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pairs wait, and when the client is thrown away because nothing has come in time."""
    monkeypatch.setattr(priority, "queued_s", lambda: 0.0)
    create_topic(own_broker.bootstrap, f"{prefix}.pairs.v1")
    hasty = replace(PATIENT, slow_s=0.2, deliver_s=2.0)
    async with opened(own_broker.bootstrap, prefix, deadlines=hasty) as sink:
        await sink.write([pair(1)])
        own_broker.freeze()
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(sink.write([pair(2)]))
                await until(sink, SinkState.SLOW)
                monkeypatch.setattr(priority, "queued_s", lambda: 3_600.0)
                await until(sink, SinkState.STARVED)
                assert "3600.0 s for one" in sink.status.message
                assert "record.niceness" in sink.status.remedy
                failures = sink.statistics()["failures"]
                while sink.statistics()["failures"] == failures:  # noqa: ASYNC110 - a count is no event
                    await asyncio.sleep(0.02)
                assert sink.status.state is SinkState.STARVED
                own_broker.thaw()
        finally:
            own_broker.thaw()
        assert writing.result() == Delivery(1)


async def test_a_quota_is_named(own_broker: Broker, prefix: str) -> None:
    """Held back by its quota, everything arrives, and `status` says why it takes long."""
    create_topic(own_broker.bootstrap, f"{prefix}.pairs.v1", 1)
    limit = ("--alter", "--add-config", "producer_byte_rate=2000")
    own_broker.command(
        "kafka.admin.ConfigCommand", *limit, "--entity-type", "clients", "--entity-name", prefix
    )
    async with opened(own_broker.bootstrap, prefix, {"client.id": prefix}) as sink:
        async with asyncio.timeout(PATIENCE_S):
            noise = [pair(n)._replace(value=os.urandom(200)) for n in range(300)]
            assert await sink.write(noise) == Delivery(300)
        assert sink.status.state is SinkState.THROTTLED
        assert "producer_byte_rate" in sink.status.remedy
        assert sink.statistics()["throttled_ms"] > 0
