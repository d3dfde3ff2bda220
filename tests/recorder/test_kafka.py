"""Through a real broker: every pair arrives, whatever the broker or the recorder go through."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from proxy.config.resolved import Kafka
from proxy.journal.segments import Shipped, load_shipped
from proxy.recorder.kafka import BATCH_BYTES
from proxy.recorder.sink import Delivery, Drop, SinkState
from proxy.telemetry import wall_ns
from tests.recorder.kafka_sinks import PATIENT, SHORT, library_tasks, opened, until, until_ok
from tests.recorder.support import (
    config_for,
    journal,
    pair,
    recorder,
    statistics,
    stop,
    wait_for_acknowledged,
)
from tests.support.dataplane import until as wait_until
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.kafka import Broker
from tests.support.kafka_topics import consume, create_topic


@pytest.mark.kafka
def test_every_journaled_pair_arrives_once(
    kafka_bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    """With the request id as key, CloudEvents headers and the record as plain JSON."""
    config = config_for(tmp_path, kafka=Kafka((kafka_bootstrap,), prefix, {}))
    journal(config, range(2_000))
    journal(config, range(500), worker=1)
    with recorder(config) as process:
        found = wait_for_acknowledged(config, 2_500)
        assert stop(process) == (0, b"")

    messages = consume(kafka_bootstrap, f"{prefix}.pairs.v1", 2_500)
    records = [orjson.loads(message.value() or b"") for message in messages]
    assert len(records) == len({record["pair_id"] for record in records}) == 2_500
    for message, record in zip(messages, records, strict=True):
        assert message.key() == record["request_id"].encode()
        assert message.timestamp()[1] == record["ts_ms"]
        headers = dict(message.headers() or [])
        assert headers["ce_id"] == record["pair_id"].encode()
        assert headers["ce_type"] == b"understudy.pair.v1"
    assert len({message.partition() for message in messages}) > 1
    assert (found["state"], found["message"]) == ("ok", "")
    assert found["backlog_bytes"] == 0


@pytest.mark.kafka
def test_an_idle_recorder_knows_its_broker(
    kafka_bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    """`status` says ok, or why not, before the first pair; it stops in time with pairs in hand."""
    config = config_for(tmp_path, kafka=Kafka((kafka_bootstrap,), prefix, {}))
    with recorder(config) as process:
        wait_for(lambda: statistics(config).get("state") == "ok", "the broker to be found")
        assert stop(process) == (0, b"")
    nobody = config_for(tmp_path, kafka=Kafka(("127.0.0.1:1",), prefix, {}))
    journal(nobody, range(500))
    with recorder(nobody) as process:
        wait_for(lambda: statistics(nobody).get("state") == "broker_down", "a word about it")
        assert "127.0.0.1:1" in statistics(nobody)["message"]
        assert "start it" in statistics(nobody)["remedy"]
        assert stop(process) == (0, b"")
    assert load_shipped(tmp_path / "journal" / "worker-0") == Shipped(), "it has given nothing up"


@pytest.mark.kafka
def test_a_killed_recorder_loses_nothing(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """What it had sent and not committed comes again, under the same id."""
    config = config_for(tmp_path, kafka=Kafka((kafka_bootstrap,), prefix, {}))
    journal(config, range(8_000))
    worker = tmp_path / "journal" / "worker-0"
    with recorder(config) as process:
        wait_for(lambda: load_shipped(worker).accounts.get("acknowledged"), "some progress")
        process.kill()
    journal(config, range(8_000, 8_100))  # where this test was slow, the first one has shipped all
    with recorder(config) as process:
        found = wait_for_acknowledged(config, 8_100)
        assert stop(process)[0] == 0
    assert found["acknowledged"] == found["journaled_read"] == 8_100

    messages = consume(kafka_bootstrap, f"{prefix}.pairs.v1", 8_100)
    ids = [orjson.loads(message.value() or b"")["pair_id"] for message in messages]
    assert len(set(ids)) == 8_100


@pytest.mark.real_kafka
async def test_a_frozen_broker_is_told_apart_and_outlived(own_broker: Broker, prefix: str) -> None:
    """Stuck clients are thrown away whole; thawed, the broker has every pair."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic)
    async with (
        opened(own_broker.bootstrap, prefix, deadlines=SHORT) as sink,
        asyncio.TaskGroup() as group,
    ):
        await sink.write([pair(number) for number in range(100)])
        own_broker.freeze()
        try:
            writing = group.create_task(
                sink.write([pair(number, 5_000) for number in range(100, 1_000)])
            )
            await until(sink, SinkState.STUCK)
            while sink.statistics()["clients"] < 3:  # noqa: ASYNC110 - a counter is no event
                await asyncio.sleep(0.05)
            assert not writing.done()
        finally:
            own_broker.thaw()
        async with asyncio.timeout(PATIENCE_S):
            assert await writing == Delivery(900)
        # The thawed broker may take its time for the first ones.
        await until_ok(sink, pair(0))
    await wait_until(lambda: not library_tasks(), "the client's tasks to end")
    messages = consume(own_broker.bootstrap, topic, 1_000)
    assert len({message.key() for message in messages}) == 1_000


@pytest.mark.real_kafka
async def test_a_missing_topic_is_named_and_used_once_it_exists(
    own_broker: Broker, prefix: str
) -> None:
    """With the command that creates it."""
    soon = replace(PATIENT, request_s=1)  # so long is looked for it
    async with (
        opened(own_broker.bootstrap, prefix, deadlines=soon) as sink,
        asyncio.TaskGroup() as group,
    ):
        writing = group.create_task(sink.write([pair(1)]))
        await until(sink, SinkState.TOPIC_MISSING)
        assert f"{prefix}.pairs.v1" in sink.status.message
        assert "topics create" in sink.status.remedy
        create_topic(own_broker.bootstrap, f"{prefix}.pairs.v1")
        assert await writing == Delivery(1)
        assert sink.status.state is SinkState.OK


@pytest.mark.real_kafka
async def test_a_pair_that_no_broker_takes_is_dropped_and_counted(
    own_broker: Broker, prefix: str
) -> None:
    """The others of its batch arrive, in smaller batches."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic, 1)
    huge = pair(500)._replace(value=os.urandom(1_500_000))
    pairs = [*(pair(number, 2_000) for number in range(100)), huge, pair(501)]
    async with opened(own_broker.bootstrap, prefix) as sink:
        async with asyncio.timeout(PATIENCE_S):
            assert await sink.write(pairs) == Delivery(101, {Drop.TOO_LARGE: 1})
        assert await sink.write([pair(502)]) == Delivery(1)
        assert sink.statistics()["batch_bytes"] == BATCH_BYTES, (
            "the pair was to blame, not its batch"
        )
    messages = consume(own_broker.bootstrap, topic, 102)
    assert {m.key() for m in messages} == {
        p.request_id.encode() for p in [*pairs[:100], pair(501), pair(502)]
    }


@pytest.mark.real_kafka
async def test_a_topic_of_small_messages_gets_small_batches(
    own_broker: Broker, prefix: str
) -> None:
    """Then no pair is to blame: nothing is dropped, and the next batch is as small."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic, 1, {"max.message.bytes": "150000"})
    pairs = [pair(n)._replace(value=os.urandom(2_000)) for n in range(300)]
    async with opened(own_broker.bootstrap, prefix) as sink, asyncio.timeout(PATIENCE_S):
        assert await sink.write(pairs) == Delivery(300)
        built = sink.statistics()["clients"]
        assert await sink.write(pairs[:150]) == Delivery(150)
        assert sink.statistics()["clients"] == built
    assert len(consume(own_broker.bootstrap, topic, 450)) >= 450


@pytest.mark.real_kafka
async def test_a_pair_that_the_topic_refuses_does_not_block_the_rest(
    own_broker: Broker, prefix: str
) -> None:
    """Such as one from before an outage that is older than the topic takes."""
    topic = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, topic, 1, {"message.timestamp.before.max.ms": "3600000"})
    now_ms = wall_ns() // 1_000_000
    fresh = [pair(number)._replace(ts_ms=now_ms) for number in range(40)]
    pairs = [*fresh[:20], pair(100), *fresh[20:]]
    async with opened(own_broker.bootstrap, prefix) as sink, asyncio.timeout(PATIENCE_S):
        assert await sink.write(pairs) == Delivery(40, {Drop.REFUSED: 1})
        assert sink.status.state is SinkState.OK
    messages = consume(own_broker.bootstrap, topic, 40)
    assert {m.key() for m in messages} == {p.request_id.encode() for p in fresh}
