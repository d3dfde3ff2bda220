"""Secrets of a config: in no file, and whole in the processes that need them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.config import secrets
from proxy.config.load import load_config, write_again, write_resolved
from proxy.config.resolved import Config, Kafka, Otlp, Telemetry, dumps, loads
from proxy.errors import StateError
from tests.support.resolved_config import small_config, write_config

TEXT = """
admin: {token: planted-token}
backends:
  v1: {endpoints: [http://127.0.0.1:1]}
  v2: {endpoints: [http://127.0.0.1:2]}
routes:
  - name: iris
    primary: v1
    match: {headers: {authorization: planted-match}}
    mirror_only: {headers: {x-tier: planted-guard}}
    candidates:
      - {name: a, backend: v2, set_headers: {x-key: planted-header-a}}
      - {name: b, backend: v2, set_headers: {x-key: planted-header-b, x-other: planted-header-c}}
    ramp:
      steps: [{weight: 1%}]
      gates: [{metric: agreement}]
      confirm: {url: "http://c/planted-address", secret: planted-signature-key}
      notify: {url: "http://c/planted-other-address"}
record:
  kafka: {bootstrap_servers: [b:1], options: {sasl.password: planted-password}}
  hash_key: planted-hash-key-of-units
  redact: {json: [{path: a, action: hash}], key: planted-redaction-key}
telemetry: {otlp: {endpoint: "http://c", headers: {authorization: planted-collector}}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return a config with a secret in every place where one may be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(secrets.VARIABLE, "")
    path = tmp_path / "understudy.yaml"
    path.write_text(TEXT)
    return load_config(path, {})


def test_no_secret_is_written_and_all_are_read_again(config: Config) -> None:
    """As long as the environment is inherited."""
    path = write_resolved(config)
    assert b"planted" not in path.read_bytes()
    assert secrets.read_whole(path) == config
    assert os.environ[secrets.VARIABLE].count("planted") == TEXT.count("planted")


@pytest.mark.parametrize("value", [None, '{"version": "of another", "secrets": []}'])
def test_without_its_secrets_no_process_starts(config: Config, value: str | None) -> None:
    """An admin API whose token got lost would be open to everybody."""
    path = write_resolved(config)
    with pytest.raises(StateError, match="start with `understudy serve CONFIG`"):
        secrets.read_whole(path, {} if value is None else {secrets.VARIABLE: value})
    assert loads(path.read_bytes()).admin.token == ""


def test_a_config_without_secrets_needs_no_environment(tmp_path: Path) -> None:
    """Nor does one that was written whole."""
    config = small_config(tmp_path)
    assert secrets.read_whole(write_config(config), {}) == config
    whole = small_config(tmp_path, token="planted-token")
    assert secrets.read_whole(write_config(whole), {}) == whole


def test_a_later_config_may_have_the_same_secrets_elsewhere(config: Config) -> None:
    """The variable stays as it was, so a place that moved is read as well."""
    write_resolved(config)
    inherited = os.environ[secrets.VARIABLE]
    (route,) = config.routes
    moved = dataclasses.replace(
        config,
        version="later",
        routes=(
            dataclasses.replace(route, name="rose", candidates=()),
            dataclasses.replace(route, candidates=route.candidates[::-1]),
        ),
    )
    path = write_again(moved)
    assert b"planted" not in path.read_bytes()
    assert os.environ[secrets.VARIABLE] == inherited
    assert secrets.read_whole(path) == moved


def test_a_later_config_has_no_new_secrets(config: Config) -> None:
    """Where they are is told, as the file calls it, and nothing is written."""
    write_resolved(config)
    later = load_text(config, TEXT.replace("planted-header-b", "new").replace("password}", "new}"))
    later = dataclasses.replace(later, version="later")
    with pytest.raises(secrets.NewSecretsError) as caught:
        write_again(later)
    assert caught.value.keys == (
        "record.kafka.options.sasl.password",
        "routes.iris.candidates.b.set_headers.x-key",
    )
    assert not (Path(config.state_dir) / "config" / "later.json").exists()


def load_text(config: Config, text: str) -> Config:
    """Return the config in `text`, which lies beside `config`'s state."""
    path = Path(config.state_dir).parent / "later.yaml"
    path.write_text(text)
    return load_config(path, {})


def test_more_than_processes_can_inherit_is_said(tmp_path: Path) -> None:
    """Before anything is started: the system would only say that arguments are too long."""
    with pytest.raises(StateError, match="longer than"):
        secrets.apart(small_config(tmp_path, token="x" * secrets.MAX_VALUE_BYTES))


@given(text=st.text(min_size=1), name=st.text(min_size=1))
def test_secrets_may_be_any_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    """Names of options and headers too."""
    small = small_config(Path("/nowhere"), token=text)
    config = dataclasses.replace(
        small,
        record=dataclasses.replace(small.record, kafka=Kafka((), "shadow", {name: text, "x": ""})),
        telemetry=Telemetry(Otlp("http://c", {name: text}, 0)),
    )
    data, value = secrets.apart(config)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    assert secrets.read_whole(path, {secrets.VARIABLE: value}) == config
    assert dumps(loads(data)) != dumps(config)
