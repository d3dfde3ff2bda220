"""The launcher's log."""

from __future__ import annotations

from typing import Any

from proxy.log import emit


def log(level: str, event: str, **fields: Any) -> None:
    """Write one event; `level` is `info`, `warning` or `error`, `fields` are JSON values."""
    emit("launcher", level, event, fields)
