"""An operator's orders, carried out on the page and written to the decisions log.

The one way by which control, the launcher and the CLI kill, revive and re-weight, so that all of
them do the same in the same order: the page first, because a kill is wanted now; the log after it.
What a kill means is decided in `proxy.state.kill`; who may give an order is decided by the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state import decisions, kill as latch
from proxy.state.control_page import (
    ControlPage,
    ControlState,
    Part,
    for_config,
    locked,
    rewrite_page,
    update,
)
from proxy.state.decisions import Decision
from proxy.state.kill import Scope

#: How much of a kill file's first line is kept as the reason.
REASON_BYTES = 200


@dataclass(frozen=True, slots=True)
class Source:
    """Who gives an order, which way it came, why, and when (wall clock, milliseconds)."""

    who: str
    via: str
    reason: str
    now_ms: int


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


def order_kill(page: ControlPage, scope: Scope, part: Part, source: Source) -> Change:
    """Latch `part` of `scope`; when this returns, the next request of every worker obeys.

    Raises:
        StateError: the scope is unknown, or the page cannot be changed.
    """
    before, after = _publish(page, lambda state: latch.kill(state, scope, part, _note(source)))
    old, new = _killed(before, scope), _killed(after, scope)
    change = Change(before, after, _decision("kill", scope, old, new, source))
    return _logged(page.path.parent, change)


def order_file_kills(page: ControlPage, now_ms: int) -> dict[str, Change]:
    """Latch every kill file that is not latched yet; return what changed, by file name.

    Raises:
        StateError: the folder cannot be read, or the page cannot be changed.
    """
    state_dir = page.path.parent
    changes: dict[str, Change] = {}
    with locked(state_dir):
        state = page.read()
        for name in latch.kill_file_names(state_dir):
            meant = latch.file_scope(name, state)
            scope = meant or Scope()
            old = _killed(state, scope)
            if set(latch.part_names(Part.DEFAULT)) <= set(old):
                continue
            source = _file_source(state_dir / name, now_ms)
            before, state = state, latch.kill(state, scope, Part.DEFAULT, _note(source))
            decision = _decision("kill", scope, old, _killed(state, scope), source)
            changes[name] = Change(before, state, decision, is_guess=meant is None)
        if changes:
            page.write(state)
    return {name: _logged(state_dir, change) for name, change in changes.items()}


def order_revive(page: ControlPage, scope: Scope, part: Part, source: Source) -> Change:
    """Open `part` of `scope` and of every scope inside it, and remove their kill files.

    The files go first, under the same lock under which the launcher latches them, so it can neither
    latch one again after this nor see one that is already answered. What they mean and `part`
    leaves is latched on the page.

    Raises:
        StateError: the scope is unknown, a kill file cannot be removed, or the page is corrupt.
    """

    def reopen(state: ControlState) -> ControlState:
        files = latch.kill_files_in(page.path.parent, scope, state)
        for name, meant in files.items():
            state = latch.kill(state, meant, Part.DEFAULT, f"file {name}")
        latch.remove_kill_files(page.path.parent, files)
        return latch.revive(state, scope, part)

    before, after = _publish(page, reopen)
    old, new = _killed(before, scope), _killed(after, scope)
    change = Change(before, after, _decision("revive", scope, old, new, source))
    return _logged(page.path.parent, change)


def order_weight(page: ControlPage, scope: Scope, weight_bp: int, source: Source) -> Change:
    """Set the live canary weight of a candidate, in basis points.

    Raises:
        StateError: the scope is unknown, the weight does not fit beside the other candidates', or
            the page cannot be changed.
    """
    before, after = _publish(page, lambda state: latch.set_weight(state, scope, weight_bp))
    old = before.routes[scope.route].candidates[scope.candidate].weight_bp
    change = Change(before, after, _decision("weight", scope, old, weight_bp, source))
    return _logged(page.path.parent, change)


def revive_corrupt(state_dir: Path, config: Config, source: Source) -> Change:
    """Write the page afresh from `config`: nothing killed, the config's weights.

    Raises:
        StateError: the page cannot be written, or a kill file cannot be removed.
    """
    after = for_config(config, ControlState())
    with locked(state_dir):
        latch.remove_kill_files(state_dir, latch.kill_file_names(state_dir))
    rewrite_page(state_dir, after)
    decision = _decision("revive", Scope(), ["corrupt"], [], source)
    return _logged(state_dir, Change(ControlState(), after, decision))


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


def _publish(
    page: ControlPage, change: Callable[[ControlState], ControlState]
) -> tuple[ControlState, ControlState]:
    seen: list[ControlState] = []

    def keep(state: ControlState) -> ControlState:
        seen.append(state)
        return change(state)

    after = update(page, keep)
    return seen[0], after


def _killed(state: ControlState, scope: Scope) -> list[str]:
    if not scope.route:
        return latch.part_names(state.killed)
    route = state.routes[scope.route]
    part = route.candidates[scope.candidate].killed if scope.candidate else route.killed
    return latch.part_names(part)


def _decision(
    action: str, scope: Scope, old: list[str] | int, new: list[str] | int, source: Source
) -> Decision:
    return Decision(
        source.now_ms, action, source.who, source.via, str(scope), old, new, source.reason
    )


def _logged(state_dir: Path, change: Change) -> Change:
    """Append the decision; return the change, with the error if the log refused it."""
    try:
        decisions.append(state_dir, change.decision)
    except StateError as exc:
        return replace(change, log_error=str(exc))
    return change


def _note(source: Source) -> str:
    return f"{decisions.rfc3339(source.now_ms)} {source.who} ({source.via}): {source.reason}"


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
