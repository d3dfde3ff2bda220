"""`init`, `check`, `schema` and `explain`, run in process as the shell would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.cli.entry import run
from proxy.config.json_schema import schema_text
from proxy.config.load import load_config, write_resolved
from proxy.config.resolved import Config
from proxy.pairs.record import schema_text as pair_schema_text
from proxy.state.control_page import ControlState, Part, for_config, open_page, update
from proxy.state.kill import Scope, kill

CONFIG = """\
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, token: "${UNDERSTUDY_TEST_TOKEN:-}"}
backends:
  v1: {endpoints: [http://127.0.0.1:9001]}
  v2: {endpoints: [http://127.0.0.1:9002]}
  spare: {endpoints: [http://127.0.0.1:9003]}
routes:
  - name: iris
    match: {path_prefix: /iris, methods: [POST], host: models.example, headers: {x-tier: gold}}
    primary: v1
    split_by: header:x-user
    candidates:
      - {name: new, backend: v2, mirror: 50%, weight: 20%}
  - {name: rest, primary: v1, match: {path: /rest}}
"""
OWN = "    compare: {comparator: 'nowhere:same'}\n"
ASK = ["--path", "/iris/infer?x=1", "-H", "Host: models.example:80", "-H", "x-tier: gold"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in a folder of its own with a config in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_check_warns_of_a_comparator_that_cannot_be_loaded(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The config is good, since the recorder may stand elsewhere; the operator is told why."""
    (folder / "c.yaml").write_text(
        CONFIG.replace("    primary: v1\n", f"    primary: v1\n{OWN}", 1)
    )
    assert run(["check", "c.yaml"]) == 0
    told = capsys.readouterr().err
    assert "routes.iris.compare.comparator: nowhere:same: cannot import nowhere" in told
    assert "pairs are recorded, and not compared" in told


def test_check_says_what_a_config_does(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Who mirrors what at which percent, and where pairs go; nothing is written."""
    assert run(["check", "c.yaml"]) == 0
    output = capsys.readouterr().out
    assert "candidate new → v2 (http://127.0.0.1:9002), mirror 50%, weight 20%" in output
    assert f"pairs     {folder}/state/pairs" in output
    assert "no route uses the backend spare" in output
    assert [path.name for path in folder.iterdir()] == ["c.yaml"]


def test_check_tells_programs_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the token."""
    monkeypatch.setenv("UNDERSTUDY_TEST_TOKEN", "hunter2hunter2")
    assert run(["check", "c.yaml", "--json"]) == 0
    output = capsys.readouterr().out
    assert "hunter2" not in output
    found = json.loads(output)
    assert found["ok"] is True
    assert found["admin"]["needs_token"] is True
    assert found["routes"][0]["candidates"][0]["mirror_percent"] == 50.0


def test_check_tells_every_fault(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """One line each, exit code 1; the same in JSON."""
    (folder / "c.yaml").write_text(CONFIG.replace("primary: v1", "primary: v9"))
    assert run(["check", "c.yaml"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: c.yaml:10: routes[0].primary: there is no backend")
    assert errors[1].startswith("error: c.yaml:14: routes[1].primary: there is no backend")
    assert errors[2] == "error: 2 faults"
    assert run(["check", "c.yaml", "--json"]) == 1
    found = _json(capsys)
    assert found["ok"] is False
    assert [fault["line"] for fault in found["faults"]] == [10, 14]  # type: ignore[attr-defined]  # JSON


def test_check_warns_of_what_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    """A gate that lacks data must not look like one; the config is good all the same."""
    assert run(["init", "--template", "gateway", "gateway.yaml"]) == 0
    path = Path("gateway.yaml")
    text = path.read_text().replace("metric: agreement", "metric: correctness")
    path.write_text(f"{text}\nrecorders: 2\n")
    capsys.readouterr()
    assert run(["check", "gateway.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning: routes.fraud.ramp has a gate on correctness")
    assert "ramp 1%" in shown.out
    assert run(["check", "gateway.yaml", "--json"]) == 0
    assert len(_json(capsys)["warnings"]) == 1  # type: ignore[arg-type]  # JSON
    assert run(["check", "c.yaml"]) == 0
    assert capsys.readouterr().err == ""


def test_the_sidecar_template_copies_inference_requests_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Health checks and all else pass to the primary, and no candidate hears of them."""
    assert run(["init", "s.yaml"]) == 0
    config = load_config("s.yaml", {})
    capsys.readouterr()
    for words, route in (
        (["--path", "/predict", "--method", "POST"], "model"),
        (["--path", "/health", "--method", "GET"], "rest"),
        (["--path", "/predict", "--method", "GET"], "rest"),
    ):
        assert run(["explain", "s.yaml", *words, "--key", "k", "--json"]) == 0
        assert _json(capsys)["route"] == route
    assert [len(route.candidates) for route in config.routes] == [1, 0]


def test_schema_prints_both_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte what lies in config/."""
    assert run(["schema", "config"]) == 0
    assert capsys.readouterr().out.encode() == schema_text()
    assert run(["schema", "pair"]) == 0
    assert capsys.readouterr().out.encode() == pair_schema_text()
    assert run(["schema", "pears"]) == 2


@pytest.mark.parametrize("template", ["sidecar", "gateway"])
def test_init_writes_a_config_that_is_good(template: str) -> None:
    """As it is, with nothing set."""
    assert run(["init", "--template", template]) == 0
    assert load_config("understudy.yaml", {}).routes


def test_init_overwrites_only_when_told(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Somebody's work may be in it."""
    assert run(["init", "c.yaml"]) == 1
    assert "c.yaml exists; overwrite it with --force" in capsys.readouterr().err
    assert (folder / "c.yaml").read_text() == CONFIG
    assert run(["init", "c.yaml", "--force"]) == 0
    assert (folder / "c.yaml").read_text() != CONFIG
    assert run(["init", "no/such/folder.yaml"]) == 1
    assert "cannot write no/such/folder.yaml" in capsys.readouterr().err


def _serves(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert run(["explain", "c.yaml", *ASK, "--json", *more]) == 0
    return _json(capsys)


def test_explain_gives_each_key_its_own_stable_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """About 20% of the keys are served by the candidate, always the same ones."""
    first = [_serves(capsys, "--key", f"user-{n}") for n in range(60)]
    assert first[:5] == [_serves(capsys, "--key", f"user-{n}") for n in range(5)]
    served = [each["serves"] for each in first]
    assert set(served) == {"primary (v1)", "new (v2)"}
    assert 2 <= served.count("new (v2)") <= 25
    copied = [each["mirrors"] for each in first if each["serves"] == "new (v2)"]
    assert all(each == ["primary (v1)"] for each in copied)


BOUNDED = """\
backends:
  v1: {endpoints: [http://127.0.0.1:9001]}
  v2: {endpoints: [http://127.0.0.1:9002]}
routes:
  - name: chat
    protocol: openai
    primary: v1
    mirror_only: {path_prefixes: [/v1/chat], headers: {x-dry: hunter2}}
    candidates:
      - name: new
        backend: v2
        timeout: 2s
        mirror_rate: 50
        breaker: {failures: 7}
        set_headers: {Authorization: "Bearer ${UNDERSTUDY_TEST_KEY:-hunter2}"}
        remove_headers: [Cookie]
        model: small
"""


def test_explain_and_check_show_guard_bounds_and_rewrites_without_secrets(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """Of headers the names; whether the request may be sent twice, and why not."""
    (folder / "b.yaml").write_text(BOUNDED)
    ask = ["explain", "b.yaml", "--path", "/v1/chat/completions", "--key", "k"]
    assert run([*ask, "-H", "x-dry: hunter2"]) == 0
    shown = capsys.readouterr().out
    assert "twice     yes: GET or HEAD or POST below /v1/chat with the right x-dry" in shown
    assert "mirrors   new" in shown
    assert (
        "new: copies end after 2s; at most 50 copies per second; the breaker opens after 7 copies "
        "in a row without an answer, for 5s up to 1m; its guard takes it out after 5 live calls that "
        "fail or are much slower than the primary's; sets authorization; removes cookie; names the "
        "model 'small'"
    ) in shown
    assert run(ask) == 0
    refused = capsys.readouterr().out
    assert "twice     no: the header x-dry is missing or has another value" in refused
    assert "mirrors   nobody" in refused
    assert "new: gets no copy, because this request must not be sent twice" in refused
    for arguments in ([*ask, "--json"], ["check", "b.yaml"], ["check", "b.yaml", "--json"]):
        assert run(arguments) == 0
        shown += capsys.readouterr().out
    assert "sets authorization, removes cookie, names the model 'small'" in shown
    assert "hunter2" not in shown + refused


def test_explain_finds_the_key_as_the_data_plane_does(capsys: pytest.CaptureFixture[str]) -> None:
    """In the header, else the request id; without either the answer differs per request."""
    assert _serves(capsys, "-H", "X-User: bob")["key"] == "bob (header:x-user)"
    assert str(_serves(capsys, "-H", "x-request-id: r1")["key"]).startswith("r1 (x-request-id")
    assert _serves(capsys)["serves"] == "decided anew for each request, by its id"


def test_explain_says_why_no_route_takes_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    """Route by route, the part of the match that does not hold; exit code 1."""
    for arguments, reason in (
        (["--method", "GET"], "iris: the method is not POST"),
        (["--path", "/other"], "iris: the path is not /iris…"),
        (["--header", "x-tier: lead"], "iris: the header x-tier is not 'gold'"),
        (["--header", "host: else"], "iris: the host is not models.example"),
    ):
        assert run(["explain", "c.yaml", *ASK, *arguments]) == 1
        errors = capsys.readouterr().err
        assert reason in errors
        assert "rest: the path is not /rest" in errors


def test_explain_of_a_route_without_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    """The primary serves everything, whatever the key."""
    assert run(["explain", "c.yaml", "--path", "/rest"]) == 0
    output = capsys.readouterr().out
    assert "serves    primary (v1)" in output
    assert "the route has no candidates" in output


def test_explain_live_obeys_the_kill_switch(capsys: pytest.CaptureFixture[str]) -> None:
    """With --live the page of the running instance decides, not the config."""
    config: Config = load_config("c.yaml", {})
    write_resolved(config)
    assert run(["explain", "c.yaml", *ASK, "--live"]) == 1
    assert "control.page" in capsys.readouterr().err
    page = open_page(Path(config.state_dir), create=True)
    try:
        update(page, lambda _: for_config(config, ControlState()))
        update(page, lambda state: kill(state, Scope("iris"), Part.DEFAULT, "test"))
    finally:
        page.close()
    found = _serves(capsys, "--live", "--key", "bob")
    assert (found["serves"], found["mirrors"]) == ("primary (v1)", [])
    assert "or killed" in str(found["why"])
