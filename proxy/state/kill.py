"""The kill latch: which scope and part a word means, and the files that say the same.

Pure changes of a `ControlState` (`kill`, `revive`, `set_weight`), and the reading of kill files:
`KILL` stops everything, `KILL.route` one route, `KILL.route.candidate` one candidate, and a name
that means nothing known stops everything too. A latch beats every weight and every stickiness,
survives restarts, and only `revive` opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.errors import StateError
from proxy.state.control_page import CandidateState, ControlState, Part, RouteState

FILE_PREFIX = "KILL"
#: Every part: what `revive` opens when no part is named.
ALL_PARTS = Part.MIRROR | Part.CANARY | Part.RECORD


class UnknownScopeError(StateError):
    """A route or candidate that the state does not have."""


class WeightError(StateError):
    """A weight that does not fit."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a kill covers: both empty is everything.

    Raises:
        StateError: a candidate is given without its route.
    """

    route: str = ""
    candidate: str = ""

    def __post_init__(self) -> None:
        if self.candidate and not self.route:
            raise StateError(f"candidate {self.candidate!r} needs its route as well")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.route, self.candidate))) or "*"


def kill(state: ControlState, scope: Scope, part: Part, note: str) -> ControlState:
    """Return `state` with `part` of `scope` latched; `note` says who, when and why.

    Raises:
        StateError: the scope names no route or candidate of the state; says which there are.
    """
    changed = _with_parts(state, scope, lambda before: before | part)
    return replace(changed, notes={**state.notes, str(scope): note})


def revive(state: ControlState, scope: Scope, part: Part) -> ControlState:
    """Return `state` with `part` of `scope`, and of every scope inside it, open again.

    That holds for what the guards of workers have found, too, whether it has been latched here or not.

    Raises:
        StateError: the scope names no route or candidate of the state; says which there are.
    """
    state = _with_parts(state, scope, lambda before: before & ~part)
    routes = dict(state.routes)
    for name, route in state.routes.items():
        if scope.route in ("", name):
            killed = route.killed if scope.candidate else route.killed & ~part
            inner = {
                key: _revived(value, part) if scope.candidate in ("", key) else value
                for key, value in route.candidates.items()
            }
            routes[name] = RouteState(killed, inner)
    state = replace(state, routes=routes)
    notes = {key: note for key, note in state.notes.items() if _is_latched(state, key)}
    return replace(state, notes=notes)


def set_weight(
    state: ControlState, scope: Scope, weight_bp: int, ramp_step: int = -1
) -> ControlState:
    """Return `state` with the canary weight of one candidate set (basis points).

    `ramp_step` is the index of the ramp's step whose weight this is, -1 for any other hand's.

    Raises:
        StateError: no such candidate, a weight outside 0 to 10,000, or a sum over 10,000.
    """
    route = _route(state, scope.route)
    candidate = _candidate(route, scope)
    others = sum(c.weight_bp for name, c in route.candidates.items() if name != scope.candidate)
    if not 0 <= weight_bp <= 10_000 - others:
        raise WeightError(
            f"weight {weight_bp / 100:g}% of {scope}: it must lie between 0% and "
            f"{(10_000 - others) / 100:g}%, what the other candidates of the route leave"
        )
    moved = replace(candidate, weight_bp=weight_bp, ramp_step=ramp_step)
    candidates = {**route.candidates, scope.candidate: moved}
    return replace(
        state, routes={**state.routes, scope.route: RouteState(route.killed, candidates)}
    )


def kill_file_names(state_dir: Path) -> list[str]:
    """Return the names of the kill files in `state_dir`, sorted: all that start with `KILL`.

    Raises:
        StateError: the folder cannot be read.
    """
    try:
        # A plain listing (5 us for a state_dir): the launcher asks twenty times a second, and the
        # folder's mtime is too coarse on some file systems to tell that a file has come.
        return sorted(name for name in os.listdir(state_dir) if name.startswith(FILE_PREFIX))  # noqa: PTH208 - see above
    except OSError as exc:
        raise StateError(f"cannot list {state_dir}: {exc.strerror}") from exc


def kill_file_stamps(state_dir: Path) -> dict[str, int]:
    """Return the kill files with the time of their last change (ns): a touched one is a new kill.

    Raises:
        StateError: the folder cannot be read.
    """
    found = {}
    for name in kill_file_names(state_dir):
        with suppress(OSError):  # gone again
            found[name] = (state_dir / name).lstat().st_ctime_ns
    return found


def kill_file_name(scope: Scope) -> str:
    """Return the name of the kill file that means `scope`."""
    return ".".join(filter(None, (FILE_PREFIX, scope.route, scope.candidate)))


def file_scope(name: str, state: ControlState) -> Scope | None:
    """Return what a kill file means; None when it names no route or candidate of `state`.

    Callers take None for *everything*: whoever makes such a file wants traffic off a candidate
    now, and a typing mistake must not leave it on.
    """
    prefix, *words = name.split(".", 2)  # route names hold no dot, candidates may
    if prefix != FILE_PREFIX:
        return None
    scope = Scope(*words)
    if not scope.route:
        return scope if not words else None
    if scope.route not in state.routes:
        return None
    if scope.candidate and scope.candidate not in state.routes[scope.route].candidates:
        return None
    return scope if len(words) == 1 or scope.candidate else None


def kill_files_in(state_dir: Path, scope: Scope, state: ControlState) -> dict[str, Scope]:
    """Return the kill files that mean `scope` or a scope inside it, by name.

    Raises:
        StateError: the folder cannot be read.
    """
    found = {}
    for name in kill_file_names(state_dir):
        meant = file_scope(name, state) or Scope()
        if scope.route in ("", meant.route) and scope.candidate in ("", meant.candidate):
            found[name] = meant
    return found


def remove_kill_files(state_dir: Path, names: Iterable[str]) -> None:
    """Remove kill files.

    Raises:
        StateError: one cannot be removed; the launcher would latch the kill again.
    """
    for name in names:
        try:
            (state_dir / name).unlink(missing_ok=True)
        except OSError as exc:
            raise StateError(
                f"cannot remove the kill file {state_dir / name}: {exc.strerror}; "
                "remove it and revive again"
            ) from exc


def part_names(part: Part) -> list[str]:
    """Return the names of the parts in `part`, such as `["mirror", "canary"]`."""
    return [str(member.name).lower() for member in Part if member and member in part]


def _with_parts(state: ControlState, scope: Scope, change: Callable[[Part], Part]) -> ControlState:
    if not scope.route:
        return replace(state, killed=change(state.killed))
    route = _route(state, scope.route)
    if scope.candidate:
        candidate = _candidate(route, scope)
        inner = {
            **route.candidates,
            scope.candidate: replace(candidate, killed=change(candidate.killed)),
        }
        changed = RouteState(route.killed, inner)
    else:
        changed = RouteState(change(route.killed), route.candidates)
    return replace(state, routes={**state.routes, scope.route: changed})


def _revived(candidate: CandidateState, part: Part) -> CandidateState:
    """Return a candidate with `part` open; with its canary, what guards have found is history."""
    return replace(
        candidate,
        killed=candidate.killed & ~part,
        revivals=candidate.revivals + bool(part & Part.CANARY),
    )


def _route(state: ControlState, name: str) -> RouteState:
    if name not in state.routes:
        raise UnknownScopeError(
            f"no route {name!r}; there are: {', '.join(state.routes) or 'none'}"
        )
    return state.routes[name]


def _candidate(route: RouteState, scope: Scope) -> CandidateState:
    if scope.candidate not in route.candidates:
        known = ", ".join(route.candidates) or "none"
        raise UnknownScopeError(
            f"no candidate {scope.candidate!r} in {scope.route!r}; there are: {known}"
        )
    return route.candidates[scope.candidate]


def _is_latched(state: ControlState, key: str) -> bool:
    if key == "*":
        return bool(state.killed)
    route, _, candidate = key.partition("/")
    if route not in state.routes:
        return False
    if not candidate:
        return bool(state.routes[route].killed)
    return bool(state.routes[route].candidates.get(candidate, CandidateState()).killed)
