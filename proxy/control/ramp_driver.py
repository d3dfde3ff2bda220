"""The driver of ramps: looks, lets the pure core decide, and does what it says.

A rise goes to the control page first and is remembered then; everything else is remembered first. So
whenever control dies, what it finds at its next start is a state to go on from: a rise that only the
page knows bears the step's number and is taken over, a fall that only the state knows is carried out
(`proxy.ramp.policy`). A disk that refuses holds up no fall.

Weights are set by the code of `PUT …/weight`, on sight of the page that was looked at: a kill that
comes in between wins.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from proxy.comparison.evidence import params_of
from proxy.comparison.verdict import Verdict
from proxy.config.resolved import Config
from proxy.control.ejections import Ejection, standing
from proxy.control.guards import WHO as GUARD
from proxy.control.judging import Judging
from proxy.control.ramp_entry import Entry, told
from proxy.control.ramp_files import EvidenceFiles, Kept, load, store, store_seen
from proxy.control.told_verdicts import ToldVerdicts
from proxy.control.webhooks import Webhooks
from proxy.errors import StateError
from proxy.ramp.phases import ACTIVE, JUDGED, Event, Phase
from proxy.ramp.policy import Action, Confirmation, Sight, next_action
from proxy.ramp.state import SHADOW_STEP, Cause, RampState, changed
from proxy.ramp.window import Judgement, Published, Window, settled
from proxy.state import decisions
from proxy.state.control_page import CandidateState, ControlPage, Part, RouteState
from proxy.state.decision_record import Decision
from proxy.state.kill import Scope, part_names
from proxy.state.orders import Source, order_weight
from proxy.telemetry import rfc3339, wall_ns

logger = logging.getLogger("understudy.control")

#: Who it is in the decisions log.
WHO: Final = "ramp"
VIA: Final = "control"
#: Events after which a step's evidence begins anew.
AFRESH: Final = frozenset({Event.START, Event.ADVANCE, Event.FINISH, Event.RESUME, Event.RESTART})
#: Actions in one tick: pass, advance and a fall that is settled are three.
_MOST_ACTIONS: Final = 4


def decider(event: Event | None) -> str:
    """Return who does what a driver does by itself, in the words of the decisions log."""
    return GUARD if event is Event.EJECT else WHO


class RampDriver:
    """Drives the ramps of one config.

    Args:
        config: the config that runs.
        page: returns the control page; raises StateError when it cannot be opened.
        webhooks: makes the calls.
        judging: makes the verdicts.
        ejections: tells what guards have found of a candidate.
    """

    def __init__(
        self,
        config: Config,
        page: Callable[[], ControlPage],
        webhooks: Webhooks,
        judging: Judging,
        ejections: Callable[[tuple[str, str]], tuple[Ejection, ...]],
    ) -> None:
        self._page = page
        self._ejections = ejections
        self._judging = judging
        self._webhooks = webhooks
        self._state_dir = Path(config.state_dir)
        self._instance = config.instance
        self._files = EvidenceFiles(self._state_dir, config.recorders, config.version)
        self._is_stored = True
        kept = self._remembered(config)
        self.entries = {
            f"{route.name}/{candidate.name}": Entry(
                route, candidate, route.ramp,
                kept.get(f"{route.name}/{candidate.name}", Kept(RampState(), Window(0))),
            )
            for route in config.routes
            if route.ramp is not None
            for candidate in route.candidates
        }  # fmt: skip
        self._verdicts = ToldVerdicts()
        self._published: dict[str, Published] = {}
        self._seen: dict[str, Any] = {}

    def _remembered(self, config: Config) -> dict[str, Kept]:
        """Return what the file says; where it is damaged, whoever has traffic is paused.

        So a candidate with users keeps them, and the gates still roll it back.
        """
        try:
            return load(self._state_dir)
        except StateError as exc:
            logger.error("%s; ramps with traffic are paused", exc)  # noqa: TRY400 - the text says all
            why = str(exc)
        try:
            live = self._page().read().routes
        except StateError:
            return {}
        now_ms = wall_ns() // 1_000_000
        return {
            f"{route.name}/{name}": Kept(
                RampState(
                    Phase.PAUSED, SHADOW_STEP, found.weight_bp, now_ms, now_ms, who=WHO, why=why
                ),
                Window(now_ms),
            )
            for route in config.routes
            if route.ramp is not None
            for name, found in live.get(route.name, RouteState()).candidates.items()
            if found.weight_bp
        }

    def tick(self) -> None:
        """Look at everything once, and act."""
        self._published = self._files.read()
        if not self._is_stored:
            self._store()
        for entry in self.entries.values():
            self.drive(entry)
        self._tell()

    def drive(self, entry: Entry) -> None:
        """Act on one ramp until there is nothing to do for now."""
        for _ in range(_MOST_ACTIONS):
            sight, generation = self._look(entry)
            action = next_action(entry.kept.state, entry.plan, sight)
            entry.waits = action.why
            if action.asks:
                entry.waits += f": {self._ask(entry)}"
            if not self._act(entry, action, sight, generation):
                return

    def give(self, entry: Entry, event: Event, source: Source) -> None:
        """Carry out an operator's word, and what follows from it.

        Raises:
            IllegalEventError: the ramp's phase does not take it.
            StateError: the control page cannot be read.
        """
        sight, generation = self._look(entry)
        if sight.live_bp is None:
            raise StateError("the control page cannot be read")
        cause = Cause(source.who, source.reason, sight.now_ms, sight.live_bp)
        after = changed(entry.kept.state, event, entry.plan, cause)
        falls = after.lowers_from_bp is not None
        self._change(entry, event, after, source)
        if falls:
            self._set_weight(entry, after.weight_bp, after, generation)
        self.drive(entry)
        self._tell()

    def refusal(self) -> str:
        """Return why no ramp may be moved up from here; empty when it may."""
        return ""

    async def settle(self, entry: Entry) -> str:
        """Return why an operator's word does not hold after all; it holds at once here."""
        del entry
        return ""

    def look(self, entry: Entry) -> Sight:
        """Return what is seen of one ramp now, and judge its evidence."""
        return self._look(entry)[0]

    def statistics(self) -> dict[str, int]:
        """Return how many ramps are in each phase."""
        found: dict[str, int] = {}
        for entry in self.entries.values():
            phase = str(entry.kept.state.phase)
            found[phase] = found.get(phase, 0) + 1
        return found

    def _look(self, entry: Entry) -> tuple[Sight, int]:
        """Return the sight, and the generation of the page that it is of."""
        now_ms = wall_ns() // 1_000_000
        entry.trouble = ""
        try:
            page = self._page()
            generation, state = page.generation(), page.read()
        except StateError as exc:
            entry.trouble = str(exc)
            return Sight(now_ms, None), 0
        names = entry.route.name, entry.candidate.name
        live = state.routes.get(names[0], RouteState()).candidates.get(names[1], CandidateState())
        if entry.kept.state.phase in JUDGED:
            self._judge(entry, now_ms)
        found = entry.judged
        ejected = None
        if (
            live.killed & Part.CANARY
        ):  # else control's guards have yet to kill it: first that, then this
            ejected = standing(self._ejections(names), state).get(entry.name)
        sight = Sight(
            now_ms, live.weight_bp, live.ramp_step, tuple(part_names(state.killed_parts(*names))),
            found.outcome, found.reason, found.pairs, found.is_fresh, self._confirmation(entry),
            "" if ejected is None else ejected.words,
        )  # fmt: skip
        return sight, generation

    def _judge(self, entry: Entry, now_ms: int) -> None:
        published = self._published.get(entry.name, self._published.get("", Published()))
        window = settled(entry.kept.window, published)
        if window != entry.kept.window:
            entry.kept = replace(entry.kept, window=window)
            self._store()
        params = params_of(entry.route, entry.candidate.name)
        entry.judged = self._judging.latest(entry.name, window, published, params, now_ms)
        if entry.judged.verdict is not None:
            self._tell_verdict(entry, entry.judged.verdict, now_ms)

    def _act(self, entry: Entry, action: Action, sight: Sight, generation: int) -> bool:
        """Do what the core says; return whether there may be more to do."""
        state = entry.kept.state
        if action.is_settled:
            self._keep(entry, replace(state, lowers_from_bp=None))
            return True
        if action.event is None:
            if action.set_bp is not None:
                return self._set_weight(entry, action.set_bp, state, generation)
            return False
        who = decider(action.event)
        cause = Cause(who, action.why, sight.now_ms, sight.live_bp or 0)
        after = changed(state, action.event, entry.plan, cause)
        is_rise = action.set_bp is not None and action.set_bp > cause.live_bp
        if is_rise and not self._set_weight(entry, after.weight_bp, after, generation):
            return False
        source = Source(who, VIA, action.why, sight.now_ms)
        self._change(entry, action.event, after, source)
        if after.lowers_from_bp is not None:
            return self._set_weight(entry, after.weight_bp, after, generation)
        return True

    def _change(self, entry: Entry, event: Event, after: RampState, source: Source) -> None:
        """Remember a transition, log it, tell of it."""
        before, judged = entry.kept.state, entry.judged
        window = Window(source.now_ms) if event in AFRESH else entry.kept.window
        entry.kept = Kept(after, window)
        if event in AFRESH:
            entry.judged = Judgement(reason="the step has just begun")
            self._verdicts.forget(entry.name)
        self._webhooks.forget(entry.name)
        self._store()
        evidence = judged.verdict if source.who == WHO else None
        self.log_change(entry, str(event), (before, after), source, evidence=evidence)
        if entry.plan.notify is not None:
            self._webhooks.notify(entry.plan.notify, self._notice(entry, event, after))

    def log_change(
        self,
        entry: Entry,
        event: str,
        states: tuple[RampState, RampState],
        source: Source,
        *,
        evidence: Any = None,
        note: str = "",
    ) -> None:
        """Write a transition, from one state to the other, to the decisions and to the log."""
        old, new = (state.words for state in states)
        decision = Decision(
            source.now_ms, f"ramp_{event}", source.who, source.via, entry.name, [old], [new],
            source.reason, note, evidence,
        )  # fmt: skip
        self._log(entry, decision)
        logger.warning(
            "ramp of %s: %s: %s -> %s by %s: %s",
            entry.name,
            event,
            old,
            new,
            source.who,
            source.reason,
        )

    def _tell_verdict(self, entry: Entry, verdict: Verdict, now_ms: int) -> None:
        if (news := self._verdicts.news(entry.name, verdict, now_ms)) is None:
            return
        old, new = news
        decision = Decision(
            now_ms, "verdict", WHO, VIA, entry.name, old, new, verdict.reason, evidence=verdict
        )
        self._log(entry, decision)

    def _log(self, entry: Entry, decision: Decision) -> None:
        if error := decisions.append_all(self._state_dir, (decision,)):
            entry.trouble = error

    def _set_weight(self, entry: Entry, weight_bp: int, state: RampState, generation: int) -> bool:
        """Put a weight on the page; return whether it is there. A fall does not mind a kill."""
        scope = Scope(entry.route.name, entry.candidate.name)
        is_rise = state.lowers_from_bp is None
        now_ms = wall_ns() // 1_000_000
        seen = generation if is_rise else None
        source = Source(WHO, VIA, state.why, now_ms, seen, entry.judged.verdict)
        try:
            change = order_weight(self._page(), scope, weight_bp, source, state.step)
        except StateError as exc:
            entry.trouble = f"its weight cannot be set to {weight_bp / 100:g}%: {exc}"
            return False
        entry.trouble = change.log_error
        return True

    def _confirmation(self, entry: Entry) -> Confirmation:
        state = entry.kept.state
        if entry.plan.confirm is None or state.phase is not Phase.HOLDING:
            return Confirmation.NOT_ASKED
        return self._webhooks.confirmation(entry.name, (state.step, state.entered_ms))

    def _ask(self, entry: Entry) -> str:
        """Ask for the word on the next step up; return what was last said."""
        state, hook = entry.kept.state, entry.plan.confirm
        assert hook is not None
        payload = self._payload(entry, "confirm", state)
        payload["next_weight_percent"] = entry.plan.steps[state.step + 1].weight_bp / 100
        self._webhooks.ask(entry.name, hook, (state.step, state.entered_ms), payload)
        return self._webhooks.answer(entry.name)

    def _notice(self, entry: Entry, event: Event, state: RampState) -> dict[str, Any]:
        """Return what the `notify` webhook is told; the same `id` is the same transition."""
        return {"id": str(uuid.uuid4()), **self._payload(entry, str(event), state)}

    def _payload(self, entry: Entry, event: str, state: RampState) -> dict[str, Any]:
        return {
            "ts": rfc3339(wall_ns() // 1_000_000),
            "instance": self._instance,
            "route": entry.route.name,
            "candidate": entry.candidate.name,
            "event": event,
            "phase": str(state.phase),
            "step": state.step + 1,
            "weight_percent": state.weight_bp / 100,
            "who": state.who,
            "why": state.why,
        }

    def _keep(self, entry: Entry, state: RampState) -> None:
        entry.kept = replace(entry.kept, state=state)
        self._store()

    def _store(self) -> None:
        """Remember everything; a refusal is told, and tried again with the next tick."""
        kept = {
            name: entry.kept
            for name, entry in self.entries.items()
            if entry.kept.state.phase is not Phase.IDLE
        }
        try:
            store(self._state_dir, kept)
            self._is_stored = True
        except StateError as exc:
            self._is_stored = False
            for entry in self.entries.values():
                entry.trouble = str(exc)

    def _tell(self) -> None:
        """Write what was seen, if it has changed."""
        seen = {name: self._shown(entry) for name, entry in self.entries.items()}
        if seen != self._seen:
            self._seen = seen
            store_seen(self._state_dir, seen)

    def _shown(self, entry: Entry) -> Mapping[str, Any]:
        """Return what the status tells of a ramp."""
        return told(entry)


def other_active(driver: RampDriver, entry: Entry) -> Entry | None:
    """Return another candidate of the same route whose ramp is under way."""
    return next(
        (
            other
            for other in driver.entries.values()
            if other.route is entry.route
            and other is not entry
            and other.kept.state.phase in ACTIVE
        ),
        None,
    )
