"""What the launcher leaves in `state_dir` for the others: `runtime.json` and the launcher's lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import orjson

from proxy.launcher.sockets import LaunchError

FILE_NAME = "runtime.json"
LOCK_NAME = "launcher.lock"


def take_lock(state_dir: Path) -> int:
    """Take the lock that makes a launcher the only one of its `state_dir`; keep it for life.

    Raises:
        LaunchError: another launcher runs here, or the folder cannot be used.
    """
    path = state_dir / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise LaunchError(f"cannot open {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        other = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise LaunchError(
            f"another Understudy (process {other or 'unknown'}) runs on {state_dir}; "
            "stop it, or give this one a `state_dir` of its own"
        ) from exc
    # Always as long, so never truncated: ext4 writes a file that was to the disk when somebody closes it, and
    # a kill that looks for the launcher would wait for a disk that hangs.
    os.pwrite(descriptor, f"{os.getpid():<19}\n".encode(), 0)
    return descriptor


def write_runtime(state_dir: Path, runtime: dict[str, Any]) -> None:
    """Replace `runtime.json` atomically, mode 0600.

    Raises:
        OSError: the folder cannot be written.
    """
    path = state_dir / FILE_NAME
    fresh = path.with_name(f".{FILE_NAME}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, orjson.dumps(runtime, option=orjson.OPT_INDENT_2))
    finally:
        os.close(descriptor)
    fresh.replace(path)
