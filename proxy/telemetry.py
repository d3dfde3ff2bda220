"""The clocks. Everything that needs time takes it from here or as an argument.

`monotonic_s` is for durations and deadlines, `wall_ns` for the timestamps people read.
Pure packages never import this module: time reaches them as an argument.
"""

from __future__ import annotations

import time

#: Seconds on a clock that never goes back; nanosecond resolution on Linux.
monotonic_s = time.monotonic  # noqa: TID251 - this is the Clock that the rule asks for

#: Nanoseconds since the Unix epoch, UTC.
wall_ns = time.time_ns


def rfc3339(ts_ms: int) -> str:
    """Return a wall-clock time (milliseconds) as RFC 3339 in UTC with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts_ms // 1000))
    return f"{whole}.{ts_ms % 1000:03d}Z"
