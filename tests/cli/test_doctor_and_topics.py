"""`understudy doctor` and `understudy topics create` as a person and as a program meet them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.support.counting_backend import CountingBackend
from tests.support.deadline import wait_for
from tests.support.instance import running, understudy
from tests.support.upstreams import unused_port


def written(folder: Path, config: dict[str, Any]) -> str:
    """Write a config whose ports are free ones; return its path."""
    path = folder / "checked.yaml"
    defaults = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "state_dir": str(folder / "state"),
    }
    path.write_text(yaml.safe_dump({**defaults, **config}))
    return str(path)


def test_a_good_config_is_exit_0_and_asks_the_backends_nothing(
    tmp_path: Path, config: dict[str, Any], primary: CountingBackend
) -> None:
    """A table for people, an object for programs; no colour and no progress without a terminal."""
    path = written(tmp_path, config)
    done = understudy("doctor", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 faults" in done.stdout
    assert "\x1b" not in done.stdout
    found = orjson.loads(understudy("doctor", path, "--json").stdout)
    assert found["ok"]
    assert {each["level"] for each in found["findings"]} == {"ok"}
    assert primary.requests == 0


def test_a_fault_is_exit_1_and_says_how_to_mend_it(tmp_path: Path, config: dict[str, Any]) -> None:
    """A backend that is gone."""
    config["backends"]["p"]["endpoints"] = [f"http://127.0.0.1:{unused_port()}"]
    done = understudy("doctor", written(tmp_path, config))
    assert done.returncode == 1
    assert "nothing listens there" in done.stdout
    assert "mend: start the server" in done.stdout


def test_a_sample_is_sent_to_every_leg_once(
    tmp_path: Path, config: dict[str, Any], primary: CountingBackend, candidate: CountingBackend
) -> None:
    """Only when it is asked for."""
    done = understudy("doctor", written(tmp_path, config), "--path", "/", "--body", "{}", "--json")
    assert done.returncode == 0, done.stdout
    sample = [f for f in orjson.loads(done.stdout)["findings"] if f["check"] == "sample"]
    assert len(sample) == 2
    assert (primary.requests, candidate.requests) == (1, 1)
    assert (primary.mirrors, candidate.mirrors) == (1, 1)


def test_a_running_instance_is_not_disturbed_and_its_ports_are_its_own(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """By the very ports it listens on."""
    with running(config, tmp_path) as instance:
        runtime = instance.runtime
        fixed = {**config, "listen": runtime["listen"], "admin": {"listen": runtime["admin"]}}
        done = understudy("doctor", written(tmp_path, fixed), "--json")
        assert done.returncode == 0, done.stdout
        ports = [f for f in orjson.loads(done.stdout)["findings"] if f["check"] == "port"]
        assert all("in use by the running instance" in each["what"] for each in ports)
        wait_for(instance.is_healthy, "health")


def test_topics_without_kafka_or_a_broker_are_one_line_and_exit_1(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """Never a traceback."""
    lonely = understudy("topics", "create", written(tmp_path, config))
    assert (lonely.returncode, "no record.kafka" in lonely.stderr) == (1, True)
    kafka = {"kafka": {"bootstrap_servers": ["127.0.0.1:1"]}}
    dead = understudy("topics", "create", written(tmp_path, {**config, "record": kafka}))
    assert dead.returncode == 1
    assert "cannot reach a Kafka broker at 127.0.0.1:1" in dead.stderr
    assert dead.stderr.count("\n") == 1
    nowhere = understudy("topics", "create", cwd=tmp_path)
    assert "no config in this folder" in nowhere.stderr


@pytest.mark.real_kafka
def test_topics_are_rehearsed_made_and_found_again(
    kafka_cache: Path, kafka_bootstrap: str, tmp_path: Path, config: dict[str, Any]
) -> None:
    """The config in the current folder is taken when none is named."""
    prefix = f"cli-{uuid.uuid4().hex[:8]}"
    kafka = {"kafka": {"bootstrap_servers": [kafka_bootstrap], "topic_prefix": prefix}}
    path = Path(written(tmp_path, {**config, "record": kafka}))
    path.rename(tmp_path / "understudy.yaml")
    seen = []
    for words in (("--dry-run", "--json"), ("--json",), ("--json",)):
        done = understudy("topics", "create", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        seen.append({each["fate"] for each in orjson.loads(done.stdout)["topics"]})
    assert seen == [{"would_create"}, {"created"}, {"exists"}]
    table = understudy("topics", "create", "--partitions", "9", cwd=tmp_path)
    assert table.returncode == 1
    assert f"--alter --topic {prefix}.pairs.v1 --partitions 9" in table.stdout
