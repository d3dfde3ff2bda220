"""Decisions reach their topic, whatever Kafka or the recorder go through, and are all accounted for."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from confluent_kafka import Message

from proxy.config.resolved import Config, Kafka
from proxy.recorder.decision_reader import DecisionReader
from proxy.recorder.sink import Drop
from proxy.state import decision_files, decisions
from proxy.state.decision_files import old_files, shipped
from proxy.state.decision_record import Decision, json_schema
from tests.recorder.support import config_for, recorder, stop
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.kafka import Broker
from tests.support.kafka_topics import consume, create_topic
from tests.support.resolved_config import write_config

GIB = 2**30


def decide(state_dir: Path, numbers: range) -> None:
    """Log a decision per number."""
    for number in numbers:
        scope = "*" if number % 2 else "iris/v2"
        decisions.append(
            state_dir, Decision(number, "weight", "ann", "test", scope, 0, number, "a test")
        )


def wait_for_shipped(config: Config, seq: int, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Return the durable accounts once all decisions up to a number are done."""
    state_dir = Path(config.state_dir)
    done = lambda: shipped(state_dir) if shipped(state_dir).get("seq", 0) >= seq else {}  # noqa: E731
    accounts: dict[str, Any] = wait_for(done, f"{seq} decisions shipped", timeout_s)["accounts"]
    return accounts


def said(config: Config) -> dict[str, Any]:
    """Return what the shipper last said of itself."""
    try:
        found: dict[str, Any] = orjson.loads(
            (Path(config.state_dir) / "decisions.json").read_bytes()
        )
    except FileNotFoundError:
        return {}
    return found


def record(message: Message) -> dict[str, Any]:
    """Return the record in a message."""
    found: dict[str, Any] = orjson.loads(message.value() or b"")
    return found


def test_a_reader_finds_its_place_by_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In windows, over files that are set aside meanwhile; nothing twice, nothing left out."""
    monkeypatch.setattr(decision_files, "FILE_BYTES", 2_500)
    reader = DecisionReader(tmp_path, 0)
    assert reader.read(GIB).messages == []
    seen: list[int] = []
    for start in range(1, 61, 5):
        decide(tmp_path, range(start, start + 5))
        while (batch := reader.read(1_000)).messages:
            seen += [orjson.loads(each.value)["new"] for each in batch.messages]
            assert not batch.lost.total()
    assert seen == list(range(1, 61))
    again = DecisionReader(tmp_path, 37).read(GIB)
    assert [orjson.loads(each.value)["seq"] for each in again.messages] == list(range(38, 61))
    assert (again.seq, again.messages[0].request_id, again.messages[1].request_id) == (
        60, "iris", "*",
    )  # fmt: skip


def test_a_reader_misses_nothing_while_files_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is renamed between the list and the look is no loss."""
    monkeypatch.setattr(decision_files, "FILE_BYTES", 1_500)
    monkeypatch.setattr(decision_files, "FILES_KEPT", 1_000)
    fork = multiprocessing.get_context("fork")
    writer = fork.Process(target=decide, args=(tmp_path, range(1, 401)))
    writer.start()
    reader, seen = DecisionReader(tmp_path, 0), 0
    try:
        while seen < 400:
            batch = reader.read(GIB)
            assert batch.lost == {}
            seen += len(batch.messages)
    finally:
        writer.join(PATIENCE_S)
    assert seen == 400


def test_what_a_reader_misses_is_counted_by_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest file was given up before it was shipped; a line in another one was overwritten."""
    monkeypatch.setattr(decision_files, "FILE_BYTES", 2_500)
    decide(tmp_path, range(1, 31))
    (first, gone), (_, damaged), *_ = old_files(tmp_path)
    gone.unlink()
    lines = damaged.read_bytes().splitlines(keepends=True)
    lines[1] = b"x" * (len(lines[1]) - 1) + b"\n"
    damaged.write_bytes(b"".join(lines))
    batch = DecisionReader(tmp_path, 0).read(GIB)
    assert batch.lost == {Drop.JOURNAL_FULL: first, Drop.DAMAGED: 1}
    assert len(batch.messages) + batch.lost.total() == batch.seq == 30


@pytest.mark.kafka
def test_decisions_go_to_their_topic_by_experiment(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Those of before the recorder and those while it runs, as the log has them, with their headers."""
    prefix = f"decisions-{uuid.uuid4().hex[:8]}"
    for name in ("pairs", "decisions"):
        create_topic(kafka_bootstrap, f"{prefix}.{name}.v1")
    config = config_for(tmp_path, kafka=Kafka((kafka_bootstrap,), prefix, {}))
    write_config(config)
    (tmp_path / "runtime.json").write_bytes(orjson.dumps({"config_version": config.version}))
    decide(tmp_path, range(1, 11))
    with recorder(config) as process:
        wait_for_shipped(config, 10)
        decide(tmp_path, range(11, 16))
        assert wait_for_shipped(config, 15) == {"acknowledged": 15}
        assert stop(process)[0] == 0
    assert said(config)["state"] == "ok"
    messages = sorted(
        consume(kafka_bootstrap, f"{prefix}.decisions.v1", 15), key=lambda m: record(m)["seq"]
    )
    log = decisions.read_last(tmp_path, 100)[::-1]
    assert [record(message) for message in messages] == log
    for message in messages:
        jsonschema.validate(record(message), json_schema())
    assert {m.key() for m in messages} == {b"iris", b"*"}
    headers = dict(messages[0].headers() or ())
    assert headers == {
        "ce_specversion": b"1.0", "ce_type": b"understudy.decision.v1",
        "ce_id": log[0]["decision_id"].encode(), "ce_time": log[0]["ts"].encode(),
        "ce_source": b"/understudy/test", "content-type": b"application/json; charset=UTF-8",
    }  # fmt: skip


@pytest.mark.real_kafka
def test_kafka_away_and_back_costs_no_decision(
    own_broker: Broker, prefix: str, tmp_path: Path
) -> None:
    """The topic is missing, then a recorder is killed; afterwards all are there, in their order.

    `UNDERSTUDY_CHAOS_S=1` also kills the broker midway.
    """
    create_topic(own_broker.bootstrap, f"{prefix}.pairs.v1")
    config = config_for(tmp_path, kafka=Kafka((own_broker.bootstrap,), prefix, {}))
    decide(tmp_path, range(1, 101))
    with recorder(config) as process:
        wait_for(lambda: said(config).get("state") == "topic_missing", "its word")
        assert shipped(tmp_path) == {}
        process.kill()
    count = 100
    with recorder(config) as process:
        create_topic(own_broker.bootstrap, f"{prefix}.decisions.v1", partitions=1)
        wait_for_shipped(config, count)
        if os.environ.get("UNDERSTUDY_CHAOS_S"):  # restarting the broker takes half a minute
            own_broker.kill()
            decide(tmp_path, range(101, 201))
            wait_for(lambda: said(config)["state"] != "ok", "trouble")
            own_broker.start()
            count = 200
            wait_for_shipped(config, count, 90)
        assert stop(process)[0] == 0
    messages = consume(own_broker.bootstrap, f"{prefix}.decisions.v1", count)
    assert [record(m)["new"] for m in messages] == list(range(1, count + 1))
    assert shipped(tmp_path)["accounts"] == {"acknowledged": count}


def test_without_kafka_the_log_is_all_there_is(tmp_path: Path) -> None:
    """Nothing is shipped, and nothing waits."""
    config = config_for(tmp_path)
    decide(tmp_path, range(1, 4))
    with recorder(config) as process:
        wait_for((tmp_path / "recorder-0.json").exists, "the recorder")
        assert stop(process)[0] == 0
    assert shipped(tmp_path) == {}
    assert said(config) == {}
