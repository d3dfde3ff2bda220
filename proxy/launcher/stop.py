"""The order of a stop: workers, then recorders, then control, each with its deadline.

Workers first, because they serve and write the journal; then the recorder, which drains what they
wrote; control last, so that probes and operators are answered to the end. A state machine: what
comes next is in `NEXT`.
"""

from __future__ import annotations

import signal
from enum import Enum

from proxy.launcher.children import Role
from proxy.launcher.log import log
from proxy.launcher.supervisor import Supervisor

#: What a role gets beyond its own `limits.shutdown_s`, for the interpreter to come down.
MARGIN_S = 2.0
#: Control has nothing to drain; a second stop signal gives everyone this.
BRIEF_S = 1.0
#: After SIGKILL: a process in uninterruptible sleep must not hold the launcher for ever.
KILLED_S = 2.0


class Phase(Enum):
    """Where a stop stands."""

    RUNNING = "running"
    STOPPING_WORKERS = "stopping workers"
    STOPPING_RECORDERS = "stopping recorders"
    STOPPING_CONTROL = "stopping control"
    STOPPED = "stopped"


NEXT = {
    Phase.RUNNING: Phase.STOPPING_WORKERS,
    Phase.STOPPING_WORKERS: Phase.STOPPING_RECORDERS,
    Phase.STOPPING_RECORDERS: Phase.STOPPING_CONTROL,
    Phase.STOPPING_CONTROL: Phase.STOPPED,
}

ROLES = {
    Phase.STOPPING_WORKERS: Role.WORKER,
    Phase.STOPPING_RECORDERS: Role.RECORDER,
    Phase.STOPPING_CONTROL: Role.CONTROL,
}


class Stop:
    """Brings the tree down in order; `advance` it until `phase` is STOPPED."""

    def __init__(self, supervisor: Supervisor, shutdown_s: float) -> None:
        self.phase = Phase.RUNNING
        self._supervisor = supervisor
        self._shutdown_s = shutdown_s
        self._deadline_s = 0.0
        self._is_hurried = False
        self._has_killed = False

    @property
    def is_over(self) -> bool:
        """Whether every process has stopped."""
        return self.phase is Phase.STOPPED

    def request(self, now_s: float, signal_name: str) -> None:
        """Begin to stop; asked again, hurry: SIGTERM to everyone, one second each."""
        if self.phase is Phase.RUNNING:
            log("info", "stopping", why=signal_name)
            for role in Role:
                self._supervisor.retire(role)
            self._enter(NEXT[self.phase], now_s)
            return
        log("warning", "stopping_now", why=f"a second {signal_name}")
        self._is_hurried = True
        self._deadline_s = min(self._deadline_s, now_s + BRIEF_S)
        for role in Role:
            self._supervisor.send(role, signal.SIGTERM)

    def advance(self, now_s: float) -> None:
        """Go on to the next role when this one has gone; use SIGKILL when its time is over."""
        while (role := ROLES.get(self.phase)) is not None:
            if self._supervisor.living(role):
                if now_s < self._deadline_s:
                    return
                if not self._has_killed:
                    log("error", "killing", role=role.value, why="it did not stop in time")
                    self._supervisor.send(role, signal.SIGKILL)
                    self._has_killed, self._deadline_s = True, now_s + KILLED_S
                    return
            self._enter(NEXT[self.phase], now_s)

    def _enter(self, phase: Phase, now_s: float) -> None:
        self.phase, self._has_killed = phase, False
        role = ROLES.get(phase)
        if role is None:
            return
        self._deadline_s = now_s + self._time_for(role)
        self._supervisor.send(role, signal.SIGTERM)

    def _time_for(self, role: Role) -> float:
        if self._is_hurried:
            return BRIEF_S
        return MARGIN_S + (BRIEF_S if role is Role.CONTROL else self._shutdown_s)
