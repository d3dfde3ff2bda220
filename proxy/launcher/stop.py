"""The order of a stop: workers, then recorders, then control, all within `limits.shutdown`.

Workers first, because they serve and write the journal; then the recorder, which drains what they
wrote; control last, so that probes and operators are answered to the end. Each role ends by itself
within its share of the time: workers know it (`Limits.workers_stop_s`), recorders may take all that
workers left and are told by SIGALRM when it is over (`Limits.recorders_leave_s`). Whoever is still there
at the role's deadline, which is a share of the whole and a little later, gets SIGKILL. So a stop is
never cut short from outside by a supervisor that allows at least `limits.shutdown`.

A state machine: what comes next is in `NEXT`.
"""

from __future__ import annotations

import signal
from enum import Enum
from math import inf

from proxy.config.resolved import Limits
from proxy.launcher.children import Role
from proxy.launcher.log import log
from proxy.launcher.supervisor import Supervisor

#: A second stop signal gives everyone this, and recorders so much until they leave the rest.
BRIEF_S = 1.0
BRIEF_RECORDING_S = 0.7
#: After SIGKILL: a process in uninterruptible sleep must not hold the launcher for ever.
KILLED_S = 1.0


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

#: When a role that is still there gets SIGKILL: the share of `limits.shutdown` since the signal.
#: A role that ends early leaves its time to the next ones.
DEADLINES = {
    Phase.STOPPING_WORKERS: 0.75,
    Phase.STOPPING_RECORDERS: 0.90,
    Phase.STOPPING_CONTROL: 1.0,
}


class Stop:
    """Brings the tree down in order; `advance` it until `phase` is STOPPED."""

    def __init__(self, supervisor: Supervisor, limits: Limits) -> None:
        self.phase = Phase.RUNNING
        self._supervisor = supervisor
        self._limits = limits
        self._began_s = 0.0
        self._deadline_s = 0.0
        self._recorded_s = 0.0  # when recorders are told to leave the rest
        self._is_hurried = False
        self._has_killed = False

    @property
    def is_over(self) -> bool:
        """Whether every process has stopped."""
        return self.phase is Phase.STOPPED

    def request(self, now_s: float, signal_name: str) -> None:
        """Begin to stop; asked again, hurry: SIGTERM to everyone, one second each."""
        if self.phase is Phase.RUNNING:
            log("info", "stopping", why=signal_name, within_s=self._limits.shutdown_s)
            for role in Role:
                self._supervisor.retire(role)
            self._began_s = now_s
            self._enter(NEXT[self.phase], now_s)
            return
        log("warning", "stopping_now", why=f"a second {signal_name}")
        self._is_hurried = True
        self._hurry(now_s)
        for role in Role:
            self._supervisor.send(role, signal.SIGTERM)

    def advance(self, now_s: float) -> None:
        """Go on to the next role when this one has gone; use SIGKILL when its time is over."""
        while (role := ROLES.get(self.phase)) is not None:
            if self._supervisor.living(role):
                if role is Role.RECORDER and now_s >= self._recorded_s:
                    self._supervisor.send(role, signal.SIGALRM)
                    self._recorded_s = inf
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
        self._deadline_s = self._began_s + DEADLINES[phase] * self._limits.shutdown_s
        self._recorded_s = self._began_s + self._limits.recorders_leave_s
        if self._is_hurried:
            self._hurry(now_s)
        self._supervisor.send(role, signal.SIGTERM)

    def _hurry(self, now_s: float) -> None:
        self._deadline_s = min(self._deadline_s, now_s + BRIEF_S)
        self._recorded_s = min(self._recorded_s, now_s + BRIEF_RECORDING_S)
