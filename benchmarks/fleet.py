"""Starts processes, waits until they listen, and ends all of them however the run ends.

Each child gets SIGTERM from the kernel when this process dies, even by SIGKILL; what a child
leaves behind is ended by the ids seen below it, never by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from benchmarks import processes
from proxy.telemetry import monotonic_s

_PR_SET_PDEATHSIG = 1
_STOP_S = 12.0
_FIRST_PORT, _END_PORT = 20_000, 32_768


class BenchmarkError(Exception):
    """The run cannot go on; the text says why and what to do."""


class Place(Enum):
    """Where a process runs when the run is pinned: the proxies have the first core alone."""

    PROXY = "proxy"
    BESIDE = "beside"


@dataclass(slots=True)
class Child:
    """A started process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its output, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class Fleet:
    """All processes of one benchmark; a context manager that ends them.

    Attributes:
        folder: where configurations and outputs go; the caller removes it.
        is_pinned: proxies on the first core, everything else on the others.
    """

    folder: Path
    is_pinned: bool = False
    children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def subfolder(self, name: str) -> Path:
        """Return a new folder for one process's files."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def pinned(self, command: Sequence[str], place: Place) -> list[str]:
        """Return `command`, with taskset(1) before it when the run is pinned."""
        if not self.is_pinned:
            return list(command)
        cpus = sorted(os.sched_getaffinity(0))
        chosen = cpus[:1] if place is Place.PROXY else cpus[1:] or cpus
        return ["taskset", "--cpu-list", ",".join(map(str, chosen)), *command]

    def start(
        self, name: str, command: Sequence[str], place: Place, env: dict[str, str] | None = None
    ) -> Child:
        """Start a process whose output goes to `folder/name.log`; `env` is added to ours."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.pinned(command, place),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has a single thread
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def wait_for_port(self, child: Child, port: int, *, limit_s: float = 15.0) -> None:
        """Wait until `child` listens.

        Raises:
            BenchmarkError: it ended, or did not listen in time; with its last lines.
        """
        give_up = monotonic_s() + limit_s
        while monotonic_s() < give_up:
            self.check(child)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise BenchmarkError(f"{child.name} does not listen after {limit_s:g} s:\n{child.tail()}")

    def end(self, child: Child) -> None:
        """End one process that has no children."""
        child.process.terminate()
        try:
            child.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        self.children.remove(child)

    def end_tree(self, root_pid: int) -> None:
        """End one process that ends its own children, as a launcher does; SIGKILL for what is left."""
        members = processes.tree(root_pid)
        for child in [one for one in self.children if one.pid == root_pid]:
            self.end(child)
        _kill_left(members)

    def check(self, child: Child) -> None:
        """Raise BenchmarkError when `child` has ended."""
        code = child.process.poll()
        if code is not None:
            raise BenchmarkError(f"{child.name} ended with code {code}:\n{child.tail()}")

    def check_all(self) -> None:
        """Raise BenchmarkError when any child has ended."""
        for child in self.children:
            self.check(child)

    def stop(self) -> None:
        """End everything: SIGTERM, then SIGKILL for what is left of each tree."""
        members = [stat for child in self.children for stat in processes.tree(child.pid)]
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        give_up = monotonic_s() + _STOP_S
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.1, give_up - monotonic_s()))
        _kill_left(members)
        for child in self.children:
            child.process.wait()
        self.children.clear()


def _kill_left(members: Sequence[processes.ProcessStat]) -> None:
    """Kill those that are still there, and are not others that got their ids since."""
    for stat in members:
        now = processes.read_stat(stat.pid)
        if now is not None and now.started_ticks == stat.started_ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port that nobody listens on now, nor any connection will be given.

    Outgoing connections have ports of a range of their own (ip(7), `ip_local_port_range`: from 32768
    on, elsewhere from 49152 on). One from there may be taken before a peer has started.
    """
    while True:
        port = random.randrange(_FIRST_PORT, _END_PORT)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def allow_many_files() -> None:
    """Let this process and its children open as many files as the system lets it.

    A thousand streams with their copies are three thousand sockets of the proxy; the usual soft
    limit is 1,024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that every `with` block is left in order."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the benchmark's process dies (prctl(2), Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
