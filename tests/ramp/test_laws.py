"""Laws that hold however evidence, operators, kills, clocks and crashes come together."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import orjson
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.comparison.verdict import Outcome
from proxy.ramp.phases import BY_OPERATOR, TRANSITIONS, Event, Phase
from proxy.ramp.policy import Confirmation, Sight, next_action
from proxy.ramp.state import Cause, RampState, changed, from_json, resume_event, to_json
from tests.ramp.plans import MIN_PAIRS, MIN_S, PLAN, START_MS

WEIGHTS = st.sampled_from([0, 100, 500, 2_500, 10_000])


class RampMachine(RuleBasedStateMachine):
    """A ramp, its control page and its state file, as the driver keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.live_bp, self.live_step = 0, -1
        self.state = RampState()
        self.disk = to_json(self.state)

    @rule(seconds=st.sampled_from([0, 1, 30, 60, 600, 10_000]))
    def time_passes(self, seconds: int) -> None:
        """Forwards."""
        self.now_ms += seconds * 1000

    @rule(seconds=st.integers(1, 100_000))
    def the_clock_is_set_back(self, seconds: int) -> None:
        """By whoever sets clocks."""
        self.now_ms -= seconds * 1000

    @rule(
        outcome=st.sampled_from([None, *Outcome, Outcome.PROMOTE, Outcome.PROMOTE]),
        pairs=st.sampled_from([0, MIN_PAIRS - 1, MIN_PAIRS, 10 * MIN_PAIRS]),
        is_fresh=st.booleans(),
        killed=st.sampled_from([(), (), (), ("canary",)]),
        ejected=st.sampled_from(["", "", "", "guard"]),
        is_readable=st.sampled_from([True, True, True, False]),
        confirmation=st.sampled_from(Confirmation),
        crash=st.sampled_from(["never", "never", "before", "after"]),
    )
    def a_tick(  # noqa: PLR0913 - what may be seen at once
        self,
        outcome: Outcome | None,
        pairs: int,
        *,
        is_fresh: bool,
        killed: tuple[str, ...],
        ejected: str,
        is_readable: bool,
        confirmation: Confirmation,
        crash: str,
    ) -> None:
        """Look, decide, act; control may die before or after the page is written."""
        live_bp = self.live_bp if is_readable else None
        sight = Sight(
            self.now_ms,
            live_bp,
            self.live_step,
            killed,
            outcome,
            "r",
            pairs,
            is_fresh,
            confirmation,
            ejected,
        )
        before = self.state
        action = next_action(before, PLAN, sight)
        if action.set_bp is not None and action.set_bp > self.live_bp:
            assert (outcome, is_fresh, killed, ejected) == (Outcome.PROMOTE, True, (), "")
            assert action.event is Event.ADVANCE
            assert pairs >= MIN_PAIRS
            assert before.elapsed_s(self.now_ms) >= MIN_S
            assert confirmation is not Confirmation.MISSING
        if action.event is not None:
            assert action.event not in BY_OPERATOR
            cause = Cause("ramp", action.why, self.now_ms, self.live_bp)
            self._act(changed(before, action.event, PLAN, cause), action.set_bp, crash)
        elif action.is_settled:
            self._act(replace(before, lowers_from_bp=None), None, crash)
        else:
            self._act(before, action.set_bp, crash)

    @rule(
        event=st.sampled_from([Event.START, Event.PAUSE, Event.RESUME, Event.APPROVE, Event.ABORT]),
        crash=st.sampled_from(["never", "before", "after"]),
    )
    def an_operator_speaks(self, event: Event, crash: str) -> None:
        """Words that the phase does not take are refused by the table, and tried elsewhere."""
        if event is Event.RESUME:
            event = resume_event(PLAN, self.live_bp)
        if event not in TRANSITIONS[self.state.phase] or self.state.lowers_from_bp is not None:
            return
        after = changed(self.state, event, PLAN, Cause("ada", "r", self.now_ms, self.live_bp))
        assert after.weight_bp <= self.live_bp or event is Event.APPROVE
        self._act(after, after.weight_bp if after.lowers_from_bp is not None else None, crash)

    @rule(weight_bp=WEIGHTS)
    def a_hand_moves_the_weight(self, weight_bp: int) -> None:
        """As `understudy weight` does: outside the ramp's steps."""
        self.live_bp, self.live_step = weight_bp, -1

    def _act(self, after: RampState, set_bp: int | None, crash: str) -> None:
        """Write as the driver does: a rise to the page first, all else to the state first."""
        before, is_rise = self.state, set_bp is not None and set_bp > self.live_bp
        if crash == "before":
            self._restart()
            return
        if is_rise:
            self._write_page(after, set_bp)
        else:
            self._write_state(after)
        if crash == "after":
            self._restart()
        else:
            if is_rise:
                self._write_state(after)
            else:
                self._write_page(after, set_bp)
        if before.phase is Phase.ROLLED_BACK and after.phase is not Phase.ROLLED_BACK:
            assert after.who == "ada"

    def _write_page(self, after: RampState, set_bp: int | None) -> None:
        if set_bp is not None:
            self.live_bp, self.live_step = set_bp, after.step

    def _write_state(self, after: RampState) -> None:
        assert after.seen_ms >= self.state.seen_ms
        self.state = after
        self.disk = to_json(after)

    def _restart(self) -> None:
        self.state = from_json(orjson.loads(orjson.dumps(self.disk)))

    @invariant()
    def the_form_on_disk_is_the_state(self) -> None:
        """In whatever phase."""
        assert from_json(orjson.loads(orjson.dumps(to_json(self.state)))) == self.state

    @invariant()
    def time_is_never_negative(self) -> None:
        """Whatever the clock does."""
        assert self.state.elapsed_s(self.now_ms) >= 0

    @invariant()
    def the_weight_is_a_steps_or_nothing_while_it_drives(self) -> None:
        """Paused, it is whatever the hand has set."""
        if self.state.phase not in (Phase.PAUSED, Phase.IDLE):
            weights = {step.weight_bp for step in PLAN.steps}
            assert self.state.weight_bp in {0, *weights}
        if self.state.phase in (Phase.SHADOW, Phase.ROLLED_BACK):
            assert self.state.weight_bp == 0


TestRamp = RampMachine.TestCase
