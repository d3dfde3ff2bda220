"""The driver of ramps: what it does to the control page, and what is left when control dies."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from proxy.comparison.verdict_json import loads_verdict
from proxy.control.app import build_app
from proxy.control.problems import problems
from proxy.control.snapshot import Observer
from proxy.ramp.phases import Event, Phase
from proxy.state.control_page import ControlPage, Part, RouteState, update
from proxy.state.kill import Scope
from proxy.state.orders import Source, order_kill, order_revive, order_weight
from tests.control.ramp_stage import Stage, ramp_config

ADA = Source("ada", "api", "try it", 1)
V2 = Scope("iris", "v2")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return a stage with a ramp that was started."""
    found = Stage(ramp_config(tmp_path))
    found.count()
    _say(found, Event.START)
    yield found
    found.close()


def _say(stage: Stage, event: Event) -> None:
    stage.driver.give(stage.driver.entries["iris/v2"], event, ADA)


def _tell_page(stage: Stage, weight_bp: int, ramp_step: int) -> None:
    """Write the candidate's state as something other than an order would."""
    candidate = replace(stage.live, weight_bp=weight_bp, ramp_step=ramp_step)
    routes = {"iris": RouteState(Part.NONE, {"v2": candidate})}
    update(stage.page, lambda state: replace(state, routes=routes))


def test_a_good_candidate_goes_all_the_way_whatever_dies_in_between(stage: Stage) -> None:
    """Control is replaced before every single look; each step needs pairs of its own."""
    weights = []
    for _ in range(12):
        stage.restart()
        weights.append(stage.live.weight_bp)
        stage.gather(same=500)
        if stage.state.phase is Phase.PROMOTED:
            break
    assert stage.live.weight_bp == 10_000
    assert weights == sorted(weights)
    assert {0, 2_500} <= set(weights)
    said = [each for each in stage.decisions if each["action"].startswith("ramp_")]
    assert [each["action"] for each in said] == [
        "ramp_start", "ramp_pass", "ramp_advance", "ramp_pass", "ramp_advance", "ramp_pass",
        "ramp_finish",
    ]  # fmt: skip
    assert said[2]["old"] == ["holding shadow"]
    assert said[2]["new"] == ["stepping step 1 of 2 at 25%"]
    for each in said[1:]:
        assert loads_verdict(orjson.dumps(each["evidence"])).reason == each["reason"]
    moved = [each for each in stage.decisions if each["action"] == "weight"]
    assert [(each["who"], each["old"], each["new"]) for each in moved] == [
        ("ramp", 0, 2_500), ("ramp", 2_500, 10_000),
    ]  # fmt: skip
    verdicts = [each for each in stage.decisions if each["action"] == "verdict"]
    assert {each["new"] for each in verdicts} == {"promote"}
    for each in (*moved, *verdicts):
        assert loads_verdict(orjson.dumps(each["evidence"])).outcome == "promote"


def test_pairs_from_before_a_step_raise_nothing(stage: Stage) -> None:
    """Nor do stale ones, nor none at all."""
    stage.count(same=10_000)
    stage.tick()
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.SHADOW, 0)
    stage.count(same=1_000, age_ms=60_000)
    stage.tick()
    assert re.fullmatch(r"the evidence is 6\d s old", stage.waits)
    (stage.state_dir / "evidence-0.json").unlink()
    stage.tick()
    assert (stage.live.weight_bp, stage.waits) == (0, "a recorder has counted nothing yet")
    (stage.state_dir / "evidence-0.json").write_text("{")
    stage.tick()
    assert "no use" in stage.waits


@pytest.mark.parametrize("paused", [False, True])
def test_a_bad_candidate_loses_its_users_also_while_it_is_paused(
    stage: Stage, *, paused: bool
) -> None:
    """The verdict is in the log, and only an operator starts again, from 0."""
    stage.gather()
    assert stage.live.weight_bp == 2_500
    if paused:
        _say(stage, Event.PAUSE)
    stage.gather(same=0, worse=200)
    assert (stage.state.phase, stage.live.weight_bp, stage.live.ramp_step) == (
        Phase.ROLLED_BACK, 0, -1,
    )  # fmt: skip
    last = [each for each in stage.decisions if each["action"] == "ramp_halt"][-1]
    assert last["evidence"]["outcome"] == "halt"
    fall = [each for each in stage.decisions if each["action"] == "weight"][-1]
    assert (fall["old"], fall["new"], fall["evidence"]) == (2_500, 0, last["evidence"])
    told = [each["new"] for each in stage.decisions if each["action"] == "verdict"]
    assert told[-1] == "halt"
    stage.restart()
    stage.gather(same=100_000)
    assert stage.live.weight_bp == 0
    _say(stage, Event.START)
    stage.gather(same=1_000)
    assert stage.live.weight_bp == 2_500


def test_a_rise_that_only_the_page_knows_is_taken_over(stage: Stage) -> None:
    """Control died after the page and before its own file."""
    stage.count()
    stage.tick()
    before = stage.state_dir / "before.json"
    shutil.copy(stage.state_dir / "ramps.json", before)
    stage.count(same=1_000)
    stage.tick()
    assert stage.live.weight_bp == 2_500
    holding = orjson.loads(before.read_bytes())
    holding["ramps"]["iris/v2"]["state"]["phase"] = "holding"
    (stage.state_dir / "ramps.json").write_bytes(orjson.dumps(holding))
    stage.restart()
    stage.tick()
    assert (stage.state.words, stage.live.weight_bp) == ("stepping step 1 of 2 at 25%", 2_500)


def test_a_fall_that_only_the_file_knows_is_carried_out(stage: Stage) -> None:
    """Control died after its own file and before the page; evidence or not."""
    stage.gather()
    stage.gather(same=0, worse=200)
    fallen = orjson.loads((stage.state_dir / "ramps.json").read_bytes())
    fallen["ramps"]["iris/v2"]["state"]["lowers_from_bp"] = 2_500
    (stage.state_dir / "ramps.json").write_bytes(orjson.dumps(fallen))
    _tell_page(stage, weight_bp=2_500, ramp_step=0)
    stage.restart()
    stage.tick()
    assert (stage.live.weight_bp, stage.state.lowers_from_bp) == (0, None)


def test_a_hand_that_moves_the_weight_pauses_it(stage: Stage) -> None:
    """And a resume goes on at or below that weight, with evidence of its own."""
    stage.gather()
    order_weight(stage.page, V2, 6_000, ADA)
    stage.gather()
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.PAUSED, 6_000)
    assert "by hand, from 25% to 60%" in stage.state.why
    _say(stage, Event.RESUME)
    assert (stage.state.words, stage.live.weight_bp) == ("stepping step 1 of 2 at 25%", 2_500)
    stage.gather()
    assert stage.live.weight_bp == 10_000


def test_a_kill_pauses_it_and_a_revive_does_not_go_on(stage: Stage) -> None:
    """The latch and the ramp are each opened by a word of their own."""
    stage.gather()
    order_kill(stage.page, V2, Part.CANARY, ADA)
    stage.gather()
    assert (stage.state.phase, stage.state.why) == (Phase.PAUSED, "killed: canary")
    order_revive(stage.page, Scope(), Part.CANARY, ADA)
    stage.gather()
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.PAUSED, 2_500)


def test_a_kill_between_look_and_rise_wins(stage: Stage) -> None:
    """The rise was decided on sight of a page that is not there any more."""
    stage.count()
    stage.tick()
    stage.count(same=1_000)
    looks = 0
    whole = stage.page

    def page() -> ControlPage:
        nonlocal looks
        looks += 1
        if looks == 3:  # look, pass, look: now the rise
            order_kill(whole, Scope(), Part.DEFAULT, ADA)
        return whole

    stage.driver._page = page
    stage.tick()
    assert looks >= 3
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.HOLDING, 0)
    stage.tick()
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.PAUSED, 0)


def test_a_disk_that_refuses_holds_up_no_fall(stage: Stage) -> None:
    """It is told as a problem, and the file is written as soon as it can be."""
    stage.gather()
    path = stage.state_dir / "ramps.json"
    path.unlink()
    path.mkdir()
    (path / "in the way").touch()
    stage.gather(same=0, worse=200)
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.ROLLED_BACK, 0)
    observer = Observer(stage.config)
    assert any("cannot write" in each for each in problems(observer.snapshot()))
    observer.close()
    shutil.rmtree(path)
    stage.tick()
    assert b"rolled_back" in path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ramps": {"iris/v2": {"state": {}}}}'])
def test_a_damaged_file_pauses_who_has_users(stage: Stage, content: bytes) -> None:
    """Nobody knows the step; the users stay, and the gates still roll back."""
    stage.gather()
    (stage.state_dir / "ramps.json").write_bytes(content)
    stage.restart()
    stage.gather()
    assert (stage.state.phase, stage.live.weight_bp) == (Phase.PAUSED, 2_500)
    stage.gather(same=0, worse=200)
    assert stage.live.weight_bp == 0


def test_an_unreadable_page_is_waited_for(stage: Stage) -> None:
    """Only the primary serves; the ramp does nothing and loses nothing."""
    stage.gather()
    path = stage.state_dir / "control.page"
    good = path.read_bytes()
    path.write_bytes(b"\0" * len(good))
    stage.tick()
    assert stage.waits == "the control page cannot be read"
    path.write_bytes(good)
    stage.gather()
    assert stage.live.weight_bp == 10_000


async def _post(stage: Stage, word: str, **body: object) -> httpx.Response:
    observer = Observer(stage.config)
    transport = httpx.ASGITransport(build_app(stage.config, observer, None, ramps=stage.ramps))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        route = body.pop("route", "iris")
        answer = await client.post(
            f"/api/v1/routes/{route}/ramp/{word}", json={"reason": "because", **body}
        )
    observer.close()
    return answer


async def test_the_words_of_the_api(tmp_path: Path) -> None:
    """Each says what was, what is, and what it waits for; a dry run changes nothing."""
    stage = Stage(ramp_config(tmp_path, approval="manual"))
    stage.count()
    tried = await _post(stage, "start", dry_run=True)
    assert (tried.json()["new"], stage.state.phase) == ("shadow", Phase.IDLE)
    assert stage.decisions == []
    started = (await _post(stage, "start")).json()
    assert (started["action"], started["scope"], started["old"], started["new"]) == (
        "start", "iris/v2", "idle", "shadow",
    )  # fmt: skip
    assert started["waits"]
    early = await _post(stage, "promote")
    assert early.status_code == 409
    assert "shadow takes no approve" in early.json()["error"]
    stage.gather()
    stage.gather()
    assert stage.waits.startswith("waits for an operator")
    promoted = (await _post(stage, "promote", candidate="v2")).json()
    assert (promoted["old"], promoted["new"]) == (
        "holding step 1 of 2 at 25%", "stepping step 2 of 2 at 100%",
    )  # fmt: skip
    assert stage.live.weight_bp == 10_000
    assert (await _post(stage, "pause")).json()["new"] == "paused step 2 of 2 at 100%"
    assert (await _post(stage, "resume")).json()["new"] == "stepping step 2 of 2 at 100%"
    aborted = (await _post(stage, "abort")).json()
    assert (aborted["new"], aborted["old_weight_bp"], stage.live.weight_bp) == (
        "rolled_back", 10_000, 0,
    )  # fmt: skip
    assert {each["who"] for each in stage.decisions} == {"unnamed", "ramp"}
    stage.close()


async def test_words_that_are_refused_change_nothing(stage: Stage) -> None:
    """What is unknown, what is killed, what is older than a kill."""
    assert (await _post(stage, "jump")).status_code == 404
    assert (await _post(stage, "pause", route="other")).status_code == 404
    assert (await _post(stage, "pause", candidate="v9")).status_code == 404
    assert (await _post(stage, "start")).status_code == 409
    assert (await _post(stage, "pause", reason="")).status_code == 422
    seen = stage.page.generation()
    _say(stage, Event.PAUSE)
    order_kill(stage.page, V2, Part.MIRROR, ADA)
    killed = await _post(stage, "resume")
    assert (killed.status_code, "revive it first" in killed.json()["error"]) == (409, True)
    order_revive(stage.page, Scope(), Part.MIRROR, ADA)
    assert (await _post(stage, "resume", seen_generation=seen)).status_code == 412
    assert (await _post(stage, "abort", expires_ms=1)).status_code == 412
    assert stage.state.phase is Phase.PAUSED


async def test_a_config_without_ramps_has_no_words_for_them(tmp_path: Path) -> None:
    """And says so."""
    stage = Stage(ramp_config(tmp_path))
    observer = Observer(stage.config)
    transport = httpx.ASGITransport(build_app(stage.config, observer))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        answer = await client.post("/api/v1/routes/iris/ramp/start", json={"reason": "r"})
    assert (answer.status_code, "there are: none" in answer.json()["error"]) == (404, True)
    observer.close()
    stage.close()


async def test_status_and_metrics_tell_where_it_is(stage: Stage) -> None:
    """From the files, so without the driver, too."""
    stage.gather()
    observer = Observer(stage.config)
    transport = httpx.ASGITransport(build_app(stage.config, observer))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        routes = (await client.get("/api/v1/routes")).json()["routes"]
        metrics = (await client.get("/metrics")).text
    observer.close()
    told = routes[0]["candidates"][0]["ramp"]
    assert (told["phase"], told["step"], told["steps"], told["weight_bp"]) == (
        "stepping", 1, 2, 2_500,
    )  # fmt: skip
    labels = 'candidate="v2",phase="stepping",route="iris"'
    assert f"understudy_ramp_phase{{{labels}}} 1.0" in metrics
    assert 'understudy_ramp_step{candidate="v2",route="iris"} 1.0' in metrics


async def test_a_reload_goes_on_where_it_was_and_may_take_the_ramp_away(stage: Stage) -> None:
    """New margins judge the same step with evidence of their own; without a ramp nothing drives."""
    stage.gather()
    edited = ramp_config(stage.state_dir, approval="manual")
    stage.ramps.follow(edited)
    assert stage.ramps.driver is not None
    stage.ramps.driver.tick()
    entry = stage.ramps.driver.entries["iris/v2"]
    assert entry.kept.state.words == "stepping step 1 of 2 at 25%"
    assert entry.waits == "recorder 0 counts for another config"
    stage.ramps.follow(replace(edited, routes=(replace(edited.routes[0], ramp=None),)))
    gone: object = stage.ramps.driver
    assert gone is None
    stage.restart()
    stage.tick()
    assert stage.live.weight_bp == 2_500
