"""Starts a program of `benchmarks.programs` and reads the JSON lines that it prints."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.fleet import BenchmarkError, Child, Fleet, Place
from proxy.telemetry import monotonic_s

_POLL_S = 0.005


class Dialogue:
    """A running program of ours; a context manager that ends it.

    Attributes:
        child: its process.
        settings: what it was started with.
    """

    def __init__(self, fleet: Fleet, program: str, settings: dict[str, Any]) -> None:
        command = [sys.executable, "-m", f"benchmarks.programs.{program}", json.dumps(settings)]
        number = sum(child.name.startswith(program) for child in fleet.children)
        self.child: Child = fleet.start(f"{program}-{number}", command, Place.BESIDE)
        self.settings = settings
        self._fleet = fleet
        self._heard = 0

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._fleet.end(self.child)

    def hear(self, *, limit_s: float) -> dict[str, Any]:
        """Return the next object that the program prints.

        Raises:
            BenchmarkError: it ended without one, or says nothing in time; with its last lines.
        """
        give_up = monotonic_s() + limit_s
        while monotonic_s() < give_up:
            # Asked before the log is read: what it printed last is in the log then.
            has_ended = self.child.process.poll() is not None
            said = self._said()
            if len(said) > self._heard:
                self._heard += 1
                return said[self._heard - 1]
            if has_ended:
                break
            time.sleep(_POLL_S)
        raise BenchmarkError(f"{self.child.name} said nothing:\n{self.child.tail()}")

    def latest(self) -> dict[str, Any]:
        """Return the last object that it has printed; it has printed one."""
        return self._said()[-1]

    def _said(self) -> list[dict[str, Any]]:
        """Return all whole objects that it has printed so far."""
        lines = self.child.log.read_text(errors="replace").splitlines(keepends=True)
        return [json.loads(ln) for ln in lines if ln.startswith("{") and ln.endswith("\n")]


def ask(fleet: Fleet, program: str, settings: dict[str, Any], *, limit_s: float) -> dict[str, Any]:
    """Run a program that prints one object, and return it.

    Raises:
        BenchmarkError: it printed none in time.
    """
    with Dialogue(fleet, program, settings) as dialogue:
        return dialogue.hear(limit_s=limit_s)
