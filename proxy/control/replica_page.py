"""The control page of a replica beside what all have agreed on: what goes which way, and does it.

What that is is decided in `proxy.replicas.merging`, scope by scope; this module looks at the page,
writes to it, and remembers the base in `state_dir/replica.json`. Page and base are written in this
order, so that whatever dies in between is found out by the next look: the page then says what is
agreed on already.

What was told and has not come back through the topic yet is *pending*: it is not told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from proxy.control.small_files import replace_json
from proxy.errors import StateError
from proxy.replicas.merging import (
    KillBase,
    KillPlan,
    WeightBase,
    WeightPlan,
    merge_kill,
    merge_weight,
)
from proxy.replicas.messages import Kill, Message, Origin, Weight
from proxy.replicas.shared import Shared
from proxy.state import decisions, kill as latch
from proxy.state.control_page import ControlPage, ControlState, Part, RouteState, update
from proxy.state.decision_record import Decision
from proxy.state.joining import BASE_NAME, is_held, released
from proxy.state.kill import Scope, part_names
from proxy.telemetry import rfc3339, wall_ns

#: How many decisions are searched for the words of a change that is told.
_RECENT = 50


@dataclass(slots=True)
class Base:
    """What page and replicas last agreed on; `ramps`: the revision of each ramp that is adopted."""

    kills: dict[str, KillBase] = field(default_factory=dict)
    weights: dict[str, WeightBase] = field(default_factory=dict)
    ramps: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What was told of a key: its revision, and the base that it makes when it comes back."""

    revision: int
    kill: KillBase | None = None
    weight: WeightBase | None = None


@dataclass(frozen=True, slots=True)
class _Plans:
    kills: dict[str, KillPlan]
    weights: dict[str, WeightPlan]
    is_held: bool

    @property
    def needs_page(self) -> bool:
        """Whether the page is to be written."""
        pages = [plan.page for plan in self.kills.values()]
        pages += [plan.page for plan in self.weights.values()]
        return self.is_held or any(page is not None for page in pages)


class ReplicaPage:
    """One replica's page, beside `shared`.

    Attributes:
        trouble: why something that is agreed on is not on the page; empty when all is.

    Args:
        state_dir: of the instance.
        page: returns the control page; raises StateError when it cannot be opened.
        shared: what all have agreed on.
        origin: makes the origin of a message, given who, via and reason.
    """

    def __init__(
        self,
        state_dir: Path,
        page: Callable[[], ControlPage],
        shared: Shared,
        origin: Callable[[str, str, str], Origin],
    ) -> None:
        self._state_dir = state_dir
        self._page = page
        self._shared = shared
        self._origin = origin
        self._pending: dict[str, _Pending] = {}
        self._stored = b""
        self.base = self._load()
        self.trouble = ""

    def generation(self) -> int:
        """Return the number that every write of the page raises; -1 without a page."""
        try:
            return self._page().generation()
        except StateError:
            return -1

    def reconcile(self) -> list[Message]:
        """Put on the page what others have changed; return what is to be told to them."""
        self.trouble = ""
        try:
            page = self._page()
            state = page.read()
            plans = self._plans(state)
            if plans.needs_page:
                state, plans = self._write(page)
        except StateError as exc:
            self.trouble = str(exc)
            return []
        told = [*self._tell_kills(state, plans), *self._tell_weights(state, plans)]
        self._agree(state, plans)
        self.store()
        return told

    def came_back(self, message: Message, *, holds: bool) -> None:
        """Take note that a message of this life has come through the topic."""
        pending = self._pending.get(message.key)
        if pending is None or pending.revision != getattr(message, "revision", None):
            return
        del self._pending[message.key]
        if isinstance(message, Kill) and pending.kill is not None and (holds or message.adds):
            self.base.kills[message.scope] = pending.kill
        if isinstance(message, Weight) and pending.weight is not None and holds:
            self.base.weights[message.name] = pending.weight

    def propose(self, message: Weight) -> None:
        """Take note of a ramp's step that was told and is not on the page yet."""
        self._pending[message.key] = _Pending(message.revision)

    def pending_revision(self, name: str) -> int:
        """Return the revision of what was told of a candidate and is on its way, else 0."""
        pending = self._pending.get(f"weight/{name}")
        return 0 if pending is None else pending.revision

    def forget_pending(self) -> None:
        """Take note that what was told may never come."""
        self._pending.clear()

    def is_settled(self, name: str) -> bool:
        """Return whether the page has the weight that is agreed on, and nothing of it is pending."""
        shared, base = self._shared.weights.get(name), self.base.weights.get(name)
        if shared is None or base is None or f"weight/{name}" in self._pending:
            return False
        return base == WeightBase(shared.weight_bp, shared.revision)

    def store(self) -> None:
        """Remember the base, if it has changed; a disk that refuses is told."""
        content = orjson.dumps(self.base)
        if content == self._stored:
            return
        try:
            replace_json(self._state_dir / BASE_NAME, content, is_synced=False)
            self._stored = content
        except StateError as exc:
            self.trouble = str(exc)

    def _load(self) -> Base:
        try:
            said = orjson.loads((self._state_dir / BASE_NAME).read_bytes())
            return Base(
                {scope: KillBase(**each) for scope, each in said["kills"].items()},
                {name: WeightBase(**each) for name, each in said["weights"].items()},
                {name: int(revision) for name, revision in said["ramps"].items()},
            )
        except (OSError, LookupError, TypeError, ValueError, AttributeError):
            return Base()  # as one that has just joined: kills are told, weights are the others'

    def _plans(self, seen: ControlState) -> _Plans:
        state = released(seen)
        kills = {}
        for scope, parts in _scopes(state):
            note = state.notes.get(scope, "") if parts else ""
            base = self.base.kills.get(scope, KillBase())
            plan = merge_kill(base, parts, note, self._shared_kill(scope))
            kills[scope] = self._quiet(f"kill/{scope}", plan)
        weights = {}
        for name, weight_bp in _weights(state):
            plan_of = merge_weight(
                self.base.weights.get(name), weight_bp, self._shared_weight(name)
            )
            weights[name] = self._quiet(f"weight/{name}", plan_of)
        return _Plans(kills, weights, is_held(seen))

    def _quiet(self, key: str, plan: Any) -> Any:
        """Return a plan without what is told already."""
        return replace(plan, publish=None) if key in self._pending else plan

    def _shared_kill(self, scope: str) -> KillBase:
        found = self._shared.kills.get(scope)
        return KillBase() if found is None else KillBase(found.parts, "", found.revision)

    def _shared_weight(self, name: str) -> WeightBase | None:
        found = self._shared.weights.get(name)
        return None if found is None else WeightBase(found.weight_bp, found.revision)

    def _write(self, page: ControlPage) -> tuple[ControlState, _Plans]:
        """Decide again under the page's lock, write, and log; return the new state and its plans."""
        found: list[tuple[ControlState, _Plans]] = []
        troubles: list[str] = []

        def change(seen: ControlState) -> ControlState:
            plans = self._plans(seen)
            found.append((released(seen), plans))
            state, trouble = self._changed(released(seen), plans)
            troubles.append(trouble)
            if any(_adds(plans, before=released(seen))):
                return replace(state, kill_generation=page.next_generation())
            return state

        after = update(page, change)
        before, plans = found[0]
        self.trouble = troubles[0]
        self._note_written(before, after, plans)
        return after, self._plans(after)

    def _changed(self, state: ControlState, plans: _Plans) -> tuple[ControlState, str]:
        """Return the state as planned: kills first, then falls, then rises; and what did not fit."""
        for scope, plan in plans.kills.items():
            if plan.page is not None:
                state = _with_parts(state, scope, Part(plan.page), self._note(scope))
        live = dict(_weights(state))
        moves = [(name, plan.page) for name, plan in plans.weights.items() if plan.page is not None]
        trouble = ""
        for name, weight_bp in sorted(moves, key=lambda move: move[1] - live[move[0]]):
            step = self._shared.weights[name].step
            try:
                state = latch.set_weight(state, scope_of(name), weight_bp, step)
            except StateError as exc:
                trouble = str(exc)
        return state, trouble

    def _note_written(self, before: ControlState, after: ControlState, plans: _Plans) -> None:
        """Move the base along with what was written, and log it."""
        parts_before, parts_after = dict(_scopes(before)), dict(_scopes(after))
        for scope, plan in plans.kills.items():
            if plan.page is None or parts_after[scope] != plan.page:
                continue
            shared, base = self._shared_kill(scope), self.base.kills.get(scope, KillBase())
            is_new = parts_before[scope] and before.notes.get(scope, "") != base.note
            note = base.note if is_new else after.notes.get(scope, "")
            self.base.kills[scope] = KillBase(shared.parts, note, shared.revision)
            action = "kill" if plan.page & ~parts_before[scope] else "revive"
            old, new = (part_names(Part(each)) for each in (parts_before[scope], plan.page))
            self._log(action, scope, self._shared.kills[scope].origin, old, new)
        weights_before, weights_after = dict(_weights(before)), dict(_weights(after))
        for name, move in plans.weights.items():
            if move.page is None or weights_after[name] != move.page:
                continue
            shared_weight = self._shared.weights[name]
            self.base.weights[name] = WeightBase(move.page, shared_weight.revision)
            self._log("weight", name, shared_weight.origin, weights_before[name], move.page)

    def _log(self, action: str, scope: str, origin: Origin, old: Any, new: Any) -> None:
        now_ms = wall_ns() // 1_000_000
        who, via, note = words_of(origin, self._origin("", "", "").life)
        decision = Decision(now_ms, action, who, via, scope, old, new, origin.reason, note)
        try:
            decisions.append(self._state_dir, decision)
        except StateError as exc:
            self.trouble = str(exc)

    def _note(self, scope: str) -> str:
        origin = self._shared.kills[scope].origin
        who, via, _ = words_of(origin, "")
        return f"{rfc3339(origin.at_ms)} {who} ({via}): {origin.reason}"

    def _agree(self, state: ControlState, plans: _Plans) -> None:
        """Move the base where page and replicas agree."""
        for scope, plan in plans.kills.items():
            shared = self._shared.kills.get(scope)
            is_agreed = (
                plan.page is None and plan.publish is None and f"kill/{scope}" not in self._pending
            )
            if is_agreed and shared is not None:
                note = state.notes.get(scope, "") if shared.parts else ""
                self.base.kills[scope] = KillBase(shared.parts, note, shared.revision)
        for name, move in plans.weights.items():
            found = self._shared_weight(name)
            is_agreed = (
                move.page is None and move.publish is None and f"weight/{name}" not in self._pending
            )
            if is_agreed and found is not None:
                self.base.weights[name] = found

    def _tell_kills(self, state: ControlState, plans: _Plans) -> Iterator[Message]:
        for scope, plan in plans.kills.items():
            if plan.publish is None:
                continue
            shared = self._shared_kill(scope)
            note = state.notes.get(scope, "")
            new = part_names(Part(plan.publish))
            origin = self._cause("kill" if plan.adds else "revive", scope, new, note)
            message = Kill(scope, plan.publish, shared.revision + 1, plan.adds, origin)
            base = KillBase(plan.publish, note if plan.publish else "", message.revision)
            self._pending[message.key] = _Pending(message.revision, kill=base)
            yield message

    def _tell_weights(self, state: ControlState, plans: _Plans) -> Iterator[Message]:
        told = [
            (bp - self._shared_bp(name), name, bp)
            for name, plan in plans.weights.items()
            if (bp := plan.publish) is not None
        ]
        for _, name, weight_bp in sorted(told):  # falls first: they make room for rises
            shared, scope = self._shared.weights.get(name), scope_of(name)
            live = state.routes[scope.route].candidates[scope.candidate]
            message = Weight(
                scope.route, scope.candidate, weight_bp, live.ramp_step,
                1 if shared is None else shared.revision + 1, 0, self._cause("weight", name, weight_bp, ""),
                ramp=None if shared is None else shared.ramp,
            )  # fmt: skip
            base = WeightBase(weight_bp, message.revision)
            self._pending[message.key] = _Pending(message.revision, weight=base)
            yield message

    def _shared_bp(self, name: str) -> int:
        found = self._shared.weights.get(name)
        return 0 if found is None else found.weight_bp

    def _cause(self, action: str, scope: str, new: list[str] | int, note: str) -> Origin:
        """Return the origin of a change of the page, in the words of its decision if it is logged."""
        try:
            for each in decisions.read_last(self._state_dir, _RECENT):
                if (each.get("action"), each.get("scope")) == (action, scope):
                    return self._origin(
                        *(str(each.get(key, "")) for key in ("who", "via", "reason"))
                    )
        except StateError:
            pass
        return self._origin("unknown", "control page", note)


def scope_of(name: str) -> Scope:
    """Return what `*`, `route` or `route/candidate` means; names of routes hold no slash."""
    route, _, candidate = name.partition("/")
    return Scope() if name == "*" else Scope(route, candidate)


def words_of(origin: Origin, life: str) -> tuple[str, str, str]:
    """Return who, via and note of a decision; of another life: the replica, and who gave it there."""
    if origin.life == life:
        return origin.who, origin.via, ""
    return f"replica {origin.instance}", origin.via, f"given there by {origin.who}"


def _scopes(state: ControlState) -> Iterator[tuple[str, int]]:
    """Yield every scope of the page with its killed parts."""
    yield "*", int(state.killed)
    for name, route in state.routes.items():
        yield name, int(route.killed)
        for candidate, found in route.candidates.items():
            yield f"{name}/{candidate}", int(found.killed)


def _weights(state: ControlState) -> Iterator[tuple[str, int]]:
    for name, route in state.routes.items():
        for candidate, found in route.candidates.items():
            yield f"{name}/{candidate}", found.weight_bp


def _adds(plans: _Plans, *, before: ControlState) -> Iterator[bool]:
    """Yield whether each scope that is written gets a part more."""
    parts = dict(_scopes(before))
    for scope, plan in plans.kills.items():
        yield plan.page is not None and bool(plan.page & ~parts[scope])


def _with_parts(state: ControlState, scope: str, parts: Part, note: str) -> ControlState:
    """Return `state` with exactly these parts of a scope killed, and none inside it touched."""
    meant = scope_of(scope)
    notes = {name: text for name, text in state.notes.items() if name != scope}
    if parts:
        notes[scope] = note
    state = replace(state, notes=notes)
    if not meant.route:
        return replace(state, killed=parts)
    route = state.routes[meant.route]
    if meant.candidate:
        inner: Mapping[str, Any] = {
            **route.candidates,
            meant.candidate: replace(route.candidates[meant.candidate], killed=parts),
        }
        changed = RouteState(route.killed, dict(inner))
    else:
        changed = RouteState(parts, route.candidates)
    return replace(state, routes={**state.routes, meant.route: changed})
