"""One child process: what it runs, and how it comes to life.

Plain fork and exec: `subprocess` cannot set a parent-death signal without a `preexec_fn`, and costs
the launcher memory for features that it does not use.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

#: `prctl(2)`: the signal that a process gets when its parent has died.
_PR_SET_PDEATHSIG = 1
_CANNOT_RUN = 127


class Role(Enum):
    """What a child does; the value is its name in logs and in `runtime.json`."""

    WORKER = "worker"
    RECORDER = "recorder"
    CONTROL = "control"


MODULES = {
    Role.WORKER: "proxy.dataplane",
    Role.RECORDER: "proxy.recorder",
    Role.CONTROL: "proxy.control",
}


#: glibc gives large read buffers back to the kernel at once and asks for them again at the next
#: read: 78% of a worker's time at 1 MB bodies went into page faults (1,645 against 545 us per
#: request). Only workers read so much; in the others it would cost memory for nothing.
ENVIRONMENTS = {
    Role.WORKER: {
        "MALLOC_TRIM_THRESHOLD_": str(32 * 1024 * 1024),
        "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
    },
}


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep alive: its name, its command and the descriptors that it inherits."""

    role: Role
    index: int
    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return the name people see: `worker 0`, `recorder 0`, `control`."""
        return self.role.value if self.role is Role.CONTROL else f"{self.role.value} {self.index}"


def python_command(role: Role) -> tuple[str, ...]:
    """Return how the module of a role is run: by this interpreter, with its path rule."""
    safe_path = ("-P",) if sys.flags.safe_path else ()
    return (sys.executable, *safe_path, "-m", MODULES[role])


def spawn(child: Child) -> int:
    """Start a child and return its process id.

    The child leads a process group of its own, so that Ctrl-C in a terminal reaches the launcher
    alone, which then stops the others in order. On Linux it gets SIGTERM when the launcher dies.

    Raises:
        OSError: the system has no room for another process.
    """
    parent = os.getpid()
    # Without this, a signal that meets the child before exec would be written to the wake-up
    # pipe that it shares with the launcher.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process_id = os.fork()
        if process_id == 0:
            _become(child, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process_id


def _become(child: Child, parent: int) -> NoReturn:
    """Turn the forked process into the child; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        # Passed on to control and to workers, who may not listen yet: they look at the config and at the
        # page when they start.
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before prctl
            os._exit(0)
        for descriptor in child.descriptors:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the only form there is
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = {**ENVIRONMENTS.get(child.role, {}), **os.environ}
        os.execve(child.command[0], child.command, environment)  # noqa: S606 - no shell is meant
    except OSError as exc:
        os.write(2, f"cannot run {child.command[0]}: {exc.strerror}\n".encode())
    finally:
        os._exit(_CANNOT_RUN)
