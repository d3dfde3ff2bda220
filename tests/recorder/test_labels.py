"""Labels reach their sink, whatever the sink or the recorder go through."""

from __future__ import annotations

import io
import os
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from confluent_kafka import Message

from proxy.config.resolved import Config, Kafka
from proxy.journal.label_journal import LabelJournal, label_journal
from proxy.journal.segments import load_shipped
from proxy.pairs.label import read_line
from tests.recorder.support import config_for, journal, recorder, stop, wait_for_acknowledged
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.kafka import Broker
from tests.support.kafka_topics import consume, create_topic

GIB = 2**30


def take(config: Config, numbers: range) -> None:
    """Journal a label per number, as control does."""
    writer = LabelJournal(Path(config.state_dir), GIB)
    lines = (orjson.dumps({"request_id": f"request-{n}", "label": n, "ts_ms": n}) for n in numbers)
    writer.append([read_line(line, 0).value for line in lines])
    writer.close()


def said(config: Config) -> dict[str, Any]:
    """Return what the shipper last said; empty before it has."""
    try:
        found: dict[str, Any] = orjson.loads((Path(config.state_dir) / "labels.json").read_bytes())
    except FileNotFoundError:
        return {}
    return found


def wait_for_labels(config: Config, count: int, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Return what was said once `count` labels are acknowledged."""
    return wait_for(
        lambda: said(config) if said(config).get("acknowledged", 0) >= count else {},
        f"{count} labels", timeout_s,
    )  # fmt: skip


def written(config: Config) -> list[dict[str, Any]]:
    """Return the labels in the files, in their order; a line that a killed recorder left half is none."""
    found = []
    for path in sorted((Path(config.state_dir) / "labels").glob("labels-*.ndjson.zst")):
        assert path.stat().st_mode & 0o777 == 0o600
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream,
        ):
            lines = list(io.BufferedReader(stream))
            found += [orjson.loads(each) for each in lines if each.endswith(b"\n")]
    return found


def has_committed(folder: Path, count: int) -> bool:
    """Return whether more than `count` labels are acknowledged, and that is on the disk."""
    return load_shipped(folder).accounts.get("acknowledged", 0) > count


def value(message: Message) -> dict[str, Any]:
    """Return the record in a message."""
    found: dict[str, Any] = orjson.loads(message.value() or b"")
    return found


def headers(message: Message) -> dict[str, Any]:
    """Return the headers of a message."""
    return dict(message.headers() or ())


def test_without_kafka_labels_go_to_files_of_their_own(tmp_path: Path) -> None:
    """Those that come before the recorder, and those that come while it runs."""
    config = config_for(tmp_path)
    take(config, range(100))
    with recorder(config) as process:
        wait_for_labels(config, 100)
        take(config, range(100, 150))
        found = wait_for_labels(config, 150)
        assert stop(process)[0] == 0
    assert [each["label"] for each in written(config)] == list(range(150))
    assert (found["read"], found["dropped"]) == (150, {})
    assert said(config)["state"] == "ok" or said(config)["state"] == "closed"


def test_labels_that_were_taken_last_are_shipped_when_it_stops(tmp_path: Path) -> None:
    """As the pairs are."""
    config = config_for(tmp_path)
    config = replace(config, limits=replace(config.limits, shutdown_s=100.0))
    take(config, range(10))
    with recorder(config) as process:
        wait_for_labels(config, 10)
        take(config, range(10, 5_000))
        assert stop(process)[0] == 0
    assert len(written(config)) == 5_000


def test_a_recorder_that_is_killed_loses_no_label(tmp_path: Path) -> None:
    """The position moves after the sink's word; some may be there twice, with the same value."""
    config = config_for(tmp_path)
    folder = label_journal(tmp_path)
    take(config, range(20_000))
    for count in (0, 20_000):
        with recorder(config) as process:
            wait_for(partial(has_committed, folder, count), "a step of the position")
            process.kill()
        there = {each["label"] for each in written(config)}
        assert len(there) >= load_shipped(folder).accounts["acknowledged"]
        take(config, range(20_000, 20_010))  # so that there is a next step
    with recorder(config) as process:
        wait_for_labels(config, 20_020)
        assert stop(process)[0] == 0
    assert {each["label"] for each in written(config)} == set(range(20_010))


def test_damage_is_counted_and_the_rest_is_shipped(tmp_path: Path) -> None:
    """A line that is no label holds up no other."""
    config = config_for(tmp_path)
    writer = LabelJournal(tmp_path, GIB)
    writer.append([b"{", read_line(b'{"request_id":"a","label":1}', 0).value])
    writer.close()
    with recorder(config) as process:
        assert wait_for_labels(config, 1)["dropped"] == {"rejected": 1}
        assert stop(process)[0] == 0


def test_who_sends_no_labels_pays_nothing(tmp_path: Path) -> None:
    """No folder, no file, no client."""
    config = config_for(tmp_path)
    journal(config, range(10))
    with recorder(config) as process:
        wait_for_acknowledged(config, 10)
        assert stop(process)[0] == 0
    assert not label_journal(tmp_path).exists()
    assert not (tmp_path / "labels").exists()
    assert said(config) == {}


@pytest.mark.kafka
def test_labels_go_to_their_topic_by_request_id(kafka_bootstrap: str, tmp_path: Path) -> None:
    """In the partition of the request's pairs, with CloudEvents headers; pairs go on beside them."""
    prefix = f"labels-{uuid.uuid4().hex[:8]}"
    for name in ("pairs", "labels"):
        create_topic(kafka_bootstrap, f"{prefix}.{name}.v1")
    config = config_for(tmp_path, kafka=Kafka((kafka_bootstrap,), prefix, {}))
    take(config, range(500))
    journal(config, range(500))
    with recorder(config) as process:
        wait_for_labels(config, 500)
        wait_for_acknowledged(config, 500)
        assert stop(process)[0] == 0
    labels = consume(kafka_bootstrap, f"{prefix}.labels.v1", 500)
    pairs = consume(kafka_bootstrap, f"{prefix}.pairs.v1", 500)
    assert len(labels) == 500
    places = [{m.key(): m.partition() for m in messages} for messages in (labels, pairs)]
    assert places[0] == places[1]
    first = next(m for m in labels if m.key() == b"request-0")
    assert value(first)["label"] == 0
    assert headers(first) | {"ce_id": b""} == {
        "ce_specversion": b"1.0", "ce_type": b"understudy.label.v1", "ce_id": b"",
        "ce_source": b"/understudy/labels", "ce_time": b"1970-01-01T00:00:00.000Z",
        "content-type": b"application/json; charset=UTF-8",
    }  # fmt: skip
    assert len({headers(m)["ce_id"] for m in labels}) == 500


@pytest.mark.real_kafka
def test_a_dead_broker_costs_no_label_and_holds_up_nobody(
    own_broker: Broker, prefix: str, tmp_path: Path
) -> None:
    """Labels wait; a missing topic of labels keeps no pair; afterwards all are there.

    `UNDERSTUDY_CHAOS_S=1` also kills the broker midway.
    """
    found = own_broker
    create_topic(found.bootstrap, f"{prefix}.pairs.v1")
    config = config_for(tmp_path / "state", kafka=Kafka((found.bootstrap,), prefix, {}))
    take(config, range(100))
    journal(config, range(100))
    with recorder(config) as process:
        assert wait_for_acknowledged(config, 100)["state"] == "ok"
        wait_for(lambda: said(config).get("state") == "topic_missing", "its word")
        assert load_shipped(label_journal(Path(config.state_dir))).position.offset == 0
        create_topic(found.bootstrap, f"{prefix}.labels.v1")
        wait_for_labels(config, 100)
        count = 100
        if os.environ.get("UNDERSTUDY_CHAOS_S"):  # restarting the broker takes half a minute
            found.kill()
            take(config, range(100, 200))
            wait_for(lambda: said(config)["backlog_bytes"] > 0, "a backlog")
            found.start()
            count = 200
            wait_for_labels(config, count)
        assert stop(process)[0] == 0
    labels = consume(found.bootstrap, f"{prefix}.labels.v1", count)
    assert {value(m)["label"] for m in labels} == set(range(count))
