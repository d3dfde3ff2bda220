"""Orders while the control page cannot be read or changed.

An unreadable page means that workers serve the primary only, so a kill is in effect before anybody
gives it; what it lacks is memory. It is remembered as a kill file, which the launcher latches as
soon as there is a page to latch it on. Only a `revive` of everything writes the page afresh, and it
opens no kill file: what was killed meanwhile stays killed until a second word.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.errors import StateError
from proxy.state import kill as latch
from proxy.state.control_page import (
    CandidateState,
    ControlState,
    Part,
    RouteState,
    for_config,
    open_page,
    rewrite_page,
)
from proxy.state.kill import Scope, UnknownScopeError, kill_file_name, part_names
from proxy.state.orders import (
    Change,
    Source,
    killed_of,
    latch_files,
    logged,
    make_decision,
    note_of,
)
from proxy.state.syncing import HangingDiskError, open_quietly
from proxy.telemetry import monotonic_s

#: How long a launcher that got SIGUSR1 is given; it takes milliseconds.
SIGNAL_S: Final = 2.0
_SIGNAL_POLL_S: Final = 0.005

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
            with suppress(OSError):  # on a full disk it is empty, and means the same
                os.write(descriptor, f"{source.reason}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot leave the kill file {path} either: {exc.strerror}") from exc
    before = _state_of(scope)
    after = latch.kill(before, scope, Part.DEFAULT, note_of(source))
    by_file = replace(source, via=f"{source.via}, file {path.name}")
    decision = make_decision("kill", scope, [], part_names(Part.DEFAULT), by_file)
    decision = replace(decision, note="the control page could not be changed; a kill file was left")
    return logged(state_dir, Change(before, after, decision))


def kill_by_signal(state_dir: Path, source: Source) -> Change:
    """Let the launcher kill everything; for when neither the page nor the folder can be written.

    The launcher has mapped the page when it could be, and goes on writing it. A signal has no scope, so
    everything is killed, whatever was asked: that harms no user.

    Raises:
        StateError: there is no launcher here, or it did not kill in time.
    """
    pid = _launcher(state_dir)
    page = open_page(state_dir)
    try:
        before, generation = page.read(), page.generation()
        os.kill(pid, signal.SIGUSR1)
        deadline_s = monotonic_s() + SIGNAL_S
        while page.generation() == generation or not page.read().killed & Part.DEFAULT:
            if monotonic_s() > deadline_s:
                raise StateError(f"the launcher ({pid}) got SIGUSR1, and has not killed yet")
            time.sleep(_SIGNAL_POLL_S)
        after = page.read()
    except OSError as exc:
        raise StateError(f"cannot send SIGUSR1 to the launcher ({pid}): {exc.strerror}") from exc
    finally:
        page.close()
    old, new = killed_of(before, Scope()), killed_of(after, Scope())
    by_signal = replace(source, via=f"{source.via}, signal SIGUSR1")
    return logged(
        state_dir, Change(before, after, make_decision("kill", Scope(), old, new, by_signal))
    )


def kill_past_the_disk(state_dir: Path, source: Source, why: HangingDiskError) -> Change:
    """Let the launcher kill everything while the disk hangs, so that nobody can write the page.

    It has workers serve from the primary only, and writes the page when the disk answers; the decision is
    logged then. Nothing shows here whether workers have heard of it.

    Raises:
        StateError: there is no launcher here.
    """
    pid = _launcher(state_dir)
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as exc:
        raise StateError(
            f"{why}; cannot send SIGUSR1 to the launcher ({pid}): {exc.strerror}"
        ) from exc
    before = _state_of(Scope())
    after = latch.kill(before, Scope(), Part.DEFAULT, note_of(source))
    by_signal = replace(source, via=f"{source.via}, signal SIGUSR1")
    decision = make_decision("kill", Scope(), [], part_names(Part.DEFAULT), by_signal)
    told = (
        f"{why}; the launcher was told by SIGUSR1, so everything is killed: it has all workers serve from the "
        "primary only, and writes the page when the disk answers"
    )
    return logged(state_dir, Change(before, after, replace(decision, note=told)))


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


def _launcher(state_dir: Path) -> int:
    """Return the process id of the launcher that holds `state_dir`; no other may be sent a signal.

    Raises:
        StateError: none does.
    """
    path = state_dir / "launcher.lock"
    try:
        descriptor = open_quietly(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(descriptor, 20))
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as exc:
        raise StateError(f"cannot tell from {path} which process the launcher is: {exc}") from exc
    raise StateError(f"no launcher runs on {state_dir}")


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
