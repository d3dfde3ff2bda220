"""The control page: one mmap that says who is killed and which weights hold, now.

Control, the launcher and the CLI write it, under a file lock; every worker reads its generation on
every request and the rest only when that number has changed. It holds names and reasons as JSON, so
that a person can read it with `understudy status --state-dir` when all else is dead.

How the file is laid out and written is `proxy.state.page_file`'s. A page that cannot be read means
*primary only*; this module says so by raising, and the worker decides. Nothing but `rewrite_page`,
which an operator asks for, makes a corrupt page good again: it may have held a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from proxy.errors import StateError
from proxy.state.page_file import (
    FILE_NAME,
    PageFile,
    change_page,
    lengthen_page,
    locked,
    make_page,
    map_page,
    try_page,
)
from proxy.state.syncing import sync_soon

if TYPE_CHECKING:  # a kill must be quick, and building the config's classes takes 10 ms
    from proxy.config.resolved import Config


class Part(IntFlag):
    """What a kill stops. `DEFAULT` is what an operator means by "kill" without more words."""

    NONE = 0
    MIRROR = 1
    CANARY = 2
    RECORD = 4
    DEFAULT = MIRROR | CANARY


@dataclass(frozen=True, slots=True)
class CandidateState:
    """The live state of one candidate of one route.

    Attributes:
        weight_bp: live canary weight, basis points.
        mirror_bp: live mirror percent, basis points.
        config_weight_bp, config_mirror_bp: what the config said when the live values were last
            taken from it. A changed config value replaces the live one; an unchanged one does not.
        ramp_step: index of the ramp's step, -1 outside a ramp.
        revivals: how often its canary was revived: what a worker's guard has found before the last time
            counts no more. Not a time and no generation, so that nothing that jumps can hold it.
    """

    killed: Part = Part.NONE
    weight_bp: int = 0
    mirror_bp: int = 0
    config_weight_bp: int = 0
    config_mirror_bp: int = 0
    ramp_step: int = -1
    revivals: int = 0


@dataclass(frozen=True, slots=True)
class RouteState:
    """The live state of one route: its own kills, and its candidates by name."""

    killed: Part = Part.NONE
    candidates: dict[str, CandidateState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlState:
    """Everything the page says, as one frozen value.

    Attributes:
        config_version: which `state_dir/config/<version>.json` workers run.
        config_revision: raised by every config that is put in place; the same version may come with
            other secrets, or other files of certificates.
        notes: for each latched scope (`*`, `route`, `route/candidate`) who killed it, when, why.
        kill_generation: the generation of the write that latched the last kill: an order given on
            sight of an older page must not undo it.
        kill_files: the kill files that are latched: name and time of change (ns).
    """

    config_version: str = ""
    killed: Part = Part.NONE
    routes: dict[str, RouteState] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    kill_generation: int = 0
    kill_files: dict[str, int] = field(default_factory=dict)
    config_revision: int = 0

    def killed_parts(self, route: str, candidate: str) -> Part:
        """Return the parts that are killed for a candidate, by any of the three scopes."""
        state = self.routes.get(route, RouteState())
        return self.killed | state.killed | state.candidates.get(candidate, CandidateState()).killed


def for_config(config: Config, before: ControlState) -> ControlState:
    """Return `before` adapted to `config`: kills stay latched, live weights stay unless edited.

    Routes and candidates that the config no longer names are forgotten with their weights, but not
    their kills: one that comes back by the next edit of the file comes back killed. Only `revive` opens
    a latch.
    """
    routes = _latched(before)
    for route in config.routes:
        old = before.routes.get(route.name, RouteState())
        candidates = dict(_latched_candidates(old))
        for candidate in route.candidates:
            state = old.candidates.get(candidate.name)
            if state is None:
                state = CandidateState(
                    weight_bp=candidate.weight_bp,
                    mirror_bp=candidate.mirror_bp,
                    config_weight_bp=candidate.weight_bp,
                    config_mirror_bp=candidate.mirror_bp,
                )
            if state.config_weight_bp != candidate.weight_bp:
                state = replace(
                    state, weight_bp=candidate.weight_bp, config_weight_bp=candidate.weight_bp
                )
            if state.config_mirror_bp != candidate.mirror_bp:
                state = replace(
                    state, mirror_bp=candidate.mirror_bp, config_mirror_bp=candidate.mirror_bp
                )
            candidates[candidate.name] = state
        routes[route.name] = RouteState(old.killed, candidates)
    revision = before.config_revision + 1
    return replace(before, config_version=config.version, config_revision=revision, routes=routes)


def _latched(state: ControlState) -> dict[str, RouteState]:
    """Return what is killed, without any weight."""
    kept = {
        name: RouteState(route.killed, _latched_candidates(route))
        for name, route in state.routes.items()
    }
    return {name: route for name, route in kept.items() if route.killed or route.candidates}


def _latched_candidates(route: RouteState) -> dict[str, CandidateState]:
    return {
        name: CandidateState(killed=candidate.killed, revivals=candidate.revivals)
        for name, candidate in route.candidates.items()
        if candidate.killed
    }


def encode(state: ControlState) -> bytes:
    """Return the payload of a page as JSON."""
    return orjson.dumps(state)


def decode(payload: bytes) -> ControlState:
    """Return the state that `encode` wrote.

    Raises:
        StateError: the payload is not such a state.
    """
    try:
        raw: dict[str, Any] = orjson.loads(payload)
        routes = {
            name: RouteState(
                Part(route["killed"]),
                {
                    key: CandidateState(**{**value, "killed": Part(value["killed"])})
                    for key, value in route["candidates"].items()
                },
            )
            for name, route in raw["routes"].items()
        }
        return ControlState(**{**raw, "killed": Part(raw["killed"]), "routes": routes})
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StateError(f"the control page does not hold a control state: {exc!r}") from exc


class ControlPage(PageFile):
    """The mapped page. Open it with `open_page`; close it with `close`."""

    def read(self) -> ControlState:
        """Return the current state.

        Raises:
            StateError: no consistent state can be read: the page is corrupt.
        """
        return decode(self.read_payload())

    def write(self, state: ControlState) -> None:
        """Publish `state`: from here on the next request of every worker obeys it.

        Call it inside `locked`, and `sync_soon` after that; `update` does all three.

        Raises:
            StateError: the state is larger than a buffer.
        """
        self.write_payload(encode(state))


def open_page(state_dir: Path, *, create: bool = False) -> ControlPage:
    """Map the page of `state_dir`; with `create`, make an empty one where there is none.

    Raises:
        StateError: it is missing, too short, or cannot be opened.
    """
    if create and not (state_dir / FILE_NAME).exists():
        make_page(state_dir, encode(ControlState()))
    return ControlPage(*map_page(state_dir))


def rewrite_page(state_dir: Path, make: Callable[[int], ControlState]) -> ControlState:
    """Write a state over an unreadable page, in place; only for an operator's `revive`.

    Args:
        state_dir: the folder of the page; a missing page is made.
        make: returns the state, given the generation that it will have; called inside the lock.

    Raises:
        StateError: the page is readable after all (it may hold a kill), it cannot be opened or
            written, or the lock is held for too long.
    """
    try_page(state_dir)
    with locked(state_dir):
        if is_readable(state_dir):
            raise StateError(
                f"{state_dir / FILE_NAME} has just been mended by somebody else; "
                "look, and try again"
            )
        lengthen_page(state_dir)
        page = open_page(state_dir, create=True)
        try:
            state = make(page.next_generation())
            page.write(state)
        finally:
            page.close()
    sync_soon(state_dir / FILE_NAME)
    return state


def is_readable(state_dir: Path) -> bool:
    """Return whether there is a page that workers can read; without one only the primary serves."""
    try:
        page = open_page(state_dir)
    except StateError:
        return False
    try:
        page.read()
    except StateError:
        return False
    finally:
        page.close()
    return True


def update(page: ControlPage, change: Callable[[ControlState], ControlState]) -> ControlState:
    """Apply `change` to the current state under the lock and publish it; return the new state.

    Raises:
        StateError: the page is corrupt, or the new state does not fit.
    """
    _, after = change_page(page, lambda payload, _: encode(change(decode(payload))))
    return decode(after)
