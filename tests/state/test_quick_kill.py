"""The kill that waits for no import does what every other kill does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.state.control_page import (
    ControlState,
    Part,
    decode,
    encode,
    for_config,
    open_page,
    update,
)
from proxy.state.kill import Scope, kill
from proxy.state.page_file import PAGE_BYTES
from proxy.state.quick_kill import PARTS, kill_now, killed
from tests.support.resolved_config import small_config

STATE = for_config(small_config(Path("/nowhere")), ControlState())
SCOPES = [Scope(), Scope("iris"), Scope("iris", "v2"), Scope("iris", "v3")]
ONLY = [
    ("", Part.DEFAULT),
    ("mirror", Part.MIRROR),
    ("canary", Part.CANARY),
    ("record", Part.RECORD),
]


@given(
    earlier=st.lists(st.tuples(st.sampled_from(SCOPES), st.sampled_from(list(Part)))),
    scope=st.sampled_from(SCOPES),
    only=st.sampled_from(ONLY),
    note=st.text(st.characters(exclude_categories=["Cs"])),
    generation=st.integers(0, 2**64 - 1),
)
def test_it_changes_a_state_as_a_kill_does(
    earlier: list[tuple[Scope, Part]],
    scope: Scope,
    only: tuple[str, Part],
    note: str,
    generation: int,
) -> None:
    """Whatever was latched before: every scope, part and note."""
    state = STATE
    for where, part in earlier:
        state = kill(state, where, part, "earlier")
    word, part = only
    after = decode(killed(encode(state), str(scope), word, note, generation))
    assert after == replace(kill(state, scope, part, note), kill_generation=generation)


def test_it_knows_the_parts_there_are() -> None:
    """Their numbers are written twice, because the enum takes too long to import."""
    named = {str(part.name).lower(): int(part) for part in Part if part}
    assert {"": int(Part.DEFAULT), **named} == PARTS


def test_it_is_in_effect_on_the_page(tmp_path: Path) -> None:
    """Another mapping of the page sees it, with a new generation that says so."""
    page = open_page(tmp_path, create=True)
    update(page, lambda _: STATE)
    payloads = kill_now(tmp_path, "iris/v2", "", "why")
    assert payloads is not None
    assert decode(payloads[0]) == STATE
    assert page.read() == decode(payloads[1])
    assert page.read().killed_parts("iris", "v2") == Part.DEFAULT
    assert page.read().kill_generation == page.generation()
    page.close()


@pytest.mark.parametrize("trouble", ["missing", "short", "corrupt", "foreign", "scope"])
def test_what_it_does_not_understand_it_leaves_alone(tmp_path: Path, trouble: str) -> None:
    """The long way says what is wrong, and leaves a kill file where that helps."""
    page = open_page(tmp_path, create=True)
    update(page, lambda _: STATE)
    if trouble == "foreign":
        page.write_payload(b"[]")
    page.close()
    data = {"short": b"x", "corrupt": b"x" * PAGE_BYTES}.get(trouble)
    if data is not None:
        page.path.write_bytes(data)
    if trouble == "missing":
        page.path.unlink()
    before = None if trouble == "missing" else page.path.read_bytes()
    assert kill_now(tmp_path, "rose" if trouble == "scope" else "*", "", "why") is None
    assert (page.path.read_bytes() if page.path.exists() else None) == before
