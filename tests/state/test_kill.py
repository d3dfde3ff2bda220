"""The kill latch: scopes, parts and kill files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.errors import StateError
from proxy.state.control_page import ControlState, Part, for_config
from proxy.state.kill import (
    ALL_PARTS,
    Scope,
    file_scope,
    kill,
    kill_file_names,
    kill_files_in,
    part_names,
    remove_kill_files,
    revive,
    set_weight,
)
from tests.support.resolved_config import small_config

STATE = for_config(small_config(Path("/nowhere")), ControlState())
SCOPES = [Scope(), Scope("iris"), Scope("iris", "v2"), Scope("iris", "v3")]
PARTS = [Part(value) for value in range(8)]


@given(
    killed=st.lists(st.tuples(st.sampled_from(SCOPES), st.sampled_from(PARTS))),
    part=st.sampled_from(PARTS),
)
def test_reviving_everything_leaves_nothing_killed(
    killed: list[tuple[Scope, Part]], part: Part
) -> None:
    """Whatever was latched: `revive` of a part opens that part everywhere, and no other."""
    state = STATE
    for scope, what in killed:
        state = kill(state, scope, what, "why")
    for candidate in ("v2", "v3"):
        left = revive(state, Scope(), part).killed_parts("iris", candidate)
        assert left == state.killed_parts("iris", candidate) & ~part
    assert _uncounted(revive(state, Scope(), ALL_PARTS)) == STATE


def _uncounted(state: ControlState) -> ControlState:
    """Return a state without the numbers of its revivals."""
    routes = {
        name: replace(
            route, candidates={k: replace(c, revivals=0) for k, c in route.candidates.items()}
        )
        for name, route in state.routes.items()
    }
    return replace(state, routes=routes)


@given(scope=st.sampled_from(SCOPES), part=st.sampled_from(PARTS))
def test_a_revive_counts_for_the_candidates_whose_canary_it_opens(scope: Scope, part: Part) -> None:
    """What guards have found before it is history then, latched here or not; for no other candidate."""
    found = revive(revive(STATE, scope, part), scope, part).routes["iris"].candidates
    for name, candidate in found.items():
        is_meant = scope.candidate in ("", name) and bool(part & Part.CANARY)
        assert candidate.revivals == (2 if is_meant else 0)


def test_a_candidate_that_the_config_forgets_keeps_its_revivals_with_its_kill() -> None:
    """So that a note of then does not hold again."""
    v2 = Scope("iris", "v2")
    state = kill(revive(STATE, v2, Part.CANARY), v2, Part.CANARY, "why")
    config = small_config(Path("/nowhere"))
    bare = replace(config, routes=(replace(config.routes[0], candidates=()),))
    back = for_config(config, for_config(bare, state)).routes["iris"].candidates["v2"]
    assert (back.killed, back.revivals) == (Part.CANARY, 1)


@given(scope=st.sampled_from(SCOPES), part=st.sampled_from(PARTS), again=st.sampled_from(SCOPES))
def test_a_latch_never_opens_by_another_kill(scope: Scope, part: Part, again: Scope) -> None:
    """Kills only ever add, and killing twice is killing once."""
    once = kill(STATE, scope, part, "why")
    assert kill(once, scope, part, "why") == once
    both = kill(once, again, Part.MIRROR, "why")
    for candidate in ("v2", "v3"):
        assert once.killed_parts("iris", candidate) & ~both.killed_parts("iris", candidate) == 0


def test_reviving_a_route_leaves_what_is_killed_for_everything() -> None:
    """A wider kill is opened only by a word of the same width."""
    state = kill(kill(STATE, Scope(), Part.DEFAULT, "all"), Scope("iris", "v2"), Part.RECORD, "one")
    after = revive(state, Scope("iris"), ALL_PARTS)
    assert after.killed_parts("iris", "v2") == Part.DEFAULT
    assert after.notes == {"*": "all"}


@pytest.mark.parametrize("scope", [Scope("rose"), Scope("iris", "v9"), Scope("rose", "v2")])
def test_an_unknown_scope_is_refused_and_says_which_there_are(scope: Scope) -> None:
    """Neither kill, revive nor weight guesses."""
    with pytest.raises(StateError, match="there are: "):
        kill(STATE, scope, Part.DEFAULT, "why")
    with pytest.raises(StateError, match="there are: "):
        revive(STATE, scope, ALL_PARTS)


def test_a_candidate_without_its_route_is_no_scope() -> None:
    """It would otherwise read as everything."""
    with pytest.raises(StateError, match="needs its route"):
        Scope("", "v2")


@pytest.mark.parametrize(
    ("weight_bp", "is_fine"), [(0, True), (9_000, True), (9_001, False), (-1, False)]
)
def test_a_weight_must_fit_beside_the_other_candidates(weight_bp: int, is_fine: bool) -> None:
    """v2 has 10%, so v3 may take at most 90%."""
    if is_fine:
        state = set_weight(STATE, Scope("iris", "v3"), weight_bp)
        assert state.routes["iris"].candidates["v3"].weight_bp == weight_bp
    else:
        with pytest.raises(StateError, match="between 0% and 90%"):
            set_weight(STATE, Scope("iris", "v3"), weight_bp)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("KILL", Scope()),
        ("KILL.iris", Scope("iris")),
        ("KILL.iris.v2", Scope("iris", "v2")),
        ("KILL.rose", None),
        ("KILL.iris.v9", None),
        ("KILL.iris.", None),
        ("KILL.", None),
        ("KILL~", None),
        ("KILLER", None),
    ],
)
def test_a_kill_file_means_its_scope_or_nothing_known(name: str, scope: Scope | None) -> None:
    """What means nothing known is None, which callers take for everything."""
    assert file_scope(name, STATE) == scope


def test_kill_files_are_found_and_removed_by_scope(tmp_path: Path) -> None:
    """Removing those of a route leaves the wider ones; unknown ones count as everything."""
    for name in ("KILL", "KILL.iris", "KILL.iris.v2", "KILL.typo", "other", ".KILL"):
        (tmp_path / name).touch()
    assert kill_file_names(tmp_path) == ["KILL", "KILL.iris", "KILL.iris.v2", "KILL.typo"]
    remove_kill_files(tmp_path, kill_files_in(tmp_path, Scope("iris"), STATE))
    assert kill_file_names(tmp_path) == ["KILL", "KILL.typo"]
    remove_kill_files(tmp_path, kill_files_in(tmp_path, Scope(), STATE))
    assert kill_file_names(tmp_path) == []


def test_a_kill_file_that_cannot_be_removed_stops_the_revive(tmp_path: Path) -> None:
    """Else the launcher would latch it again and the operator believe it open."""
    (tmp_path / "KILL").mkdir()
    with pytest.raises(StateError, match="cannot remove the kill file"):
        remove_kill_files(tmp_path, ["KILL"])


def test_parts_have_names() -> None:
    """In the order of the flags."""
    assert part_names(Part.NONE) == []
    assert part_names(ALL_PARTS) == ["mirror", "canary", "record"]
