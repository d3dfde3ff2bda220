"""Small JSON files in `state_dir` that other processes replace whole now and then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None without one."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
