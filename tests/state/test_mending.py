"""What becomes of orders while the control page cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import StateError
from proxy.state import decisions
from proxy.state.control_page import ControlPage, ControlState, Part, for_config, open_page, update
from proxy.state.kill import ALL_PARTS, Scope, UnknownScopeError
from proxy.state.mending import kill_by_file, revive_corrupt
from proxy.state.orders import Source, order_file_kills, order_kill, order_revive, still_killed
from tests.support.resolved_config import small_config

SOURCE = Source("ann", "state-dir", "wrong answers", 1_700_000_000_123)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ControlPage]:
    """A page of the small config that something has overwritten."""
    page = open_page(tmp_path, create=True)
    update(page, lambda before: for_config(small_config(tmp_path), before))
    with page.path.open("r+b") as file:
        file.write(b"\0" * 64)
    yield page
    page.close()


def test_a_revive_writes_the_page_afresh_and_says_what_that_cost(
    page: ControlPage, tmp_path: Path
) -> None:
    """Weights are the config's again; whoever reads the log later learns it, too."""
    config = small_config(tmp_path)
    change = revive_corrupt(tmp_path, config, SOURCE)
    fresh = for_config(config, ControlState()).routes["iris"].candidates
    found = page.read().routes["iris"].candidates
    assert {n: replace(c, revivals=0) for n, c in found.items()} == fresh
    assert {c.revivals for c in found.values()} == {SOURCE.now_ms}  # no note of a guard holds
    (decision,) = decisions.read_last(tmp_path, 9)
    assert decision["old"] == ["unreadable"]
    assert decision["note"] == change.decision.note
    assert "live weights are the config's again (iris/v2 10%, iris/v3 0%)" in decision["note"]
    with pytest.raises(StateError, match="mended by somebody else"):
        revive_corrupt(tmp_path, config, SOURCE)


def test_a_kill_while_the_page_is_unreadable_is_kept_by_the_revive_that_mends_it(
    page: ControlPage, tmp_path: Path
) -> None:
    """Mending is one word, opening another: a stale revive cannot undo a kill given since."""
    config = small_config(tmp_path)
    with pytest.raises(StateError, match="corrupt"):
        order_kill(page, Scope(), Part.DEFAULT, SOURCE)
    change = kill_by_file(tmp_path, config, Scope("iris", "v2"), SOURCE)
    assert change.decision.via == "state-dir, file KILL.iris.v2"
    assert (tmp_path / "KILL.iris.v2").read_text() == "wrong answers\n"
    assert decisions.read_last(tmp_path, 1)[0]["action"] == "kill"
    seen = replace(SOURCE, seen_generation=page.generation())
    change = revive_corrupt(tmp_path, config, seen)
    assert still_killed(page.read()) == {"iris/v2": ["mirror", "canary"]}
    assert "KILL.iris.v2 stays killed" in change.decision.note
    assert order_file_kills(page, 2) == {}
    order_revive(page, Scope(), ALL_PARTS, replace(seen, seen_generation=page.generation()))
    assert still_killed(page.read()) == {}
    assert not (tmp_path / "KILL.iris.v2").exists()


@pytest.mark.parametrize("scope", [Scope("rose"), Scope("iris", "v9")])
def test_a_kill_file_is_left_for_known_scopes_only(tmp_path: Path, scope: Scope) -> None:
    """The launcher would take an unknown name for everything."""
    with pytest.raises(UnknownScopeError, match="there are: "):
        kill_by_file(tmp_path, small_config(tmp_path), scope, SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_file_that_cannot_be_left_is_an_error(tmp_path: Path) -> None:
    """Its callers go on to the signal, which needs no disk."""
    with pytest.raises(StateError, match="cannot leave the kill file"):
        kill_by_file(tmp_path / "none", None, Scope(), SOURCE)
