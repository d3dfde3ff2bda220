"""What control makes of what a worker's guard has found: a kill that all obey, until a revive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.control.ejections import Ejection
from proxy.control.guards import Guards
from proxy.control.metrics import exposition
from proxy.control.problems import problems
from proxy.control.status import routes
from proxy.errors import StateError
from proxy.ramp.phases import Event, Phase
from proxy.state import decisions
from proxy.state.control_page import CandidateState, Part
from proxy.state.kill import ALL_PARTS, Scope
from proxy.state.mending import revive_corrupt
from proxy.state.orders import Source, order_kill, order_revive
from proxy.state.page_file import FILE_NAME
from proxy.state.stats_file import Layout, StatsPage, open_stats
from proxy.state.stats_page import GUARD_NOTE, Note
from proxy.state.takeover import adopt
from tests.control.ramp_stage import Stage, ramp_config
from tests.support.admin import Instance

V2 = Scope("iris", "v2")
ADA = Source("ada", "api", "mended", 1)
WORDS = "guard of worker 0: 5 of 7 live calls in 0.120 s were bad (4 failed, 1 too slow)"


def write_note(page: StatsPage, *, mark: int = 1, at_ms: int = 99, candidate: str = "v2") -> None:
    """Leave what a guard leaves."""
    said = {
        Note.FAILED: 4, Note.SLOW: 1, Note.CALLS: 7, Note.SPAN_US: 120_000, Note.AT_MS: at_ms,
        Note.MARK: mark,
    }  # fmt: skip
    for what, value in said.items():
        page.cells[page.layout.index(GUARD_NOTE, "iris", candidate, what)] = value
    page.add(1, "guard_ejections", "iris", candidate)


def guards_of(instance: Instance, told: Callable[[], None] = lambda: None) -> Guards:
    """Return what watches the instance."""
    return Guards(instance.observer.ejections, instance.observer.page, told)


def v2_of(instance: Instance) -> CandidateState:
    """Return the candidate on the page."""
    return instance.page.read().routes["iris"].candidates["v2"]


def test_a_note_becomes_a_kill_of_the_canary_alone_which_says_who_and_why(
    instance: Instance,
) -> None:
    """Once; the mirror goes on, and ramps are told after the page is written."""
    told = []
    guards = guards_of(instance, lambda: told.append(v2_of(instance).killed))
    assert guards.look() == 0
    write_note(instance.stats)
    assert [guards.look() for _ in range(3)] == [1, 0, 0]
    assert v2_of(instance).killed is Part.CANARY
    assert told == [Part.CANARY]
    (decision,) = decisions.read_last(instance.state_dir, 9)
    assert (decision["action"], decision["scope"], decision["new"]) == (
        "kill", "iris/v2", ["canary"],
    )  # fmt: skip
    assert (decision["who"], decision["via"], decision["reason"]) == ("guard", "worker 0", WORDS)


def test_only_a_revive_of_the_canary_ends_it(instance: Instance) -> None:
    """And a later finding is one again."""
    guards = guards_of(instance)
    write_note(instance.stats)
    guards.look()
    order_revive(instance.page, V2, Part.MIRROR, ADA)
    assert guards.look() == 0
    assert v2_of(instance).killed is Part.CANARY
    order_revive(instance.page, Scope("iris"), ALL_PARTS, ADA)
    assert (v2_of(instance).killed, v2_of(instance).revivals) == (Part.NONE, 1)
    assert guards.look() == 0
    write_note(instance.stats, mark=2)
    assert guards.look() == 1


def test_a_revive_that_control_did_not_live_to_see_is_not_undone(instance: Instance) -> None:
    """The worker has not taken its note back yet, and control has never read it."""
    write_note(instance.stats)
    order_revive(instance.page, Scope(), ALL_PARTS, ADA)
    assert guards_of(instance).look() == 0
    assert v2_of(instance).killed is Part.NONE


def test_a_revive_between_the_look_and_the_kill_wins(instance: Instance) -> None:
    """The order looks again under the lock."""
    write_note(instance.stats)
    (found,) = instance.observer.ejections()

    order_revive(instance.page, V2, ALL_PARTS, ADA)
    assert guards_of(instance)._kill(instance.page, found) is False
    assert v2_of(instance).killed is Part.NONE


def test_what_an_operator_has_killed_already_is_not_killed_twice(instance: Instance) -> None:
    """But a kill of everything is another one: its revive must not bring a bad candidate back."""
    guards = guards_of(instance)
    order_kill(instance.page, Scope(), Part.DEFAULT, ADA)
    write_note(instance.stats)
    assert guards.look() == 1
    write_note(instance.stats, candidate="v3")
    order_kill(instance.page, Scope("iris", "v3"), Part.DEFAULT, ADA)
    assert guards.look() == 0


def test_a_page_that_cannot_be_changed_is_tried_again_later(instance: Instance) -> None:
    """Without waiting for its lock ten times a second."""
    looks = []

    def refuse() -> object:
        looks.append(1)
        raise StateError("the lock is held")

    write_note(instance.stats)
    guards = Guards(instance.observer.ejections, refuse, lambda: None)  # type: ignore[arg-type]
    assert [guards.look() for _ in range(5)] == [0] * 5
    assert len(looks) == 1


def test_notes_of_workers_that_the_config_no_longer_has_count(instance: Instance) -> None:
    """Four workers became one while control was dead."""
    gone = open_stats(instance.state_dir, 3, Layout(instance.config))
    write_note(gone)
    assert guards_of(instance).look() == 1
    gone.close()


def test_a_takeover_keeps_the_note(instance: Instance) -> None:
    """A worker that was killed has found what it has found."""
    write_note(instance.stats)
    adopt(instance.stats)
    (found,) = instance.observer.ejections()
    assert found.words == WORDS


def test_a_mended_page_opens_it_as_it_opens_every_kill(instance: Instance) -> None:
    """Whatever number the note bears."""
    write_note(instance.stats)
    (instance.state_dir / FILE_NAME).write_bytes(bytes(9))
    revive_corrupt(instance.state_dir, instance.config, ADA)
    assert guards_of(instance).look() == 0


def test_status_and_metrics_tell_of_it_until_the_revive(instance: Instance) -> None:
    """Why, how often, and how to end it."""

    def samples() -> set[str]:
        text = exposition(instance.observer, "text/plain")[0].decode()
        return {line for line in text.splitlines() if 'candidate="v2"' in line}

    name = '{candidate="v2",route="iris"}'
    instance.stats.add(4, "guard_failed", "iris", "v2")
    instance.stats.add(1_500_000, "guard_latency_us", "iris", "v2")
    assert f"understudy_guard_ejected{name} 0.0" in samples()
    write_note(instance.stats)
    snapshot = instance.observer.snapshot()
    assert routes(snapshot)[0]["candidates"][0]["guard"] == {
        "ejected": True, "why": WORDS, "at_ms": 99, "ejections": 1, "failed": 4, "slow": 0,
        "latency_ms": 1500.0,
    }  # fmt: skip
    (problem,) = problems(snapshot)
    assert problem.startswith(f"iris/v2: out of live traffic: {WORDS}")
    assert "understudy revive --route iris --candidate v2" in problem
    assert {
        f"understudy_guard_ejected{name} 1.0",
        f"understudy_guard_ejections_total{name} 1.0",
        f"understudy_guard_failed_total{name} 4.0",
        f"understudy_guard_slow_total{name} 0.0",
        f"understudy_guard_latency_seconds{name} 1.5",
    } <= samples()
    assert not any("guard_note" in line for line in samples())
    order_revive(instance.page, V2, ALL_PARTS, ADA)
    assert f"understudy_guard_ejected{name} 0.0" in samples()
    assert problems(instance.observer.snapshot()) == []


@pytest.fixture
def stepping(tmp_path: Path) -> Stage:
    """Return a ramp that serves a quarter of the users."""
    stage = Stage(ramp_config(tmp_path))
    stage.count()
    stage.driver.give(stage.driver.entries["iris/v2"], Event.START, ADA)
    stage.gather()
    assert stage.live.weight_bp == 2_500
    return stage


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_ramp_is_rolled_back_and_not_paused_by_the_guards_kill(
    stepping: Stage, *, is_paused: bool, is_replaced: bool
) -> None:
    """Also when control died between the kill and the ramp."""
    found = Ejection(0, "iris", "v2", 1, 4, 1, 7, 0.12, 99)
    if is_paused:
        stepping.driver.give(stepping.driver.entries["iris/v2"], Event.PAUSE, ADA)
    stepping.found = (found,)
    if is_replaced:
        assert Guards(lambda: (found,), stepping.give_page, lambda: None).look() == 1
        stepping.restart()
        stepping.tick()
    else:
        Guards(lambda: (found,), stepping.give_page, stepping.ramps.tick).look()
    assert (stepping.state.phase, stepping.live.weight_bp) == (Phase.ROLLED_BACK, 0)
    assert (stepping.state.who, stepping.state.why) == ("guard", WORDS)
    last = stepping.decisions[-3:]
    assert [(each["action"], each["who"]) for each in last if each["action"] != "weight"] == [
        ("kill", "guard"), ("ramp_eject", "guard"),
    ]  # fmt: skip
    _start_again(stepping)
    stepping.close()


def _start_again(stage: Stage) -> None:
    """Revive and start: the note that is still on the worker's page rolls nothing back."""
    stage.gather(same=10_000)
    assert stage.state.words == "rolled_back"
    order_revive(stage.page, V2, ALL_PARTS, ADA)
    stage.driver.give(stage.driver.entries["iris/v2"], Event.START, ADA)
    stage.gather()
    assert stage.state.words == "stepping step 1 of 2 at 25%"
