"""The log of every process: one JSON object a line on stderr, always of the same shape.

`ts`, `level`, `process` and `event`, then what belongs to the event; a traceback is one field. This
module knows nothing of `logging`, which costs the launcher memory that it does not need:
`proxy.log_records` brings what libraries log into the same shape.

Nothing waits for whoever reads the log. A pipe that is full, a terminal that is stopped: the line is
dropped, because a proxy that stands still for its log is the greater evil.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Mapping
from os import write as _write
from typing import Any, Final

import orjson

from proxy.telemetry import rfc3339, wall_ns

#: PIPE_BUF of Linux (pipe(7)): so much is written to a pipe at once or not at all, so that lines of
#: several processes never mix, and fits when poll says that there is room.
MAX_LINE_BYTES: Final = 4096
_CUT: Final = " … "


def line(
    process: str, level: str, event: str, fields: Mapping[str, Any], ts_ms: int | None = None
) -> bytes:
    """Return one event as a line of at most `MAX_LINE_BYTES`; texts that are too long are cut.

    Args:
        process: `launcher`, `control`, `worker 0` and so on.
        level: `info`, `warning`, `error` or `critical`.
        event: what happened.
        fields: JSON values; what is none is written as text.
        ts_ms: wall clock, milliseconds; now by default.
    """
    head = {
        "ts": rfc3339(wall_ns() // 1_000_000 if ts_ms is None else ts_ms),
        "level": level,
        "process": process,
        "event": event,
    }
    room = MAX_LINE_BYTES
    while True:
        # The head's names are taken: a field that bears one of them must not hide who speaks.
        whole = {**fields, **head}
        data = orjson.dumps({**head, **whole}, default=str, option=_OPTIONS)
        if len(data) <= MAX_LINE_BYTES:
            return data
        room //= 2
        fields = {name: _shorter(value, room) for name, value in fields.items()} if room else {}
        head["event"] = _shorter(event, room)


_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


def _shorter(value: Any, size: int) -> Any:
    """Return a value that is written in about `size` characters: its beginning and its end."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    if len(text) <= size:
        return value
    half = size // 2
    return text[:half] + _CUT + text[len(text) - half :]


def emit(process: str, level: str, event: str, fields: Mapping[str, Any]) -> None:
    """Write one event now, or drop it when nobody takes it."""
    put(line(process, level, event, fields))


def put(data: bytes) -> bool:
    """Write a line of at most `MAX_LINE_BYTES` to stderr; False when there is no room for it."""
    try:
        descriptor = sys.stderr.fileno()
        if not has_room(descriptor):
            return False
        return _write(descriptor, data) == len(data)
    except (OSError, ValueError, AttributeError):  # closed, or its reader has gone
        return False


def has_room(descriptor: int) -> bool:
    """Tell whether a write of `MAX_LINE_BYTES` would not wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(0))
