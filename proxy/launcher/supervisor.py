"""The children of the launcher: started, reaped and started again.

Decides when a child is due; `proxy.launcher.children` starts it. It does not stop them: the order
of a stop is `proxy.launcher.stop`'s.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.launcher.backoff import LONGEST_S, Backoff
from proxy.launcher.children import Child, Role, spawn
from proxy.launcher.log import log


@dataclass(slots=True)
class _Slot:
    """A child and its present life; `process_id` 0 means that none runs."""

    child: Child
    process_id: int = 0
    started_s: float = 0.0
    started_ms: int = 0
    due_s: float = 0.0
    starts: int = 0
    last_end: str = ""
    backoff: Backoff = field(default_factory=Backoff)


class Supervisor:
    """Keeps every child alive until `retire`.

    Args:
        children: what to run.
        on_change: called after a child started or ended.
    """

    def __init__(self, children: Iterable[Child], on_change: Callable[[], None]) -> None:
        self._slots = [_Slot(child) for child in children]
        self._on_change = on_change
        self._retired: set[Role] = set()

    def start_due(self, now_s: float, wall_ms: int) -> None:
        """Start every child that is down and whose wait is over."""
        for slot in self._slots:
            if slot.process_id or slot.child.role in self._retired or now_s < slot.due_s:
                continue
            try:
                slot.process_id = spawn(slot.child)
            except OSError as exc:
                slot.due_s = now_s + LONGEST_S
                log("error", "process_not_started", name=slot.child.name, why=str(exc))
                continue
            slot.started_s, slot.started_ms = now_s, wall_ms
            slot.starts += 1
            log(
                "info",
                "process_started",
                name=slot.child.name,
                pid=slot.process_id,
                restarts=slot.starts - 1,
            )
            self._on_change()

    def reap(self, now_s: float) -> None:
        """Take note of every child that ended."""
        while True:
            try:
                process_id, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process_id:
                return
            for slot in self._slots:
                if slot.process_id == process_id:
                    self._ended(slot, os.waitstatus_to_exitcode(status), now_s)

    def _ended(self, slot: _Slot, code: int, now_s: float) -> None:
        lived_s = now_s - slot.started_s
        process_id, slot.process_id = slot.process_id, 0
        slot.last_end = f"exit {code}" if code >= 0 else signal.Signals(-code).name
        fields: dict[str, Any] = {
            "name": slot.child.name,
            "pid": process_id,
            "ended": slot.last_end,
            "lived_s": round(lived_s, 3),
        }
        if slot.child.role in self._retired:
            log("info" if code == 0 else "warning", "process_stopped", **fields)
        else:
            wait_s = slot.backoff.after(lived_s)
            slot.due_s = now_s + wait_s
            log("error", "process_died", **fields, restart_in_s=wait_s)
        self._on_change()

    def replace_argument(self, old: str, new: str) -> None:
        """Give `new` in place of the argument `old` to every child that is started from now on."""
        for slot in self._slots:
            words = (new if word == old else word for word in slot.child.command)
            slot.child = replace(slot.child, command=tuple(words))

    def retire(self, role: Role) -> None:
        """Start no child of `role` again."""
        self._retired.add(role)

    def send(self, role: Role, number: signal.Signals) -> None:
        """Send a signal to every living child of `role`."""
        for slot in self._slots:
            if slot.process_id and slot.child.role is role:
                os.kill(slot.process_id, number)  # not reaped yet, so the id is still its own

    def living(self, role: Role) -> dict[int, int]:
        """Return the process ids of the children of `role` that run, by index."""
        return {
            slot.child.index: slot.process_id
            for slot in self._slots
            if slot.process_id and slot.child.role is role
        }

    def replace(self, role: Role, index: int, why: str) -> None:
        """End a child with SIGKILL, which also ends one that is stopped; it is started again."""
        for slot in self._slots:
            if slot.process_id and slot.child.role is role and slot.child.index == index:
                log("error", "process_hung", name=slot.child.name, pid=slot.process_id, why=why)
                os.kill(slot.process_id, signal.SIGKILL)

    def statistics(self) -> list[dict[str, Any]]:
        """Return each child's name, process id (0: down), start, restarts and last end."""
        return [
            {
                "name": slot.child.name,
                "pid": slot.process_id,
                "started_ms": slot.started_ms,
                "restarts": max(0, slot.starts - 1),
                "last_end": slot.last_end,
            }
            for slot in self._slots
        ]
