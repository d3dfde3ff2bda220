"""The control page: one mmap that says who is killed and which weights hold, now.

Control, the launcher and the CLI write it, under a file lock; every worker reads its generation on
every request and the rest only when that number has changed. It holds names and reasons as JSON, so
that a person can read it with `understudy status --state-dir` when all else is dead.

Layout (little endian): 8 bytes magic, u64 generation, padding to 64; then two buffers of
`BUFFER_BYTES`, each u64 generation, u32 length, u32 CRC-32, payload. A writer fills the buffer that
readers do not use and then stores the generation with one aligned 8-byte write, so a reader sees
the old state or the new one, and a writer killed halfway leaves the old one whole.

The file is made whole (all its blocks allocated, so that a full disk cannot fault a later store),
then written in place and never replaced: workers keep their mapping for life. A page that cannot be
read means *primary only*; this module says so by raising, and the worker decides. Nothing but
`rewrite_page`, which an operator asks for, makes a corrupt page good again: it may have held a kill.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import IntFlag
from pathlib import Path
from typing import Any

import orjson

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.telemetry import monotonic_s

MAGIC = b"USCTRL01"
HEADER_BYTES = 64
BUFFER_BYTES = 128 * 1024
PAGE_BYTES = HEADER_BYTES + 2 * BUFFER_BYTES
FILE_NAME = "control.page"
#: How long a writer waits for another one. Writers hold the lock for microseconds; one that was
#: stopped while holding it must not freeze a kill without a word.
LOCK_TIMEOUT_S = 2.0
_LOCK_POLL_S = 0.002
_BUFFER = struct.Struct("<QII")


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
    """

    killed: Part = Part.NONE
    weight_bp: int = 0
    mirror_bp: int = 0
    config_weight_bp: int = 0
    config_mirror_bp: int = 0
    ramp_step: int = -1


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
        notes: for each latched scope (`*`, `route`, `route/candidate`) who killed it, when, why.
    """

    config_version: str = ""
    killed: Part = Part.NONE
    routes: dict[str, RouteState] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def killed_parts(self, route: str, candidate: str) -> Part:
        """Return the parts that are killed for a candidate, by any of the three scopes."""
        state = self.routes.get(route, RouteState())
        return self.killed | state.killed | state.candidates.get(candidate, CandidateState()).killed


def for_config(config: Config, before: ControlState) -> ControlState:
    """Return `before` adapted to `config`: kills stay latched, live weights stay unless edited.

    Routes and candidates that the config no longer names are forgotten, their kills included.
    """
    routes: dict[str, RouteState] = {}
    for route in config.routes:
        old = before.routes.get(route.name, RouteState())
        candidates: dict[str, CandidateState] = {}
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
    return replace(before, config_version=config.version, routes=routes)


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
        return ControlState(raw["config_version"], Part(raw["killed"]), routes, raw["notes"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StateError(f"the control page does not hold a control state: {exc!r}") from exc


class ControlPage:
    """The mapped page. Open it with `open_page`; close it with `close`."""

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self._mapping = mapping
        self._view = memoryview(mapping)
        self._words = self._view[:HEADER_BYTES].cast("Q")
        self._inode = path.stat().st_ino

    def generation(self) -> int:
        """Return the number that every write raises; the one read on the hot path (~60 ns)."""
        return self._words[1]

    def read(self) -> ControlState:
        """Return the current state.

        Raises:
            StateError: no consistent state can be read: the page is corrupt.
        """
        for _ in range(4):  # a writer may overtake a reader; it cannot do so four times in a row
            generation = self._words[1]
            start = HEADER_BYTES + (generation % 2) * BUFFER_BYTES
            stamp, length, crc = _BUFFER.unpack_from(self._view, start)
            if self._view[:8] != MAGIC or length > BUFFER_BYTES - _BUFFER.size:
                break
            payload = bytes(self._view[start + _BUFFER.size : start + _BUFFER.size + length])
            if stamp == generation and zlib.crc32(payload) == crc:
                return decode(payload)
        raise StateError(f"{self.path} is corrupt; `understudy revive` writes it afresh")

    def write(self, state: ControlState) -> None:
        """Publish `state`: from here on the next request of every worker obeys it.

        Call it inside `locked`; `update` does both.

        Raises:
            StateError: the state is larger than a buffer.
        """
        payload = encode(state)
        if len(payload) > BUFFER_BYTES - _BUFFER.size:
            raise StateError(f"the control state takes {len(payload)} bytes; a page has less")
        generation = (self._words[1] + 1) % 2**64  # a corrupt word may be the largest
        start = HEADER_BYTES + (generation % 2) * BUFFER_BYTES
        _BUFFER.pack_into(self._view, start, generation, len(payload), zlib.crc32(payload))
        self._view[start + _BUFFER.size : start + _BUFFER.size + len(payload)] = payload
        self._view[:8] = MAGIC
        self._words[1] = generation
        # Workers obey from here on; the flush makes a kill outlive a power cut as well. A disk
        # that refuses it takes nothing from the effect.
        with suppress(OSError):
            self._mapping.flush()

    def is_whole(self) -> bool:
        """Tell whether the mapped file is still the one at the path, and long enough.

        A page that was removed, replaced or truncated no longer reaches this process (a truncated
        one would even end it with SIGBUS), so the worker looks now and then.
        """
        try:
            found = self.path.stat()
        except OSError:
            return False
        return found.st_ino == self._inode and found.st_size >= PAGE_BYTES

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._view.release()
        self._mapping.close()


def open_page(state_dir: Path, *, create: bool = False) -> ControlPage:
    """Map the page of `state_dir`; with `create`, make an empty one where there is none.

    Raises:
        StateError: it is missing, too short, or cannot be opened.
    """
    path = state_dir / FILE_NAME
    try:
        if create and not path.exists():
            _create(path)
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(descriptor).st_size
            if size < PAGE_BYTES:
                raise StateError(
                    f"{path} is corrupt ({size} bytes, not {PAGE_BYTES}); "
                    "`understudy revive` writes it afresh"
                )
            return ControlPage(path, mmap.mmap(descriptor, PAGE_BYTES))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc


def rewrite_page(state_dir: Path, state: ControlState) -> None:
    """Write `state` over whatever the page holds, in place; only for an operator's `revive`.

    Raises:
        StateError: the page cannot be opened or written, or the lock is held for too long.
    """
    path = state_dir / FILE_NAME
    with locked(state_dir):
        try:
            if path.exists():
                with path.open("r+b") as file:
                    file.seek(0, os.SEEK_END)
                    file.write(bytes(max(0, PAGE_BYTES - file.tell())))
        except OSError as exc:
            raise StateError(f"cannot write {path}: {exc.strerror}") from exc
        page = open_page(state_dir, create=True)
        try:
            page.write(state)
        finally:
            page.close()


def _create(path: Path) -> None:
    """Make an empty page under a name of its own and link it into place; the first maker wins."""
    whole = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(whole, "w+b", opener=_private) as file:
            file.write(bytes(PAGE_BYTES))
            file.flush()
            page = ControlPage(whole, mmap.mmap(file.fileno(), PAGE_BYTES))
        page.write(ControlState())
        page.close()
        with suppress(FileExistsError):
            os.link(whole, path)
    finally:
        whole.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the writers' lock: read, change and write inside it, so that no change is lost.

    Raises:
        StateError: the lock cannot be opened, or another process held it for `LOCK_TIMEOUT_S`.
    """
    path = state_dir / "control.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc
    try:
        _acquire(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path) -> None:
    deadline_s = monotonic_s() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if monotonic_s() > deadline_s:
                raise StateError(
                    f"{path} was held by another process for {LOCK_TIMEOUT_S:g} s; "
                    "look for a stopped understudy process"
                ) from exc
        time.sleep(_LOCK_POLL_S)


def update(page: ControlPage, change: Callable[[ControlState], ControlState]) -> ControlState:
    """Apply `change` to the current state under the lock and publish it; return the new state.

    Raises:
        StateError: the page is corrupt, or the new state does not fit.
    """
    with locked(page.path.parent):
        state = change(page.read())
        page.write(state)
    return state
