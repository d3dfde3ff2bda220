"""The launcher's log: one JSON object a line on stderr, one line an event."""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson

from proxy.telemetry import rfc3339, wall_ns


def log(level: str, event: str, **fields: Any) -> None:
    """Write one event; `level` is `info`, `warning` or `error`, `fields` are JSON values."""
    line = {
        "ts": rfc3339(wall_ns() // 1_000_000),
        "level": level,
        "process": "launcher",
        "event": event,
        **fields,
    }
    # One write, so that lines of several processes on one pipe do not mix. A reader that has gone
    # away must not take the proxy with it.
    try:
        os.write(sys.stderr.fileno(), orjson.dumps(line) + b"\n")
    except OSError:
        return
