"""What `--since` and `--until` mean. Pure: the present is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from proxy.errors import SourceError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)(?:\s+ago)?")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_instant_ms(text: str, *, now_ms: int) -> int:
    """Return the instant that `text` means, in milliseconds since the Unix epoch.

    Args:
        text: how long ago (`90s`, `15m`, `2h`, `7d`, `1w`), or an ISO 8601 date or time such as
            `2026-03-01T12:00:00Z`; without an offset it is UTC, as in the records.
        now_ms: the present.

    Raises:
        SourceError: it is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_ms - round(float(ago[1]) * _UNIT_MS[ago[2]])
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise SourceError(
            f"{text!r} is no time: write 15m, 2h or 7d for how long ago, or 2026-03-01T12:00:00Z"
        ) from exc
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)
