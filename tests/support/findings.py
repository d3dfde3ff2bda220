"""A document of findings as `understudy compare --json` writes it, realistic in shape and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

_FILE = Path(__file__).parents[1] / "analysis" / "findings.json"


def findings() -> dict[str, Any]:
    """Return a fresh copy: one candidate to ship, one to stop, one without data."""
    document: dict[str, Any] = orjson.loads(_FILE.read_bytes())
    return document


def hostile(value: Any, evil: str) -> Any:
    """Return `value` with `evil` before every text in it, also in the names of counts."""
    if isinstance(value, str):
        return evil + value
    if isinstance(value, list):
        return [hostile(each, evil) for each in value]
    if isinstance(value, dict):
        return {key: hostile(each, evil) for key, each in value.items()}
    return value
