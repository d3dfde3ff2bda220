"""What a folder says about being a state directory, and whether its instance runs.

It imports next to nothing, because a kill waits for it.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from proxy.state.instance_config import RUNTIME_NAME, read_runtime

DEFAULT_STATE_DIR = "state"
#: What every state directory has, from the first `understudy serve` on: one of these at least.
MARKS = ("control.page", RUNTIME_NAME, "config")


def is_state_dir(folder: Path) -> bool:
    """Return whether an instance has ever run on `folder`."""
    return any((folder / name).exists() for name in MARKS)


def is_running(state_dir: Path) -> bool:
    """Return whether the launcher that wrote `runtime.json` lives, as far as this machine shows."""
    runtime = read_runtime(state_dir)
    if runtime is None:
        return False
    try:
        os.kill(int(runtime["pid"]), 0)
    except (ProcessLookupError, KeyError):
        return False
    except PermissionError:
        return True
    return True


def can_order(state_dir: Path) -> bool:
    """Return whether an instance runs there whose control page we may change ourselves."""
    return is_running(state_dir) and os.access(state_dir, os.W_OK | os.X_OK)


def operator() -> str:
    """Return who runs this command, as `user@host`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an arbitrary user id in a container
        user = f"uid {os.getuid()}"
    return f"{user}@{os.uname().nodename}"
