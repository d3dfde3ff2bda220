"""Orders while the control page cannot be read or changed.

An unreadable page means that workers serve the primary only, so a kill is in effect before anybody
gives it; what it lacks is memory. It is remembered as a kill file, which the launcher latches as
soon as there is a page to latch it on. Only a `revive` of everything writes the page afresh, and it
opens no kill file: what was killed meanwhile stays killed until a second word.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import StateError
from proxy.state import kill as latch
from proxy.state.control_page import (
    CandidateState,
    ControlState,
    Part,
    RouteState,
    for_config,
    rewrite_page,
)
from proxy.state.kill import Scope, UnknownScopeError, kill_file_name, part_names
from proxy.state.orders import Change, Source, latch_files, logged, make_decision, note_of

if TYPE_CHECKING:  # see proxy.state.control_page
    from proxy.config.resolved import Config


def kill_by_file(state_dir: Path, config: Config | None, scope: Scope, source: Source) -> Change:
    """Leave a kill file that the launcher latches; for when the page refuses the kill itself.

    Args:
        state_dir: where the launcher looks.
        config: says which scopes there are; None when nobody knows.
        scope: what is killed; a file always means mirror and canary.
        source: who kills, and why.

    Raises:
        StateError: the config has no such scope, or the file cannot be written.
    """
    _check_scope(config, scope)
    path = state_dir / kill_file_name(scope)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(descriptor, f"{source.reason}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(
            f"cannot leave the kill file {path} either: {exc.strerror}; "
            "send SIGUSR1 to the launcher, or stop it"
        ) from exc
    before = _state_of(scope)
    after = latch.kill(before, scope, Part.DEFAULT, note_of(source))
    by_file = replace(source, via=f"{source.via}, file {path.name}")
    decision = make_decision("kill", scope, [], part_names(Part.DEFAULT), by_file)
    decision = replace(decision, note="the control page could not be changed; a kill file was left")
    return logged(state_dir, Change(before, after, decision))


def revive_corrupt(state_dir: Path, config: Config, source: Source) -> Change:
    """Write an unreadable page afresh from `config`: its weights, and the kills of kill files.

    Live weights and other kills were on the old page alone; the decision's note says so.

    Raises:
        StateError: the page is readable, or cannot be written.
    """

    def make(generation: int) -> ControlState:
        state = for_config(config, ControlState(kill_generation=generation))
        state = _after_every_finding(state, source.now_ms)
        return latch_files(state, state_dir, source.now_ms)[0]

    after = rewrite_page(state_dir, make)
    decision = make_decision("revive", Scope(), ["unreadable"], part_names(after.killed), source)
    decision = replace(decision, note=_loss(after))
    return logged(state_dir, Change(ControlState(), after, decision))


def _after_every_finding(state: ControlState, revivals: int) -> ControlState:
    """Return `state` with a number of revivals that no guard has gone by, so that nothing holds."""
    routes = {
        name: RouteState(
            route.killed,
            {key: replace(each, revivals=revivals) for key, each in route.candidates.items()},
        )
        for name, route in state.routes.items()
    }
    return replace(state, routes=routes)


def _state_of(scope: Scope) -> ControlState:
    """Return the smallest state that has `scope`."""
    candidates = {scope.candidate: CandidateState()} if scope.candidate else {}
    return ControlState(
        routes={scope.route: RouteState(Part.NONE, candidates)} if scope.route else {}
    )


def _loss(state: ControlState) -> str:
    weights = [
        f"{route}/{name} {candidate.weight_bp / 100:g}%"
        for route, inner in state.routes.items()
        for name, candidate in inner.candidates.items()
    ]
    told = (
        "the control page was unreadable and was written afresh: live weights are the config's "
        f"again ({', '.join(weights) or 'no candidates'}), and kills that only the old page knew "
        "are open"
    )
    if state.kill_files:
        told += f"; {', '.join(state.kill_files)} stays killed, revive once more to open it"
    return told


def _check_scope(config: Config | None, scope: Scope) -> None:
    if config is None:
        return
    routes = {route.name: {c.name for c in route.candidates} for route in config.routes}
    if scope.route and scope.route not in routes:
        raise UnknownScopeError(f"no route {scope.route!r}; there are: {', '.join(routes)}")
    if scope.candidate and scope.candidate not in routes[scope.route]:
        known = ", ".join(sorted(routes[scope.route])) or "none"
        raise UnknownScopeError(
            f"no candidate {scope.candidate!r} in {scope.route!r}; there are: {known}"
        )
