"""What a ramp does next. A state, a plan and what is seen go in; one frozen action comes out. Pure.

Precedence, the worst first; the first that holds decides:

1. The control page cannot be read: nothing is done (only the primary serves then).
2. A fall that is not confirmed on the page yet is carried out.
3. A guard has taken it out of live traffic: *roll back*, in every phase that is judged.
4. Part of the candidate is killed, its weight was moved by another hand, or the plan was edited:
   *pause*.
5. The gates say `halt`: *roll back*, in every phase that is judged, on whatever evidence there is.
6. The step's evidence is good: *pass*, and once nothing more is asked, *advance* or *finish*.
7. The step has lasted for its `max_duration`: *roll back*.
8. Hold, and say what is missing.

Only `promote` on fresh evidence of this step alone, with `min_pairs` in every gate and after
`min_duration`, passes or advances. `no_data`, a verdict that is missing and evidence that is stale
are none of that, so they hold, and roll back in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from proxy.comparison.verdict import Outcome
from proxy.config.resolved import Ramp, Step
from proxy.ramp.phases import JUDGED, Event, Phase
from proxy.ramp.state import SHADOW_STEP, RampState


class Confirmation(Enum):
    """What the `confirm` webhook says of the step up that is next."""

    NOT_ASKED = "not asked"
    GIVEN = "given"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen at one moment.

    Attributes:
        now_ms: wall clock, milliseconds.
        live_bp: the candidate's weight on the control page; None when it cannot be read.
        live_step: the step whose weight the ramp has set there; -1 for any other hand's.
        killed: the parts of the candidate that are killed.
        outcome: the verdict on this step's evidence; None when there is none.
        reason: of the verdict, or why there is none.
        pairs: that every gate has seen in this step: the least of them.
        is_fresh: the evidence is of now, and of this step alone.
        confirmation: of the `confirm` webhook.
        ejected: why a worker's guard has taken the candidate out; empty: none has.
    """

    now_ms: int
    live_bp: int | None
    live_step: int = SHADOW_STEP
    killed: tuple[str, ...] = ()
    outcome: Outcome | None = None
    reason: str = ""
    pairs: int = 0
    is_fresh: bool = False
    confirmation: Confirmation = Confirmation.NOT_ASKED
    ejected: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done.

    Attributes:
        event: for the state; None when it stays as it is.
        why: the reason, or what the ramp waits for.
        set_bp: the weight to put on the control page; None leaves it.
        is_settled: the fall that was due is on the page.
        asks: the `confirm` webhook should be asked now.
    """

    event: Event | None
    why: str
    set_bp: int | None = None
    is_settled: bool = False
    asks: bool = False


def next_action(state: RampState, plan: Ramp, sight: Sight) -> Action:
    """Return what the ramp does on this sight."""
    if sight.live_bp is None:
        return Action(None, "the control page cannot be read")
    if state.lowers_from_bp is not None:
        return _unfinished_fall(state, sight.live_bp)
    if state.phase not in JUDGED:
        return Action(None, state.why)
    if sight.ejected:
        return Action(Event.EJECT, sight.ejected, set_bp=0)
    hand = None if state.phase is Phase.PAUSED else _other_hand(state, plan, sight)
    return hand or _judged(state, plan, sight)


def _judged(state: RampState, plan: Ramp, sight: Sight) -> Action:
    """Return what the gates and the clock make of a ramp that nobody else has in hand."""
    if sight.outcome is Outcome.HALT:
        return Action(Event.HALT, sight.reason, set_bp=0)
    if state.phase in (Phase.PAUSED, Phase.PROMOTED):
        return Action(None, state.why)
    step = plan.steps[max(state.step, 0)]
    elapsed_s = state.elapsed_s(sight.now_ms)
    missing = _missing(step, sight, elapsed_s)
    found = Action(None, missing) if missing else _passed(state, plan, sight)
    if found.event is None and step.max_duration_s and elapsed_s >= step.max_duration_s:
        why = f"max_duration of {step.max_duration_s:g} s is over; {found.why}"
        return Action(Event.EXPIRE, why, set_bp=0)
    return found


def _unfinished_fall(state: RampState, live_bp: int) -> Action:
    if live_bp != state.lowers_from_bp:  # done, or moved again by somebody else since
        return Action(None, state.why, is_settled=True)
    return Action(None, state.why, set_bp=state.weight_bp)


def _other_hand(state: RampState, plan: Ramp, sight: Sight) -> Action | None:
    """Return the action where somebody else has the say, or control died in the middle of a rise."""
    if sight.killed:
        return Action(Event.PAUSE, f"killed: {', '.join(sight.killed)}")
    weights = tuple(step.weight_bp for step in plan.steps)
    if weights != state.weights_bp:
        return Action(Event.PAUSE, "the config's steps were changed")
    if sight.live_bp == state.weight_bp:
        return None
    following = state.step + 1
    is_own = (
        state.phase is Phase.HOLDING
        and sight.live_step == following < len(weights)
        and sight.live_bp == weights[following]
    )
    if is_own:  # the page was written and the state was not: the rise was decided on good evidence
        return Action(Event.ADVANCE, "the rise is on the control page")
    return Action(
        Event.PAUSE,
        f"the weight was moved by hand, from {state.weight_bp / 100:g}% to "
        f"{(sight.live_bp or 0) / 100:g}%",
    )


def _missing(step: Step, sight: Sight, elapsed_s: float) -> str:
    """Return what the evidence of a step lacks; empty when it passes."""
    if not sight.is_fresh:
        return sight.reason or "the evidence is stale"
    if sight.outcome is not Outcome.PROMOTE:
        return f"{sight.outcome or 'no verdict'}: {sight.reason}"
    if not sight.pairs >= step.min_pairs:
        return f"{sight.pairs} of {step.min_pairs} pairs"
    if not elapsed_s >= step.min_duration_s:
        return f"{elapsed_s:.0f} of {step.min_duration_s:g} s"
    return ""


def _passed(state: RampState, plan: Ramp, sight: Sight) -> Action:
    """Return the action of a step whose evidence is good."""
    if state.phase is not Phase.HOLDING:
        return Action(Event.PASS, sight.reason)
    needs_word = state.step != SHADOW_STEP and plan.steps[state.step].approval == "manual"
    if needs_word and not state.is_approved:
        return Action(None, "waits for an operator: understudy ramp promote")
    following = state.step + 1
    if following == len(plan.steps):
        return Action(Event.FINISH, sight.reason)
    if sight.confirmation is Confirmation.MISSING:
        return Action(None, "waits for the confirm webhook", asks=True)
    return Action(Event.ADVANCE, sight.reason, set_bp=plan.steps[following].weight_bp)
