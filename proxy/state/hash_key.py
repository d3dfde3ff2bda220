"""The secret that makes `unit_hash` more than a guessable hash, when the config gives none.

It is made once and kept in `state_dir`, so that a unit has the same hash after every restart.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.errors import StateError

FILE_NAME: Final = "hash_key"
_KEY_BYTES: Final = 32


def kept_key(state_dir: Path) -> str:
    """Return the key in `state_dir`, made the first time, readable for the owner alone.

    Several processes may ask at once; all get the same one.

    Raises:
        StateError: it can be neither read nor written, or what is there is no key.
    """
    path = state_dir / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise StateError(f"cannot keep a key in {path}: {exc}") from exc
    if len(key) < 2 * _KEY_BYTES:
        raise StateError(f"{path} holds no key; remove it, and a new one is made")
    return key


def _make(path: Path) -> None:
    """Write a key to a file of its own and give it its name, unless another was faster."""
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(_KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)
