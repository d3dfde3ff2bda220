"""The processes that the demo and the end-to-end tests start: started, waited for, ended.

Decides how a child is started (its own session, so that Ctrl-C reaches the parent alone; output in
a log file; one numeric thread), how long it may take, and that it ends with its parent. What it
runs is the caller's business.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.errors import UnderstudyError
from proxy.telemetry import monotonic_s

START_S: Final = 30.0
STOP_S: Final = 15.0
_POLL_S: Final = 0.01
_TAIL_CHARACTERS: Final = 2_000
#: What a server of ours prints before its URL.
READY: Final = "serving on "

#: One row is too little work to share between threads; without this they fight for the cores.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ProcessError(UnderstudyError):
    """A process of the demo did not start, or ended by itself."""


@dataclass(slots=True)
class Child:
    """A running process; `url` is filled once it is known."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def fail_if_ended(self) -> None:
        """Check that the process runs.

        Raises:
            ProcessError: it ended; the text holds the end of its log.
        """
        code = self.process.poll()
        if code is not None:
            tail = self.log.read_text("utf-8", "replace")[-_TAIL_CHARACTERS:].strip()
            raise ProcessError(f"{self.name} ended with code {code}:\n{tail}")

    def stop(self, timeout_s: float = STOP_S) -> int:
        """Ask the process to end, then make it; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def start(name: str, command: Sequence[str], log: Path, cwd: Path | None = None) -> Child:
    """Start `command` (its first word is an absolute path), which ends when this process does."""
    leash = [*python(), "-m", "proxy.demo.leash", str(os.getpid())]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            [*leash, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
        )
    return Child(name, process, log)


def python() -> list[str]:
    """Return how this interpreter is run, with its rule about the current folder."""
    return [sys.executable, "-P"] if sys.flags.safe_path else [sys.executable]


def start_model(
    name: str, version: str, model: Path, log: Path, flags: Sequence[str] = ()
) -> Child:
    """Start a model server; `flags` are those of `proxy.demo.server`. `wait_url` finds it."""
    command = [*python(), "-m", "proxy.demo.server", "--model", str(model), "--name", name]
    return start(name, [*command, "--version", version, *flags], log)


def wait_url(child: Child, timeout_s: float = START_S) -> str:
    """Return the URL that the server printed once its socket was open.

    Raises:
        ProcessError: it ended, or printed none in time.
    """
    deadline_s = monotonic_s() + timeout_s
    while monotonic_s() < deadline_s:
        for line in child.log.read_text("utf-8", "replace").splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                child.url = line.removeprefix(READY).strip()
                return child.url
        child.fail_if_ended()
        time.sleep(_POLL_S)
    raise ProcessError(f"{child.name} did not start within {timeout_s:g} s; see {child.log}")
