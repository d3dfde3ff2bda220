"""The driver of ramps of one replica among others: the leader's decides, and all of them follow.

A step is told as one message, weight and state together, and is carried out by every replica, the
leader included, when it comes back through the topic (`adopt`). So a leader that dies either has
told it, and its successor goes on behind it, or has not, and its successor decides. What is told on a
state that is over holds nowhere (`proxy.replicas.shared`).

The evidence is that of all replicas. A replica that is cut off drives nothing: the weight stays. An
operator's word may be given to any replica; what it lowers is lowered there at once. Webhooks are asked
and told by the leader (`replica_notices`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from proxy.config.resolved import Config
from proxy.control.ejections import Ejection
from proxy.control.judging import Judging
from proxy.control.ramp_driver import AFRESH, VIA, WHO, RampDriver, decider
from proxy.control.ramp_entry import Entry
from proxy.control.ramp_files import Kept, kept_as_json, kept_of
from proxy.control.replica_counts import OwnCounts
from proxy.control.replica_gates import SharedGates
from proxy.control.replica_notices import FIELD, Notices
from proxy.control.replica_page import words_of
from proxy.control.replicas import Replicas
from proxy.control.webhooks import Webhooks
from proxy.errors import StateError
from proxy.ramp.phases import ACTIVE, JUDGED, Event
from proxy.ramp.policy import Action, Sight
from proxy.ramp.state import Cause, RampState, changed
from proxy.ramp.window import Judgement, Published, Window, settled
from proxy.replicas.evidence import Together
from proxy.replicas.messages import Weight
from proxy.state.control_page import ControlPage
from proxy.state.orders import Source
from proxy.telemetry import monotonic_s, wall_ns

#: From a step's decision until every replica that is not cut off has its weight: what they count
#: before that is not the step's.
SPREAD_MS: Final = 1_000
#: How often what recorders count is told, at most.
TELL_S: Final = 1.0
#: How long an operator's word waits for its way through the topic.
SETTLE_S: Final = 3.0


class SharedRampDriver(RampDriver):
    """Drives the ramps of one config together with other replicas.

    Args:
        config, page, webhooks, judging, ejections: as for `RampDriver`.
        replicas: this replica among the others.
    """

    def __init__(
        self,
        config: Config,
        page: Callable[[], ControlPage],
        webhooks: Webhooks,
        judging: Judging,
        ejections: Callable[[tuple[str, str]], tuple[Ejection, ...]],
        replicas: Replicas,
    ) -> None:
        super().__init__(config, page, webhooks, judging, ejections)
        self._replicas = replicas
        self._together = Together(config.version)
        self._own = OwnCounts(config, replicas)
        self._notices = Notices(replicas, webhooks)
        self._gates = SharedGates(replicas)
        self._next_tell_s = 0.0
        for name, entry in self.entries.items():
            holds = replicas.shared.weights.get(name)
            if holds is not None and holds.ramp is not None:
                entry.kept = kept_of(holds.ramp)
        replicas.follower = self

    def tick(self) -> None:
        """Tell what was counted here; look at everything once, and act if this replica leads."""
        counted = self._files.read()
        if monotonic_s() >= self._next_tell_s:
            self._next_tell_s = monotonic_s() + TELL_S
            self._own.tell(self._judged_entries(), counted, self._files.splits)
        if not self._is_stored:
            self._store()
        for entry in self.entries.values():
            if self._replicas.leads:
                self._notices.tell(entry)
                self._lead(entry)
                self._gates.tell(entry)
            else:
                entry.waits = self._gates.waits(entry)
                entry.judged = Judgement(reason=entry.waits)  # whatever it found when it led
        self._tell()

    def refusal(self) -> str:
        """Return why no ramp may be moved up from here; empty when it may."""
        return self._replicas.refusal()

    def give(self, entry: Entry, event: Event, source: Source) -> None:
        """Tell an operator's word; what it lowers is lowered here at once, cut off or not.

        Raises:
            IllegalEventError: the ramp's phase does not take it.
            StateError: the control page cannot be read, or this replica is cut off.
        """
        sight, generation = self._look(entry)
        if sight.live_bp is None:
            raise StateError("the control page cannot be read")
        cause = Cause(source.who, source.reason, sight.now_ms, sight.live_bp)
        after = changed(entry.kept.state, event, entry.plan, cause)
        if after.weight_bp < sight.live_bp:
            self._set_weight(entry, after.weight_bp, after, generation)
        if refusal := self.refusal():
            raise StateError(f"{refusal}; the weight here is {after.weight_bp / 100:g}%, "
                             "and its ramp is not told of it")  # fmt: skip
        if unfit := self._unfit(entry, after):
            raise StateError(unfit)
        self._propose(entry, event, after, source)

    async def settle(self, entry: Entry) -> str:
        """Wait until an operator's word has come back; return why it does not hold, else nothing."""
        deadline_s = monotonic_s() + SETTLE_S
        proposed = self._replicas.proposed(entry.name)
        # A state of this process is no event; it comes by a call of the line's task.
        while self._replicas.is_under_way(entry.name):
            if monotonic_s() > deadline_s:
                return "it was told, and has not come back from the other replicas yet; look at the status"
            await asyncio.sleep(0.01)
        holds = self._replicas.shared.weights.get(entry.name)
        if holds is None or holds.revision < proposed or not self._replicas.is_ours(holds):
            return "another replica changed it in the same moment; look at the status, and give it again"
        return ""

    def adopt(self, holds: Weight, happened: list[Weight]) -> None:
        """Take over what holds of a ramp; log and tell what has happened to it."""
        entry = self.entries.get(holds.name)
        if entry is None or holds.ramp is None:
            return
        before = entry.kept
        entry.kept = kept_of(holds.ramp)
        if entry.kept.window.opened_ms != before.window.opened_ms:
            entry.judged = Judgement(reason="the step has just begun")
        self._store()
        old = before.state
        missed = holds.event and not happened and old != entry.kept.state
        for each in [holds] if missed else happened:
            if each.ramp is not None:
                new = kept_of(each.ramp).state
                self._tell_of(entry, each, old, new)
                old = new
        if self._replicas.leads:
            self._notices.tell(entry)

    def _lead(self, entry: Entry) -> None:
        """Drive one ramp, where nothing of it is on its way."""
        if not self._replicas.is_settled(entry.name):
            return
        holds = self._replicas.shared.weights[entry.name]
        if holds.ramp is None or entry.kept.state.lowers_from_bp is not None:
            # A ramp from before there were replicas: from now on weight and state fall together.
            state = replace(entry.kept.state, lowers_from_bp=None)
            self._propose(entry, None, state, self._source(state.why), weight_bp=holds.weight_bp)
            return
        self._published[entry.name] = self._together.published(
            entry.name,
            self._replicas.shared.counted.get(entry.name, {}),
            self._replicas.living(),
            self._replicas.asides.tossed(entry.name),
        )
        self.drive(entry)

    def _judge(self, entry: Entry, now_ms: int) -> None:
        if not self._replicas.leads:
            entry.judged = Judgement(
                reason=f"{self._replicas.leader or 'nobody'} leads, and judges"
            )
            return
        published = self._published.get(entry.name, Published(problem="nothing is told yet"))
        window = settled(entry.kept.window, published)
        if window != entry.kept.window:
            entry.judged = Judgement(reason="the evidence of this step begins")
            if self._replicas.is_settled(entry.name):
                state = entry.kept.state
                self._propose(entry, None, state, self._source(state.why), window=window)
            return
        super()._judge(entry, now_ms)

    def _act(self, entry: Entry, action: Action, sight: Sight, generation: int) -> bool:
        """Tell what the core says; it is done when it comes back."""
        del generation
        if action.event is None or not self._replicas.is_settled(entry.name):
            return False
        who = decider(action.event)
        cause = Cause(who, action.why, sight.now_ms, sight.live_bp or 0)
        after = changed(entry.kept.state, action.event, entry.plan, cause)
        if unfit := self._unfit(entry, after):
            entry.trouble = unfit
            return False
        self._propose(entry, action.event, after, Source(who, VIA, action.why, sight.now_ms))
        return False

    def _unfit(self, entry: Entry, after: RampState) -> str:
        """Return why a weight does not fit beside the others of its route; empty when it does."""
        room_bp = self._replicas.shared.room_bp(entry.name)
        if after.weight_bp <= room_bp:
            return ""
        return (
            f"its weight cannot be set to {after.weight_bp / 100:g}%: the other candidates of the "
            f"route leave {max(room_bp, 0) / 100:g}%"
        )

    def _propose(
        self,
        entry: Entry,
        event: Event | None,
        after: RampState,
        source: Source,
        *,
        window: Window | None = None,
        weight_bp: int | None = None,
    ) -> None:
        """Tell a ramp's next state, with its weight; `event` None: nothing happens by it."""
        window = window or entry.kept.window
        if event in AFRESH:
            window = Window(source.now_ms + SPREAD_MS)
        is_own = source.via == VIA
        before = self._replicas.shared.weights.get(entry.name)
        has_moved = before is None or before.weight_bp != after.weight_bp
        state = replace(after, lowers_from_bp=None)
        notice = None
        if event is not None and entry.plan.notify is not None:
            notice = self._notice(entry, event, state)
        verdict = entry.judged.verdict if is_own and event is not None else None
        self._replicas.propose(
            Weight(
                entry.route.name,
                entry.candidate.name,
                after.weight_bp if weight_bp is None else weight_bp,
                after.step if has_moved or before is None else before.step,
                revision=0,
                term=self._replicas.shared.term if is_own else 0,
                origin=self._replicas.origin(source.who, source.via, source.reason),
                event="" if event is None else str(event),
                ramp={
                    **kept_as_json(Kept(state, window)),
                    FIELD: self._notices.carried(entry.name, notice),
                },
                evidence=verdict,
            )
        )

    def _source(self, why: str) -> Source:
        return Source(WHO, VIA, why, wall_ns() // 1_000_000)

    def _tell_of(self, entry: Entry, message: Weight, old: RampState, new: RampState) -> None:
        """Log one transition."""
        who, via, note = words_of(message.origin, self._replicas.life)
        source = Source(who, via, message.origin.reason, message.origin.at_ms)
        self.log_change(
            entry, message.event, (old, new), source, evidence=message.evidence, note=note
        )
        self._webhooks.forget(entry.name)

    def _shown(self, entry: Entry) -> Mapping[str, Any]:
        return self._gates.shown(entry)

    def _judged_entries(self) -> list[Entry]:
        """Return the ramps whose evidence matters now."""
        return [
            entry
            for entry in self.entries.values()
            if entry.kept.state.phase in JUDGED or entry.kept.state.phase in ACTIVE
        ]
