"""What a ramp does next: the precedence of verdicts, and that nothing missing ever passes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from proxy.comparison.verdict import Outcome
from proxy.ramp.phases import ACTIVE, JUDGED, Event, Phase
from proxy.ramp.policy import Confirmation, next_action
from proxy.ramp.state import RampState, changed, from_json, resume_event, to_json
from tests.ramp.plans import MAX_S, MIN_PAIRS, MIN_S, PLAN, START_MS, by_operator, good

STARTED = changed(RampState(), Event.START, PLAN, by_operator())


def at(phase: Phase, step: int = 0, **changes: Any) -> RampState:
    """Return a state of the plan that has just entered `step`."""
    weight_bp = PLAN.steps[step].weight_bp if step >= 0 else 0
    return replace(STARTED, phase=phase, step=step, weight_bp=weight_bp, **changes)


def test_the_way_of_a_good_candidate() -> None:
    """Each step passes, holds and steps up; the manual one waits for an operator."""
    state, live_bp, now_s, events = STARTED, 0, 0.0, []
    for _ in range(20):
        now_s += MIN_S
        action = next_action(state, PLAN, good(now_s, live_bp))
        if action.event is None:
            if state.phase is Phase.PROMOTED:
                break
            assert "waits for an operator" in action.why
            action = replace(action, event=Event.APPROVE)
        assert action.event is not None
        state = changed(state, action.event, PLAN, by_operator(now_s, live_bp))
        live_bp = live_bp if action.set_bp is None else action.set_bp
        events.append(str(action.event))
    assert " ".join(events) == "pass advance pass advance pass approve advance pass finish"
    assert (state.phase, live_bp) == (Phase.PROMOTED, 10_000)


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.STEPPING, Phase.HOLDING])
@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"is_fresh": False, "reason": "the evidence is 20 s old"}, "20 s old"),
        ({"outcome": None, "reason": "no word of recorder 0"}, "no word"),
        ({"outcome": Outcome.NO_DATA, "reason": "coverage"}, "no_data: coverage"),
        ({"outcome": Outcome.CONTINUE, "reason": "undecided"}, "continue: undecided"),
        ({"pairs": MIN_PAIRS - 1}, "99 of 100 pairs"),
        ({"pairs": math.nan}, "nan of 100 pairs"),
    ],
)
def test_what_is_missing_holds_and_rolls_back_in_the_end(
    phase: Phase, worse: dict[str, Any], why: str
) -> None:
    """Stale, missing and not-a-number raise nothing, wait, and fall at the step's limit."""
    state = at(phase, -1 if phase is Phase.SHADOW else 0)
    held = next_action(state, PLAN, good(MIN_S, state.weight_bp, **worse))
    assert (held.event, held.set_bp) == (None, None)
    assert why in held.why
    late = next_action(state, PLAN, good(MAX_S, state.weight_bp, **worse))
    assert (late.event, late.set_bp) == (Event.EXPIRE, 0)
    assert why in late.why


def test_a_step_lasts_for_its_shortest_time() -> None:
    """However good the evidence; and a clock that was set back makes it no shorter."""
    state = at(Phase.STEPPING)
    assert next_action(state, PLAN, good(MIN_S - 1, 100)).event is None
    assert next_action(state, PLAN, good(-1000, 100)).why == "0 of 60 s"
    assert next_action(state, PLAN, good(MIN_S, 100)).event is Event.PASS


@pytest.mark.parametrize("phase", sorted(JUDGED))
def test_a_halt_rolls_back_from_everywhere_whatever_else_is_good(phase: Phase) -> None:
    """On stale evidence, too: what was seen once was seen."""
    state = at(phase)
    sight = good(0, 100, outcome=Outcome.HALT, reason="availability", is_fresh=False)
    action = next_action(state, PLAN, sight)
    assert (action.event, action.set_bp, action.why) == (Event.HALT, 0, "availability")
    fallen = changed(state, Event.HALT, PLAN, by_operator(1, 100))
    assert (fallen.weight_bp, fallen.lowers_from_bp, fallen.step) == (0, 100, -1)


@pytest.mark.parametrize("phase", sorted(Phase))
def test_what_a_guard_has_taken_out_is_rolled_back_and_not_paused(phase: Phase) -> None:
    """The guard has killed it as well, and the gates are content: neither keeps the ramp."""
    sight = good(MAX_S, 100, killed=("canary",), ejected="guard of worker 0: 5 of 5")
    action = next_action(at(phase), PLAN, sight)
    if phase not in JUDGED:
        assert action.event is None
        return
    assert (action.event, action.set_bp, action.why) == (Event.EJECT, 0, sight.ejected)
    fallen = changed(at(phase), Event.EJECT, PLAN, by_operator(1, 100))
    assert (fallen.phase, fallen.weight_bp, fallen.lowers_from_bp) == (Phase.ROLLED_BACK, 0, 100)
    assert next_action(fallen, PLAN, replace(sight, live_bp=None)).set_bp is None
    assert next_action(fallen, PLAN, sight).set_bp == 0
    assert next_action(replace(fallen, lowers_from_bp=None), PLAN, sight).event is None


@pytest.mark.parametrize("phase", sorted(ACTIVE - {Phase.PAUSED}))
def test_other_hands_pause_it(phase: Phase) -> None:
    """A kill, a weight set by hand, an edited plan; before the gates are asked."""
    state = at(phase)
    killed = next_action(state, PLAN, good(0, 100, killed=("canary",)))
    assert (killed.event, killed.why, killed.set_bp) == (Event.PAUSE, "killed: canary", None)
    moved = next_action(state, PLAN, good(0, 500, outcome=Outcome.HALT))
    assert (moved.event, moved.set_bp) == (Event.PAUSE, None)
    assert "by hand, from 1% to 5%" in moved.why
    edited = replace(PLAN, steps=PLAN.steps[:2])
    assert next_action(state, edited, good(0, 100)).why == "the config's steps were changed"


def test_nothing_is_done_without_a_control_page() -> None:
    """Only the primary serves then, and nobody knows the weight."""
    for phase in Phase:
        action = next_action(at(phase), PLAN, replace(good(MAX_S), live_bp=None))
        assert (action.event, action.set_bp) == (None, None)


def test_a_fall_is_carried_out_until_the_page_shows_it() -> None:
    """Control may have died in between, or the page was locked."""
    fallen = changed(at(Phase.STEPPING), Event.HALT, PLAN, by_operator(1, 100))
    assert next_action(fallen, PLAN, good(2, 100)).set_bp == 0
    assert next_action(fallen, PLAN, good(2, 0)).is_settled
    assert next_action(fallen, PLAN, good(2, 300)).is_settled  # an operator's since


def test_a_rise_that_only_the_page_knows_is_taken_over() -> None:
    """Control died between page and state; any other weight is somebody else's."""
    holding = at(Phase.HOLDING)
    own = next_action(holding, PLAN, good(0, 2_500, live_step=1, outcome=Outcome.CONTINUE))
    assert (own.event, own.set_bp) == (Event.ADVANCE, None)
    assert next_action(holding, PLAN, good(0, 2_500, live_step=-1)).event is Event.PAUSE
    assert next_action(holding, PLAN, good(0, 2_400, live_step=1)).event is Event.PAUSE


def test_a_step_up_waits_for_the_webhook_and_the_end_does_not() -> None:
    """It is asked only when all else is good."""
    missing = {"confirmation": Confirmation.MISSING}
    holding = at(Phase.HOLDING)
    asked = next_action(holding, PLAN, good(MIN_S, 100, **missing))
    assert (asked.event, asked.asks) == (None, True)
    assert not next_action(holding, PLAN, good(0, 100, **missing)).asks
    assert next_action(holding, PLAN, good(MAX_S, 100, **missing)).event is Event.EXPIRE
    last = at(Phase.HOLDING, 2)
    assert next_action(last, PLAN, good(MIN_S, 10_000, **missing)).event is Event.FINISH


@pytest.mark.parametrize(
    ("live_bp", "event", "weight_bp"),
    [(0, Event.RESTART, 0), (99, Event.RESTART, 0), (100, Event.RESUME, 100),
     (5_000, Event.RESUME, 2_500), (10_000, Event.RESUME, 10_000)],
)  # fmt: skip
def test_a_resume_goes_on_at_or_below_the_live_weight(
    live_bp: int, event: Event, weight_bp: int
) -> None:
    """It never raises one, and the step begins anew."""
    paused = changed(at(Phase.STEPPING, 1), Event.PAUSE, PLAN, by_operator(5, live_bp))
    assert paused.weight_bp == live_bp
    assert resume_event(PLAN, live_bp) is event
    resumed = changed(paused, event, PLAN, by_operator(9, live_bp))
    assert (resumed.weight_bp, resumed.elapsed_s(START_MS + 9_000)) == (weight_bp, 0)


@pytest.mark.parametrize("broken", [{}, {"phase": "up"}, {**to_json(STARTED), "step": "1"}])
def test_what_is_no_state_is_refused(broken: dict[str, Any]) -> None:
    """With a ValueError, whatever is wrong."""
    with pytest.raises(ValueError, match="no state of a ramp"):
        from_json(broken)
