"""The clocks. Everything that needs time takes it from here or as an argument.

`monotonic_s` is for durations and deadlines, `wall_ns` for the timestamps people read, `uptime_s` for what
is over when the machine has slept, `thread_cpu_s` for how busy a thread is, `queued_s` for how long it has
waited for a processor.
Pure packages never import this module: time reaches them as an argument.
"""

from __future__ import annotations

import time
from pathlib import Path

#: Seconds on a clock that never goes back; nanosecond resolution on Linux.
monotonic_s = time.monotonic  # noqa: TID251 - this is the Clock that the rule asks for

#: Nanoseconds since the Unix epoch, UTC.
wall_ns = time.time_ns

#: Seconds of processor time that the calling thread has used.
thread_cpu_s = time.thread_time

_UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime_s() -> float:
    """Return the seconds on a clock that never goes back and, on Linux, goes on while the machine sleeps."""
    return time.clock_gettime(_UPTIME_CLOCK)


def queued_s(task: str = "thread-self", root: Path = Path("/proc")) -> float | None:
    """Return for how long a thread has waited for a processor in its life; None where nobody tells.

    Args:
        task: the thread's folder in /proc; a process id stands for its main thread.
        root: where /proc is.
    """
    try:
        # Nanoseconds on a processor, waiting for one, and time slices (the kernel's sched-stats).
        return int((root / task / "schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def rfc3339(ts_ms: int) -> str:
    """Return a wall-clock time (milliseconds) as RFC 3339 in UTC with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms // 1000))
    return f"{whole}.{ts_ms % 1000:03d}Z"
