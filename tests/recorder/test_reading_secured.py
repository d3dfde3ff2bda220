"""Commands that read a topic log in as the recorder does, and say clearly when they are refused.

Here, not beside the commands, because the broker that asks who one is is this folder's.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from proxy.analysis import parallel
from proxy.analysis.aggregate import Reading
from proxy.analysis.kafka_source import KafkaSource, Topic
from proxy.cli.entry import run
from proxy.errors import SourceError
from tests.analysis.test_kafka_source import produce
from tests.support.authority import Authority
from tests.support.kafka import Broker
from tests.support.kafka_security import PASSWORD, allow, sasl
from tests.support.kafka_topics import create_topic
from tests.support.records import pair

pytestmark = pytest.mark.real_kafka

PAIRS = 200

CONFIG = """
backends: {{v1: {{endpoints: ["http://127.0.0.1:1"]}}}}
routes: [{{name: iris, primary: v1}}]
record:
  kafka:
    bootstrap_servers: ["{server}"]
    topic_prefix: {prefix}
    options: {options}
"""

COMMANDS = (
    ("compare", "--json"),
    ("verdict", "--json"),
    ("pairs", "tail", "--json"),
    ("pairs", "show", "r-7", "--json"),
    ("pairs", "export", "--to", "ndjson", "--out", "pairs.ndjson"),
    ("plan", "--json", "--max-pairs", "1000"),
    ("replay", "--to", "http://127.0.0.1:1"),
)


@pytest.fixture(scope="module")
def prefix(own_broker: Broker) -> str:
    """Return the prefix of a topic that holds pairs, and that alice may read."""
    prefix = f"read-{uuid.uuid4().hex[:8]}"
    name = f"{prefix}.pairs.v1"
    create_topic(own_broker.bootstrap, name)
    produce(own_broker.bootstrap, name, [pair(n) for n in range(1, PAIRS + 1)])
    allow(own_broker, name, "READ", "DESCRIBE")
    return prefix


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of one's own, and keep what SIGTERM does to the tests."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def write_config(path: Path, server: str, prefix: str, options: dict[str, str]) -> Path:
    """Write a config that ships to `server`."""
    text = CONFIG.format(server=server, prefix=prefix, options=orjson.dumps(options).decode())
    path.write_text(text)
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_every_reader_logs_in_by_the_config_of_its_folder(
    own_broker: Broker, prefix: str, folder: Path, command: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Which has the topic's broker; another password over it is refused, and is not told."""
    server = own_broker.addresses["SASL"]
    write_config(folder / "understudy.yaml", server, prefix, sasl("SCRAM-SHA-256"))
    arguments = [*command, "--from", f"kafka://{server}/{prefix}.pairs.v1"]
    code = run(arguments)
    said = capfd.readouterr()
    if command[0] == "replay":  # has read all, and found nothing to send
        assert f"none of {PAIRS} records has a request body" in said.err
    else:
        assert (code in (0, 3), said.err.replace(f"{PAIRS} pairs in pairs.ndjson\n", "")) == (
            True,
            "",
        )
    assert run([*arguments, "-X", "sasl.password=guessed"]) == 1
    said = capfd.readouterr()
    assert f"{server} refuses us" in said.err
    assert "look at security.protocol and sasl.*" in said.err
    assert not {"guessed", PASSWORD} & {*said.err.split()}


def test_a_config_that_is_named_counts_and_options_alone_do(
    own_broker: Broker, prefix: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where its brokers have other names; a password is told to no broker but its own."""
    server = own_broker.addresses["SASL"]
    arguments = [
        "pairs",
        "tail",
        "-n",
        "3",
        "--json",
        "--from",
        f"kafka://{server}/{prefix}.pairs.v1",
    ]
    options = [f"-X{name}={value}" for name, value in sasl("PLAIN").items()]
    assert run([*arguments, *options]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    other = write_config(folder / "understudy.yaml", "b.example:9092", prefix, sasl("PLAIN"))
    assert run(arguments) == 1
    told = capfd.readouterr().err
    assert f"cannot reach a Kafka broker at {server}" in told
    assert "if it wants TLS or a login: --config, or -X" in told
    assert run([*arguments, "--config", str(other)]) == 0
    assert run([*arguments, "-X", "sasl.password"]) == 1
    assert "-X: write NAME=VALUE" in capfd.readouterr().err
    assert run([*arguments, "-X", "sasl.pasword=x"]) == 1
    assert "unknown option 'sasl.pasword'" in capfd.readouterr().err


def test_certificates_are_checked(own_broker: Broker, prefix: str, authority: Authority) -> None:
    """One that is not trusted is said to be that; TLS and a login go together."""
    name = f"{prefix}.pairs.v1"
    trusted = {"ssl.ca.location": str(authority.ca_file)}
    secured = sasl("SCRAM-SHA-512") | {"security.protocol": "SASL_SSL"}
    server = own_broker.addresses["SASLTLS"]
    with pytest.raises(SourceError, match=r"cannot reach .*certificate verify failed"):
        list(KafkaSource(Topic((server,), name, secured)))
    source = KafkaSource(Topic((server,), name, secured | trusted))
    assert sum(1 for _ in source) == PAIRS
    by_two = KafkaSource(Topic((server,), name, secured | trusted))
    found = parallel.aggregate_topic(by_two, Reading(), lambda: None, processes=2)
    assert found.selected == PAIRS


def test_a_topic_that_one_may_not_read_is_said_to_be_that(own_broker: Broker) -> None:
    """One that may be seen, and no more."""
    name = f"seen-{uuid.uuid4().hex[:8]}.pairs.v1"
    create_topic(own_broker.bootstrap, name)
    produce(own_broker.bootstrap, name, [pair(1)])
    allow(own_broker, name, "DESCRIBE")
    topic = Topic((own_broker.addresses["SASL"],), name, sasl("PLAIN"))
    with pytest.raises(SourceError, match="we may not read it"):
        list(KafkaSource(topic))
