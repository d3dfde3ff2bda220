"""A ramp's state as one frozen value, how events change it, and its form on disk. Pure.

It decides what an event does to step, weight and times; which events happen is `policy`'s, which may
happen is `phases`'. Importing it costs no numpy, so that whoever only shows a state may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from proxy.config.resolved import Ramp
from proxy.ramp.phases import Event, Phase, next_phase

#: The step before the first: mirrored only.
SHADOW_STEP: Final = -1


@dataclass(frozen=True, slots=True)
class RampState:
    """Where the ramp of one candidate is.

    Attributes:
        step: index of the step whose weight holds; -1 in the shadow.
        weight_bp: the candidate's weight as far as the ramp has set or found it, basis points.
        entered_ms: when this step began, wall clock, milliseconds; `holding` belongs to its step.
        seen_ms: the latest time that it has seen: its time never goes back.
        is_approved: an operator has approved the step that is holding.
        lowers_from_bp: the weight before a fall that the control page has not confirmed; else None.
        weights_bp: the plan's weights when it was last started or resumed.
        who: who brought it into this phase.
        why: the reason for it.
    """

    phase: Phase = Phase.IDLE
    step: int = SHADOW_STEP
    weight_bp: int = 0
    entered_ms: int = 0
    seen_ms: int = 0
    is_approved: bool = False
    lowers_from_bp: int | None = None
    weights_bp: tuple[int, ...] = ()
    who: str = ""
    why: str = ""

    @property
    def words(self) -> str:
        """Say phase and place, such as `stepping 2 of 4 at 25%`."""
        if self.phase not in (Phase.STEPPING, Phase.HOLDING, Phase.PAUSED):
            return str(self.phase)
        place = "shadow"
        if self.step != SHADOW_STEP:
            place = f"step {self.step + 1} of {len(self.weights_bp)} at {self.weight_bp / 100:g}%"
        return f"{self.phase} {place}"

    def now(self, now_ms: int) -> int:
        """Return `now_ms`, or the latest time seen where the clock was set back."""
        return max(now_ms, self.seen_ms)

    def elapsed_s(self, now_ms: int) -> float:
        """Return how long the step has lasted; never negative."""
        return max(0, self.now(now_ms) - self.entered_ms) / 1000


@dataclass(frozen=True, slots=True)
class Cause:
    """Who causes an event, why, when, and which weight is live then."""

    who: str
    why: str
    now_ms: int
    live_bp: int


def changed(state: RampState, event: Event, plan: Ramp, cause: Cause) -> RampState:
    """Return the state after `event`.

    Only `advance` raises the weight. A `start` takes it to 0, a `resume` down to the highest step
    that is not above the live weight; `halt`, `eject`, `expire` and `abort` take it to 0.

    Raises:
        IllegalEventError: the phase does not take this event; nothing has changed.
    """
    phase = next_phase(state.phase, event)
    now_ms = state.now(cause.now_ms)
    after = replace(state, phase=phase, seen_ms=now_ms, who=cause.who, why=cause.why)
    if event is Event.APPROVE:
        return replace(after, is_approved=True)
    after = replace(after, is_approved=False)
    if event is Event.PASS:
        return after
    if event is Event.PAUSE:
        return replace(after, weight_bp=cause.live_bp, lowers_from_bp=None)
    weights = tuple(step.weight_bp for step in plan.steps)
    after = replace(after, entered_ms=now_ms)
    if event is Event.FINISH:
        return after
    if event is Event.ADVANCE:
        step = state.step + 1
        return replace(after, step=step, weight_bp=weights[step])
    step = step_below(plan, cause.live_bp) if event is Event.RESUME else SHADOW_STEP
    target_bp = weights[step] if step != SHADOW_STEP else 0
    if event in (Event.START, Event.RESUME, Event.RESTART):
        after = replace(after, weights_bp=weights)
    return replace(
        after,
        step=step,
        weight_bp=target_bp,
        lowers_from_bp=None if target_bp == cause.live_bp else cause.live_bp,
    )


def step_below(plan: Ramp, live_bp: int) -> int:
    """Return the highest step whose weight is not above `live_bp`; -1 where there is none."""
    fitting = [number for number, step in enumerate(plan.steps) if step.weight_bp <= live_bp]
    return fitting[-1] if fitting else SHADOW_STEP


def resume_event(plan: Ramp, live_bp: int) -> Event:
    """Return what an operator's `resume` means at this live weight."""
    return Event.RESTART if step_below(plan, live_bp) == SHADOW_STEP else Event.RESUME


def to_json(state: RampState) -> dict[str, Any]:
    """Return the state as JSON values."""
    return asdict(state)


def from_json(said: Mapping[str, Any]) -> RampState:
    """Return the state that `to_json` wrote.

    Raises:
        ValueError: it is not such a state.
    """
    try:
        state = RampState(
            **{
                **said,
                "phase": Phase(said["phase"]),
                "weights_bp": tuple(int(each) for each in said["weights_bp"]),
            }
        )
        numbers = (state.step, state.weight_bp, state.entered_ms, state.seen_ms)
        if not all(type(number) is int for number in numbers):
            raise ValueError("a number is none")  # noqa: TRY301 - told like every other fault
    except (LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"no state of a ramp: {type(exc).__name__}: {exc}") from exc
    return state
