"""Become another command that ends when its parent does: `python -m proxy.demo.leash PID CMD...`.

On Linux the kernel sends SIGTERM when the parent dies, and the setting survives exec. So nothing
that the demo or a test started outlives it, SIGKILL included. Elsewhere it is a plain exec, and
the parent's own cleaning up is all there is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
