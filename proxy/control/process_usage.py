"""What each process of the tree uses of the machine, read from /proc; elsewhere nothing is known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from proxy.telemetry import queued_s


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used and holds.

    Attributes:
        cpu_s: user and system time, seconds.
        resident_bytes: shared pages included.
        open_files: file descriptors; None where they may not be counted.
        queued_s: for how long it has waited for a processor; None where the kernel does not count it.
    """

    cpu_s: float
    resident_bytes: int
    open_files: int | None
    queued_s: float | None = None


def usage(pid: int, root: Path = Path("/proc")) -> Usage | None:
    """Return what the process `pid` uses; None where it, or /proc, does not exist."""
    folder = root / str(pid)
    try:
        # The name, in parentheses, may hold anything; proc(5) numbers the fields from 1.
        fields = (folder / "stat").read_text("latin-1").rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15
        pages = int((folder / "statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    try:
        open_files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - no Path is made of each
    except OSError:
        open_files = None
    return Usage(
        ticks / os.sysconf("SC_CLK_TCK"),
        pages * os.sysconf("SC_PAGE_SIZE"),
        open_files,
        queued_s(str(pid), root),
    )
