"""An operator's orders, carried out on the page and written to the decisions log.

The one way by which control, the launcher and the CLI kill, revive and re-weight, so that all of
them do the same in the same order: the page first, because a kill is wanted now; the log after it.
What a kill means is decided in `proxy.state.kill`, what is done about an unreadable page in
`proxy.state.mending`; who may give an order is decided by the caller.

A kill always holds. A revive or a weight may have waited somewhere (behind a frozen control, say)
while somebody killed: given with the generation of the page that its giver had seen, it is refused
when a kill was latched after that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.errors import StateError
from proxy.state import decisions, kill as latch
from proxy.state.control_page import ControlPage, ControlState, Part, update
from proxy.state.decision_record import Decision
from proxy.state.kill import Scope
from proxy.state.page_file import locked, try_page
from proxy.state.syncing import sync_soon
from proxy.telemetry import rfc3339

#: How much of a kill file's first line is kept as the reason.
REASON_BYTES = 200


class OvertakenError(StateError):
    """A kill was latched after this order was given, so it is not carried out."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who gives an order, which way it came, why, when, and on sight of what.

    Attributes:
        now_ms: wall clock, milliseconds.
        seen_generation: of the page that the giver had seen; None: whatever is there now.
        evidence: the verdict that it rests on; None: no verdict.
    """

    who: str
    via: str
    reason: str
    now_ms: int
    seen_generation: int | None = None
    evidence: Any = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an order did: the state before and after it, and the decision that was logged.

    Attributes:
        log_error: why the decision is not in the log; empty when it is.
        is_guess: a kill file named nothing known and was taken for everything.
    """

    before: ControlState
    after: ControlState
    decision: Decision
    log_error: str = ""
    is_guess: bool = False

    @property
    def killed(self) -> dict[str, list[str]]:
        """Every latched scope with its killed parts, after the order."""
        return still_killed(self.after)

    @property
    def opened(self) -> dict[str, list[str]]:
        """Every scope that the order opened, with the parts that were killed and are not."""
        found = {
            scope: [part for part in parts if part not in self.killed.get(scope, ())]
            for scope, parts in still_killed(self.before).items()
        }
        return {scope: parts for scope, parts in found.items() if parts}


def order_kill(page: ControlPage, scope: Scope, part: Part, source: Source) -> Change:
    """Latch `part` of `scope`; when this returns, the next request of every worker obeys.

    Raises:
        StateError: the scope is unknown, or the page cannot be changed.
    """
    return _kill(page, scope, part, source, None)


def order_ejection(page: ControlPage, scope: Scope, mark: int, source: Source) -> Change:
    """Latch the canary of a candidate that a worker's guard has taken out.

    Args:
        page: the control page.
        scope: of a candidate that the page has.
        mark: one more than the revivals that the guard went by.
        source: which guard, and why.

    Raises:
        OvertakenError: the candidate has been revived since the guard found what it found.
        StateError: the page cannot be changed.
    """
    return _kill(page, scope, Part.CANARY, source, mark)


def _kill(page: ControlPage, scope: Scope, part: Part, source: Source, mark: int | None) -> Change:
    def shut(state: ControlState) -> ControlState:
        if mark is not None:
            now = state.routes[scope.route].candidates[scope.candidate]
            if now.revivals + 1 != mark:
                raise OvertakenError(f"{scope} has been revived since its guard took it out")
        killed = latch.kill(state, scope, part, note_of(source))
        return replace(killed, kill_generation=page.next_generation())

    before, after = _publish(page, shut)
    old, new = killed_of(before, scope), killed_of(after, scope)
    change = Change(before, after, make_decision("kill", scope, old, new, source))
    return logged(page.path.parent, change)


def order_file_kills(page: ControlPage, now_ms: int) -> dict[str, Change]:
    """Latch every kill file that is new or was touched; return what changed, by file name.

    Raises:
        StateError: the folder cannot be read, or the page cannot be changed.
    """
    state_dir = page.path.parent
    try_page(state_dir)
    with locked(state_dir):
        state = page.read()
        after, changes = latch_files(state, state_dir, now_ms)
        if changes:
            after = replace(after, kill_generation=page.next_generation())
        if after != state:
            page.write(after)
    if after != state:
        sync_soon(page.path)
    return {name: logged(state_dir, change) for name, change in changes.items()}


def latch_files(
    state: ControlState, state_dir: Path, now_ms: int
) -> tuple[ControlState, dict[str, Change]]:
    """Return `state` with every kill file latched that it does not know, and what that changed.

    Raises:
        StateError: the folder cannot be read.
    """
    stamps = latch.kill_file_stamps(state_dir)
    changes: dict[str, Change] = {}
    for name in sorted(name for name in stamps if state.kill_files.get(name) != stamps[name]):
        meant = latch.file_scope(name, state)
        scope = meant or Scope()
        source = _file_source(state_dir / name, now_ms)
        before, state = state, latch.kill(state, scope, Part.DEFAULT, note_of(source))
        old, new = killed_of(before, scope), killed_of(state, scope)
        decision = make_decision("kill", scope, old, new, source)
        changes[name] = Change(before, state, decision, is_guess=meant is None)
    return replace(state, kill_files=stamps), changes


def order_revive(page: ControlPage, scope: Scope, part: Part, source: Source) -> Change:
    """Open `part` of `scope` and of every scope inside it, and remove their kill files.

    The files go first, under the same lock under which the launcher latches them, so it can neither
    latch one again after this nor see one that is already answered. What they mean and `part`
    leaves is latched on the page. With a `seen_generation` in the source, a kill file that nobody
    has latched yet is a kill that the giver has not seen: it is latched now.

    Raises:
        OvertakenError: a kill was latched since the page that the source had seen.
        StateError: the scope is unknown, a kill file cannot be removed, or the page is corrupt.
    """
    state_dir = page.path.parent
    if source.seen_generation is not None:
        order_file_kills(page, source.now_ms)

    def reopen(state: ControlState) -> ControlState:
        _refuse_if_overtaken(page, state, source)
        files = latch.kill_files_in(state_dir, scope, state)
        for name, meant in files.items():
            state = latch.kill(state, meant, Part.DEFAULT, f"file {name}")
        latch.remove_kill_files(state_dir, files)
        kept = {name: stamp for name, stamp in state.kill_files.items() if name not in files}
        return latch.revive(replace(state, kill_files=kept), scope, part)

    before, after = _publish(page, reopen)
    old, new = killed_of(before, scope), killed_of(after, scope)
    change = Change(before, after, make_decision("revive", scope, old, new, source))
    return logged(state_dir, change)


def order_weight(
    page: ControlPage, scope: Scope, weight_bp: int, source: Source, ramp_step: int = -1
) -> Change:
    """Set the live canary weight of a candidate, in basis points.

    Only the driver of ramps gives a `ramp_step`, so the page tells its weights from an operator's.

    Raises:
        OvertakenError: a kill was latched since the page that the source had seen.
        StateError: the scope is unknown, the weight does not fit beside the other candidates', or
            the page cannot be changed.
    """

    def shift(state: ControlState) -> ControlState:
        _refuse_if_overtaken(page, state, source)
        return latch.set_weight(state, scope, weight_bp, ramp_step)

    before, after = _publish(page, shift)
    old = before.routes[scope.route].candidates[scope.candidate].weight_bp
    change = Change(before, after, make_decision("weight", scope, old, weight_bp, source))
    return logged(page.path.parent, change)


def still_killed(state: ControlState) -> dict[str, list[str]]:
    """Return every latched scope with its killed parts."""
    found: dict[str, list[str]] = {}
    if state.killed:
        found["*"] = latch.part_names(state.killed)
    for name, route in state.routes.items():
        if route.killed:
            found[name] = latch.part_names(route.killed)
        for key, candidate in route.candidates.items():
            if candidate.killed:
                found[f"{name}/{key}"] = latch.part_names(candidate.killed)
    return found


def make_decision(
    action: str,
    scope: Scope,
    old: list[str] | int | str | None,
    new: list[str] | int | str | None,
    source: Source,
) -> Decision:
    """Return what goes into the log."""
    return Decision(
        source.now_ms, action, source.who, source.via, str(scope), old, new, source.reason,
        evidence=source.evidence,
    )  # fmt: skip


def weights_moved(before: ControlState, after: ControlState, source: Source) -> list[Decision]:
    """Return a decision for each candidate whose weight another config has changed.

    One that comes with a weight had none before; one that goes serves nobody any more.
    """
    old, new = _weights(before), _weights(after)
    return [
        make_decision("weight", scope, old.get(scope, 0), new.get(scope, 0), source)
        for scope in dict.fromkeys((*old, *new))
        if old.get(scope, 0) != new.get(scope, 0)
    ]


def _weights(state: ControlState) -> dict[Scope, int]:
    return {
        Scope(route, name): candidate.weight_bp
        for route, inner in state.routes.items()
        for name, candidate in inner.candidates.items()
    }


def logged(state_dir: Path, change: Change) -> Change:
    """Append the decision; return the change, with the error if the log refused it."""
    try:
        decisions.append(state_dir, change.decision)
    except StateError as exc:
        return replace(change, log_error=str(exc))
    return change


def note_of(source: Source) -> str:
    """Return what the page keeps beside a latch."""
    return f"{rfc3339(source.now_ms)} {source.who} ({source.via}): {source.reason}"


def killed_of(state: ControlState, scope: Scope) -> list[str]:
    """Return the killed parts of a scope itself."""
    if not scope.route:
        return latch.part_names(state.killed)
    route = state.routes[scope.route]
    part = route.candidates[scope.candidate].killed if scope.candidate else route.killed
    return latch.part_names(part)


def _publish(
    page: ControlPage, change: Callable[[ControlState], ControlState]
) -> tuple[ControlState, ControlState]:
    seen: list[ControlState] = []

    def keep(state: ControlState) -> ControlState:
        seen.append(state)
        return change(state)

    after = update(page, keep)
    return seen[0], after


def refuse_if_overtaken(page: ControlPage, source: Source) -> None:
    """Refuse an order that changes no page, as one that does would be.

    Raises:
        OvertakenError: a kill was latched since the page that the source had seen.
        StateError: the page or the folder cannot be read.
    """
    try_page(page.path.parent)  # a disk that hangs holds up the listing of the folder, too
    _refuse_if_overtaken(page, page.read(), source)


def _refuse_if_overtaken(page: ControlPage, state: ControlState, source: Source) -> None:
    """Raise if a kill came after the page that the source had seen, or that page is gone."""
    seen = source.seen_generation
    if seen is None:
        return
    stamps = latch.kill_file_stamps(page.path.parent)
    is_known = all(state.kill_files.get(name) == stamp for name, stamp in stamps.items())
    if is_known and state.kill_generation <= seen <= page.generation():
        return
    latches = "; ".join(f"{scope}: {note}" for scope, note in state.notes.items())
    raise OvertakenError(
        "nothing was changed, because there was a kill after this order was given "
        f"({latches or 'opened again since'}); look at the status, and give it again"
    )


def _file_source(path: Path, now_ms: int) -> Source:
    """Return who made a kill file and why: its owner, and its first line if it has one."""
    try:
        # Non-blocking, so that not even a named pipe can hold the launcher.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            words = os.read(descriptor, REASON_BYTES).decode("utf-8", "replace").strip()
            owner = os.fstat(descriptor).st_uid
        finally:
            os.close(descriptor)
    except OSError:  # gone again, a folder, or not ours to read: a kill all the same
        return Source("unknown", f"file {path.name}", "kill file", now_ms)
    return Source(
        f"uid {owner}", f"file {path.name}", words.split("\n", 1)[0] or "kill file", now_ms
    )
