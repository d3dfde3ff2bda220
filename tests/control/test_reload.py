"""Reloads as control does them: judged whole, put in place by one store, told to everybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from proxy.config.diff import Change
from proxy.config.load import load_config, write_resolved
from proxy.config.resolved import RedactRule
from proxy.control.app import build_app
from proxy.control.problems import FOLLOW_MS, problems
from proxy.control.reload import GOOD, Reloader, Result, automatic, diff_lines
from proxy.control.snapshot import HUNG_MS
from proxy.state import decisions
from proxy.state.control_page import Part, update
from proxy.state.kill import Scope, set_weight
from proxy.state.orders import order_kill
from proxy.state.running_config import read_config, read_state, running_config
from proxy.state.stats_file import Layout, open_stats
from proxy.telemetry import wall_ns
from tests.support.reload_stage import SOURCE, Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage, closed at the end."""
    found = Stage(tmp_path)
    yield found
    found.observer.close()


def test_a_good_file_is_put_in_place(stage: Stage) -> None:
    """On the page, in the folder, in control itself and in the decisions log."""
    stage.write(record={"redact": {"json": ["a.b"]}})
    outcome = stage.reloader.reload(SOURCE)
    assert (outcome.result, outcome.revision) == (Result.RELOADED, 2)
    state = read_state(stage.state_dir)
    assert (state.config_version, state.config_revision) == (outcome.version, 2)
    assert read_config(stage.state_dir, outcome.version).record.redact.json == (RedactRule("a.b"),)
    assert stage.observer.config.version == outcome.version != outcome.old_version
    (decision,) = decisions.read_last(stage.state_dir, 9)
    assert (decision["who"], decision["old"], decision["new"]) == (
        "ann", outcome.old_version, outcome.version,
    )  # fmt: skip
    assert decision["diff"] == ["record.redact.json: [] -> [a.b]"]
    assert stage.reloader.reload(SOURCE).result is Result.UNCHANGED
    assert len(decisions.read_last(stage.state_dir, 9)) == 1


@pytest.mark.parametrize(
    ("change", "result", "words"),
    [
        ({"workerz": 1}, Result.INVALID, "did you mean 'workers'"),
        ({"backends": {}}, Result.INVALID, "backends"),
        ({"workers": 4}, Result.NEEDS_RESTART, "workers: 1 -> 4: this needs a restart"),
        ({"listen": "127.0.0.1:80"}, Result.NEEDS_RESTART, "listen: 127.0.0.1:0 ->"),
    ],
)
def test_a_refused_file_changes_nothing(
    stage: Stage, change: dict[str, object], result: Result, words: str
) -> None:
    """Not even what in it is good; and it is told until a good one is read."""
    before, good = read_state(stage.state_dir), dict(stage.document)
    stage.write(log={"slow": "1s"}, **change)
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is result
    assert words in "; ".join(outcome.faults)
    assert read_state(stage.state_dir) == before
    (decision,) = decisions.read_last(stage.state_dir, 9)
    assert (decision["action"], decision["outcome"]) == ("reload", "refused")
    assert words in decision["refusal"]
    assert (decision["old"], decision["new"]) == (outcome.old_version, None)
    assert not stage.told["valid"]
    (problem,) = [p for p in problems(stage.observer.snapshot()) if "was refused" in p]
    assert words in problem
    stage.document = good
    stage.write()
    assert stage.reloader.reload(SOURCE).result is Result.UNCHANGED
    assert stage.told["valid"]
    counts = {str(each): 0 for each in Result}
    assert stage.told["reloads"] == {**counts, str(result): 1, "unchanged": 1}


def test_a_file_that_is_gone_is_refused(stage: Stage) -> None:
    """In the middle of a swap, say; the old config stays."""
    stage.path.unlink()
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is Result.INVALID
    assert "there is no such file" in outcome.faults[0]


def test_secrets_that_change_nothing_else_are_taken_over_whole_or_not_at_all(
    stage: Stage,
) -> None:
    """The version stays, the revision does not; on an unusable page the old secrets do."""
    stage.write(admin={"listen": "127.0.0.1:0"})
    page = stage.state_dir / "control.page"
    whole = page.read_bytes()
    page.write_bytes(bytes(len(whole)))
    assert stage.reloader.reload(SOURCE).result is Result.FAILED
    version = stage.config.version
    assert read_config(stage.state_dir, version).admin.token == "first-token"
    page.write_bytes(whole)
    outcome = stage.reloader.reload(SOURCE)
    assert (outcome.result, outcome.version) == (Result.RELOADED, version)
    assert read_config(stage.state_dir, version).admin.token == ""
    config, revision = running_config(stage.state_dir / "config" / f"{version}.json")
    assert (config.admin.token, revision) == ("", 2)
    line = (stage.state_dir / "decisions.ndjson").read_text()
    assert "admin.token: changed (secret)" in line
    assert "-token" not in line


def test_a_secret_that_processes_were_not_started_with_needs_a_restart(stage: Stage) -> None:
    """They cannot be given one without writing it; one that they have may go anywhere."""
    state = read_state(stage.state_dir)
    stage.write(admin={"listen": "127.0.0.1:0", "token": "second-token"}, log={"slow": "1s"})
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is Result.NEEDS_RESTART
    (fault,) = outcome.faults
    assert fault.startswith("admin.token: a secret that the processes were not started with")
    assert read_state(stage.state_dir) == state
    candidate = stage.document["routes"][0]["candidates"][0]
    candidate["set_headers"] = {"x-key": "third-token"}
    stage.write()
    (_, fault) = stage.reloader.reload(SOURCE).faults
    assert fault.startswith("routes.iris.candidates.v2.set_headers.x-key: a secret")
    candidate["set_headers"] = {"x-key": "first-token"}
    stage.write(admin={"listen": "127.0.0.1:0"})
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is Result.RELOADED
    (found,) = read_config(stage.state_dir, outcome.version).routes[0].candidates
    assert found.rewrite.set_headers == {"x-key": "first-token"}
    written = b"".join(path.read_bytes() for path in stage.state_dir.rglob("*") if path.is_file())
    assert not [n for n in ("first", "second", "third") if f"{n}-token".encode() in written]


async def test_a_change_of_the_token_holds_at_once(stage: Stage) -> None:
    """And the old one is asked for no more, from the answer to the reload on."""
    app = build_app(stage.config, stage.observer, None, stage.reloader)
    stage.document["routes"][0]["candidates"][0]["set_headers"] = {"x-key": "second-token"}
    stage.write()
    write_resolved(load_config(stage.path))  # as if both had been inherited
    stage.write(admin={"listen": "127.0.0.1:0", "token": "second-token"})

    def bearer(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        body, url = {"reason": "rotate"}, "/api/v1/reload"
        answer = await client.post(url, json=body, headers=bearer("first-token"))
        assert answer.status_code == 200
        assert "admin.token: changed (secret)" in answer.json()["diff"]
        assert (await client.post(url, json=body, headers=bearer("first-token"))).status_code == 401
        answer = await client.post(url, json=body, headers=bearer("second-token"))
        assert answer.json()["result"] == "unchanged"
        stage.write(workerz=1)
        answer = await client.post(url, json=body, headers=bearer("second-token"))
        assert answer.status_code == 422
        assert "did you mean 'workers'" in answer.json()["error"]
        late = {**body, "expires_ms": 1}
        answer = await client.post(url, json=late, headers=bearer("second-token"))
        assert answer.status_code == 412


def test_an_instance_without_a_file_says_so(stage: Stage) -> None:
    """A launcher that was started with a resolved config alone."""
    outcome = Reloader(stage.config, None, stage.observer).reload(SOURCE)
    assert outcome.result is Result.FAILED
    assert "was not started with a config file" in outcome.faults[0]


def test_live_weights_and_kills_outlive_a_reload(stage: Stage) -> None:
    """What the file changes replaces the live weight; more than the whole is refused."""
    page = stage.observer.page()
    update(page, lambda state: set_weight(state, Scope("iris", "v2"), 7_000))
    order_kill(page, Scope("iris", "v2"), Part.MIRROR, SOURCE)
    route = stage.document["routes"][0]
    stage.write(log={"slow": "1s"})
    assert stage.reloader.reload(SOURCE).is_good
    v2 = page.read().routes["iris"].candidates["v2"]
    assert (v2.weight_bp, v2.killed) == (7_000, Part.MIRROR)
    route["candidates"].append({"name": "v3", "backend": "b", "weight": "40%"})
    stage.write()
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is Result.INVALID
    assert "more than 100% (v2 70%, v3 40%)" in outcome.faults[0]
    route["candidates"][0]["weight"] = "20%"
    stage.write()
    assert stage.reloader.reload(SOURCE).is_good
    candidates = page.read().routes["iris"].candidates
    assert [c.weight_bp for c in candidates.values()] == [2_000, 4_000]
    assert candidates["v2"].killed is Part.MIRROR


def test_a_worker_that_stays_behind_is_told(stage: Stage) -> None:
    """Not while it may still be on its way, and not one that has gone."""
    worker = open_stats(stage.state_dir, 0, Layout(stage.config))
    now_ms = wall_ns() // 1_000_000
    worker.beat(pid=1, now_ms=now_ms)
    worker.runs(1)
    stage.write(log={"slow": "1s"})
    outcome = stage.reloader.reload(replace(SOURCE, now_ms=now_ms))
    worker.beat(pid=1, now_ms=wall_ns() // 1_000_000)
    assert stage.observer.lagging(outcome.revision) == [0]

    def told() -> list[str]:
        return [p for p in problems(stage.observer.snapshot()) if "older config" in p]

    assert told() == []
    stage.observer.reloads = replace(stage.observer.reloads, loaded_ms=now_ms - FOLLOW_MS - 1)
    worker.beat(pid=1, now_ms=wall_ns() // 1_000_000)
    assert told() == ["worker 0 runs an older config (revision 1, not 2); its log says why"]
    worker.runs(2)
    assert told() == []
    worker.runs(1)
    worker.beat(pid=1, now_ms=now_ms - HUNG_MS - 100)
    assert stage.observer.lagging(outcome.revision) == []
    worker.close()


def test_a_renewed_certificate_of_a_backend_is_a_change(stage: Stage, tmp_path: Path) -> None:
    """So that workers read it: the file says the same, what it names does not."""
    trustme = pytest.importorskip("trustme")
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    stage.document["backends"]["b"] |= {
        "endpoints": ["https://127.0.0.1:9002"],
        "tls": {"ca": str(ca)},
    }
    stage.write()
    assert stage.reloader.reload(SOURCE).is_good
    assert stage.reloader.reload(SOURCE).result is Result.UNCHANGED
    trustme.CA().cert_pem.write_to_path(ca)
    outcome = stage.reloader.reload(SOURCE)
    assert [str(c) for c in outcome.changes] == ["backends.b.tls.ca: file -> renewed file"]
    assert read_state(stage.state_dir).config_revision == 3


def test_a_long_diff_is_cut() -> None:
    """A decision is one line of a file, written at once."""
    changes = tuple(Change(f"key-{n}", "x" * 1_000, "y") for n in range(150))
    lines = diff_lines(changes)
    assert len(lines) == 101
    assert lines[-1] == "and 50 more"
    assert max(map(len, lines)) == 301
    assert set(GOOD) < set(Result)
    assert automatic("signal SIGHUP", "signal").who == "understudy"
