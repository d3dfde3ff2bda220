"""The key of the hashes of units: made once, kept, and for its owner's eyes only."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.errors import StateError
from proxy.state.hash_key import FILE_NAME, kept_key


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    """So that a unit has the same hash after a restart; nobody else may read it."""
    key = kept_key(tmp_path)
    assert len(key) == 64
    assert kept_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_all_who_ask_at_once_get_the_same_key(tmp_path: Path) -> None:
    """Workers start together."""
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: kept_key(tmp_path), range(8)))
    assert len(keys) == 1


def test_what_is_no_key_is_never_used_or_replaced(tmp_path: Path) -> None:
    """A cut file would make hashes that can be guessed, another key ones that join with nothing."""
    (tmp_path / FILE_NAME).write_text("")
    with pytest.raises(StateError, match="holds no key"):
        kept_key(tmp_path)
    with pytest.raises(StateError, match="cannot keep a key"):
        kept_key(tmp_path / "missing")
