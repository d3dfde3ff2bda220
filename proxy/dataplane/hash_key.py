"""The key of `unit_hash` that a worker uses when the config gives none."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from proxy.errors import StateError
from proxy.state.hash_key import kept_key

logger = logging.getLogger("understudy.worker")


def own_key(state_dir: Path) -> str:
    """Return the key in `state_dir`; where it cannot be kept there, one for the life of this worker."""
    try:
        return kept_key(state_dir)
    except StateError as exc:
        logger.error("hash key: %s; unit_hash of this run is like no other", exc)  # noqa: TRY400 - no traceback for a full disk
        return os.urandom(32).hex()
