"""Loading a good config: complete, with defaults, and written for the other processes."""

from __future__ import annotations

import socket
import stat
import sys
from pathlib import Path

import pytest

from proxy.config.load import load_config, write_resolved
from proxy.config.resolved import (
    Address,
    Bodies,
    Endpoint,
    HashPolicy,
    Protocol,
    Split,
    SplitKind,
    digest,
    dumps,
    loads,
)
from proxy.errors import ConfigError, StateError

SMALLEST = """\
backends:
  v1: {endpoints: [http://127.0.0.1:9001]}
  v2: {endpoints: ["http://[::1]:9002/"]}
routes:
  - name: iris
    primary: v1
    candidates: [{name: new, backend: v2}]
"""


@pytest.fixture
def smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the smallest config with a candidate, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "smallest.yaml"
    path.write_text(SMALLEST)
    return path


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("timeout: 1h", (None, 60.0, 3600.0)),
        ("timeout: 1h, stream_timeout: 5m", (None, 60.0, 300.0)),
        ("idle_timeout: 5s, first_byte_timeout: 2s", (2.0, 5.0, 600.0)),
    ],
)
def test_a_stream_may_take_as_long_as_any_other_answer(
    tmp_path: Path, smallest: Path, extra: str, expected: tuple[float | None, float, float]
) -> None:
    """Where `timeout` is over the ten minutes of a stream; a value of its own is kept."""
    path = tmp_path / "changed.yaml"
    path.write_text(smallest.read_text().replace('9002/"]', f'9002/"], {extra}'))
    backend = load_config(path, {}).backends["v2"]
    phases = backend.first_byte_timeout_s, backend.idle_timeout_s, backend.stream_timeout_s
    assert phases == expected


def test_everything_left_out_has_a_safe_default(smallest: Path, tmp_path: Path) -> None:
    """Loopback only, everything mirrored, nothing live, pairs in files."""
    config = load_config(smallest, {})
    assert config.listen == Address("127.0.0.1", 8080)
    assert config.admin.listen == Address("127.0.0.1", 9090)
    assert config.workers == config.recorders == 1
    assert config.instance == socket.gethostname()
    assert config.state_dir == str(tmp_path / "state")
    backend = config.backends["v2"]
    assert backend.endpoints == (Endpoint("::1", 9002),)
    assert (backend.connect_timeout_s, backend.timeout_s, backend.keepalive_s) == (1.0, 30.0, 4.0)
    assert (backend.first_byte_timeout_s, backend.idle_timeout_s) == (None, 60.0)
    assert backend.stream_timeout_s == 600.0
    assert backend.max_in_flight == 1024
    route = config.routes[0]
    assert (route.protocol, route.split) == (Protocol.JSON, Split(SplitKind.REQUEST_ID, ""))
    assert (route.experiment_id, route.replicate_bp, route.ramp) == ("iris", 0, None)
    assert (route.candidates[0].mirror_bp, route.candidates[0].weight_bp) == (10_000, 0)
    assert route.compare.comparator == "exact"
    assert config.record.kafka is None
    assert (config.record.bodies, config.record.hash) == (Bodies.RESPONSES, HashPolicy.AUTO)
    assert "authorization" in config.record.redact.headers
    assert config.limits.journal_disk_bytes == 10 * 2**30
    assert config.limits.shutdown_s == 8.0


def test_keys_without_a_value_count_as_left_out(smallest: Path) -> None:
    """As when every line below `limits:` is commented out."""
    plain = load_config(smallest, {})
    smallest.write_text(SMALLEST + "limits:\nrecord:\n  redact:\n  kafka: ~\nadmin: {token: }\n")
    assert load_config(smallest, {}) == plain


def test_header_names_are_matched_in_lower_case(smallest: Path) -> None:
    """Clients write them in any case."""
    text = SMALLEST.replace(
        "primary:", "match: {host: EXAMPLE.org, headers: {X-Tier: Gold}}\n    primary:"
    )
    smallest.write_text(text + "record: {redact: {headers: [X-Secret]}}\n")
    config = load_config(smallest, {})
    assert config.routes[0].match.headers == {"x-tier": "Gold"}
    assert config.routes[0].match.host == "example.org"
    assert config.record.redact.headers == ("x-secret",)


def test_numbers_may_come_from_the_environment(smallest: Path) -> None:
    """A reference is text; numeric keys read it."""
    smallest.write_text(f"workers: ${{WORKERS:-3}}\nstate_dir: '${{DIR}}/x'\n{SMALLEST}")
    config = load_config(smallest, {"DIR": "/var/lib/understudy"})
    assert (config.workers, config.state_dir) == (3, "/var/lib/understudy/x")


def test_kafka_options_are_text_whatever_they_look_like(smallest: Path) -> None:
    """Client libraries take text; YAML would make numbers of it."""
    kafka = "{bootstrap_servers: [b:9092], options: {request.timeout.ms: 500, client.id: true}}"
    smallest.write_text(f"{SMALLEST}record: {{kafka: {kafka}}}\n")
    sink = load_config(smallest, {}).record.kafka
    assert sink is not None
    assert sink.options == {"request.timeout.ms": "500", "client.id": "true"}
    assert sink.topic_prefix == "shadow"


def test_routes_that_are_told_apart_by_anything_are_all_reachable(smallest: Path) -> None:
    """Only a route that can never be reached is a mistake."""
    smallest.write_text(
        "backends: {v1: {endpoints: [http://a:1]}}\nroutes:\n"
        "  - {name: a, primary: v1, match: {path_prefix: /a, methods: [POST]}}\n"
        "  - {name: b, primary: v1, match: {path_prefix: /a}}\n"
        "  - {name: c, primary: v1, match: {path_prefix: /ab, headers: {x: y}}}\n"
        "  - {name: d, primary: v1, match: {path_prefix: /ab, host: h}}\n"
        "  - {name: e, primary: v1}\n"
    )
    assert len(load_config(smallest, {}).routes) == 5


def test_the_version_follows_the_meaning_and_not_the_text(smallest: Path) -> None:
    """Comments and order change nothing; a value or a default written out does not either."""
    version = load_config(smallest, {}).version
    smallest.write_text(f"# a comment\n{SMALLEST}workers: 1\nadmin: {{token: abcdefgh}}\n")
    assert load_config(smallest, {}).version == version
    smallest.write_text(f"{SMALLEST}limits: {{mirror_body: 1KiB}}\n")
    assert load_config(smallest, {}).version != version


def test_replicas_of_one_config_have_one_version(smallest: Path) -> None:
    """Where and how large an instance runs, and its secrets, are not part of what it does."""
    kafka = "record: {kafka: {bootstrap_servers: [b:9092], options: {client.id: %s}}}\n"
    smallest.write_text(SMALLEST + kafka % "one")
    version = load_config(smallest, {}).version
    here = "workers: 2\ninstance: other\nstate_dir: ./elsewhere\nlisten: 127.0.0.1:1234\n"
    smallest.write_text(SMALLEST + here + kafka % "two")
    assert load_config(smallest, {}).version == version


def test_the_resolved_config_is_written_for_its_owner_only(smallest: Path, tmp_path: Path) -> None:
    """Other processes read back the same config."""
    config = load_config(smallest, {})
    path = write_resolved(config)
    assert path == tmp_path / "state" / "config" / f"{config.version}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert loads(path.read_bytes()) == config
    assert digest(config) == config.version
    assert write_resolved(config) == path
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_state_dir_that_cannot_be_written_is_said(smallest: Path, tmp_path: Path) -> None:
    """Not a traceback: the folder's name and the reason."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match=r"cannot write .*state.*must be a folder"):
        write_resolved(load_config(smallest, {}))


def test_weights_may_add_up_to_everything(smallest: Path) -> None:
    """100% in all is a promotion, not a mistake."""
    two = "[{name: a, backend: v2, weight: 60%}, {name: b, backend: v2, weight: 40%}]"
    smallest.write_text(SMALLEST.replace("[{name: new, backend: v2}]", two))
    assert [each.weight_bp for each in load_config(smallest, {}).routes[0].candidates] == [
        6000,
        4000,
    ]


@pytest.mark.parametrize(
    ("listen", "admin", "is_good"),
    [
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("127.0.0.1:8080", "127.0.0.2:8080", True),
        ("0.0.0.0:8080", "127.0.0.1:8080", False),
        ("'[::1]:8080'", "'[::1]:8080'", False),
        ("localhost:8080", "'[::1]:9090'", True),
    ],
)
def test_two_sockets_may_not_want_the_same_port(
    smallest: Path, listen: str, admin: str, is_good: bool
) -> None:
    """Port 0 never collides; a wildcard collides with every address."""
    smallest.write_text(f"listen: {listen}\nadmin: {{listen: {admin}}}\n{SMALLEST}")
    if is_good:
        load_config(smallest, {})
    else:
        with pytest.raises(ConfigError, match="is taken by"):
            load_config(smallest, {})


def test_an_extra_that_is_not_installed_is_a_fault_that_says_how_to_get_it(
    smallest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a socket opens, not when the first span is due."""
    smallest.write_text(f"{SMALLEST}telemetry:\n  otlp: {{endpoint: http://127.0.0.1:4318/}}\n")
    otlp = load_config(smallest, {}).telemetry.otlp
    assert otlp is not None
    assert (otlp.endpoint, otlp.headers, otlp.sample_bp) == ("http://127.0.0.1:4318", {}, 0)
    for module in ("opentelemetry.sdk", "opentelemetry.sdk.trace"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'understudy\[otel\]'") as caught:
        load_config(smallest, {})
    assert caught.value.faults[0].key == "telemetry.otlp"
    smallest.write_text(SMALLEST)
    assert load_config(smallest, {}).telemetry.otlp is None


def test_what_is_only_told_is_no_part_of_the_version(smallest: Path) -> None:
    """Logs and spans change no answer and no pair, and the headers are secrets."""
    version = load_config(smallest, {}).version
    otlp = "telemetry: {otlp: {endpoint: 'http://c', headers: {authorization: s3cret}}}\n"
    smallest.write_text(f"{SMALLEST}log: {{access: 5%, slow: 250ms}}\n{otlp}")
    config = load_config(smallest, {})
    assert config.version == version
    assert (config.log.access_bp, config.log.slow_s) == (500, 0.25)
    assert loads(dumps(config)) == config


KEYS = {"REDACT": "key-of-the-redaction", "HASH": "key-of-the-unit-hash"}
REDACTION = """
record:
  bodies: full
  hash_key: "${HASH}"
  redact: {json: [a.ssn, {path: b, action: mask}, {path: c, action: hash}], key: "${REDACT}"}
"""


def test_rules_of_redaction_are_paths_or_say_what_to_do(smallest: Path) -> None:
    """A path alone is dropped; a route adds its own, and may keep other bodies."""
    own = "record: {bodies: none, redact: {json: [d]}}"
    smallest.write_text(SMALLEST.replace("primary:", f"{own}\n    primary:", 1) + REDACTION)
    config = load_config(smallest, KEYS)
    route = config.routes[0]
    assert [(rule.path, str(rule.action)) for rule in config.record.rules_of(route)] == [
        ("a.ssn", "drop"),
        ("b", "mask"),
        ("c", "hash"),
        ("d", "drop"),
    ]
    assert config.record.bodies_of(route) is Bodies.NONE
    assert config.record.bodies is Bodies.FULL
    assert loads(dumps(config)) == config


def test_keys_of_hashes_are_in_no_version_and_no_repr(smallest: Path) -> None:
    """A version is in every record, and a repr ends in a log."""
    smallest.write_text(SMALLEST + REDACTION)
    config = load_config(smallest, KEYS)
    other = load_config(smallest, {name: key[::-1] for name, key in KEYS.items()})
    assert config.version == other.version
    assert (config.record.redact.key, config.record.hash_key) == tuple(KEYS.values())
    for key in KEYS.values():
        assert key not in repr(config)
