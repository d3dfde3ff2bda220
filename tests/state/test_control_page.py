"""The control page: what a writer publishes, a reader sees whole or not at all."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from proxy.errors import StateError
from proxy.state import page_file
from proxy.state.control_page import (
    CandidateState,
    ControlState,
    Part,
    RouteState,
    decode,
    encode,
    for_config,
    open_page,
    rewrite_page,
    update,
)
from proxy.state.kill import Scope, kill, revive
from proxy.state.page_file import PAGE_BYTES, locked
from proxy.state.syncing import HangingDiskError
from tests.support.disks import hanging_disk
from tests.support.resolved_config import small_config


def _state(note: str = "n") -> ControlState:
    candidates = {"v2": CandidateState(Part.CANARY, 100, 10_000, 100, 10_000, 3)}
    return ControlState(
        "c1", Part.RECORD, {"iris": RouteState(Part.MIRROR, candidates)}, {"*": note}
    )


def test_a_written_state_is_read_back_by_another_mapping(tmp_path: Path) -> None:
    """What one process publishes, another reads, field for field."""
    writer = open_page(tmp_path, create=True)
    reader = open_page(tmp_path)
    before = reader.generation()
    update(writer, lambda _: _state())
    assert reader.read() == _state()
    assert reader.generation() == before + 1
    writer.close()
    reader.close()


def test_a_new_page_is_private_whole_and_empty(tmp_path: Path) -> None:
    """Created 0600, every block allocated, no temporary file left."""
    page = open_page(tmp_path, create=True)
    assert page.read() == ControlState()
    page.close()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == PAGE_BYTES


def test_creating_a_page_keeps_the_one_that_is_there(tmp_path: Path) -> None:
    """A restart with `create` finds the kill that was latched before it."""
    page = open_page(tmp_path, create=True)
    update(page, lambda _: _state())
    page.close()
    again = open_page(tmp_path, create=True)
    assert again.read() == _state()
    again.close()


@pytest.mark.parametrize("size", [0, 10, PAGE_BYTES - 1])
def test_a_short_page_is_corrupt_and_never_silently_made_afresh(tmp_path: Path, size: int) -> None:
    """It may have held a kill, so only an operator's word replaces it."""
    page = open_page(tmp_path, create=True)
    page.close()
    os.truncate(page.path, size)
    with pytest.raises(StateError, match="corrupt"):
        open_page(tmp_path, create=True)
    assert page.path.stat().st_size == size


@pytest.mark.parametrize("offset", [0, 8, 64 + 8, 64 + 12, 64 + 20])
def test_a_damaged_page_is_refused(tmp_path: Path, offset: int) -> None:
    """Magic, generation, length, checksum, payload: damage anywhere is found."""
    page = open_page(tmp_path, create=True)
    for _ in range(2):
        update(page, lambda _: _state())
    start = 64 + (page.generation() % 2) * page_file.BUFFER_BYTES if offset >= 64 else 0
    at = offset if offset < 64 else start + offset - 64
    with page.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x11]))
    with pytest.raises(StateError, match="revive"):
        page.read()
    page.close()


def test_rewriting_a_damaged_page_reaches_those_who_have_it_mapped(tmp_path: Path) -> None:
    """It is written in place: a worker's old mapping sees the new state and a new generation."""
    page = open_page(tmp_path, create=True)
    with page.path.open("r+b") as file:
        file.write(b"\xff" * PAGE_BYTES)
    before = page.generation()
    rewrite_page(tmp_path, lambda _: _state("afresh"))
    assert page.read() == _state("afresh")
    assert page.generation() != before
    page.close()


@pytest.mark.parametrize("size", [0, 100, None])
def test_rewriting_mends_a_short_or_missing_page(tmp_path: Path, size: int | None) -> None:
    """`revive` works whatever is left of the file."""
    page = open_page(tmp_path, create=True)
    page.close()
    if size is None:
        page.path.unlink()
    else:
        os.truncate(page.path, size)
    rewrite_page(tmp_path, lambda _: _state())
    again = open_page(tmp_path)
    assert again.read() == _state()
    again.close()


def test_a_readable_page_is_never_rewritten(tmp_path: Path) -> None:
    """Somebody may have mended it a moment ago, and killed since."""
    page = open_page(tmp_path, create=True)
    update(page, lambda _: _state())
    with pytest.raises(StateError, match="mended by somebody else"):
        rewrite_page(tmp_path, lambda _: _state("afresh"))
    assert page.read() == _state()
    page.close()


def test_a_page_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Fields that it does not have yet take their defaults."""
    state = replace(_state(), kill_generation=7, kill_files={"KILL": 1})
    assert decode(encode(state)) == state
    old = orjson.loads(encode(state))
    for key in ("kill_generation", "kill_files"):
        old.pop(key)
    assert decode(orjson.dumps(old)) == _state()


def test_a_state_that_does_not_fit_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    """An overlong state changes nothing."""
    page = open_page(tmp_path, create=True)
    update(page, lambda _: _state())
    with pytest.raises(StateError, match="bytes"):
        update(page, lambda state: replace(state, notes={"*": "x" * PAGE_BYTES}))
    assert page.read() == _state()
    page.close()


def test_concurrent_writers_lose_no_change(tmp_path: Path) -> None:
    """Read, change and write happen under one lock."""
    open_page(tmp_path, create=True).close()

    def write(name: str) -> None:
        page = open_page(tmp_path)
        for number in range(50):
            update(page, lambda s, key=f"{name}{number}": replace(s, notes={**s.notes, key: ""}))  # type: ignore[misc]  # the default binds the loop's value
        page.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = open_page(tmp_path)
    assert len(page.read().notes) == 100
    page.close()


def test_a_lock_that_is_never_given_back_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped holder makes a kill fail with a word, not hang."""
    monkeypatch.setattr(page_file, "LOCK_TIMEOUT_S", 0.05)
    holder = os.open(tmp_path / "control.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(StateError, match="held by another process"), locked(tmp_path):
        pass
    os.close(holder)
    with locked(tmp_path):
        pass


def test_a_config_change_keeps_kills_and_live_weights_unless_edited(tmp_path: Path) -> None:
    """An unchanged config value leaves the live one; an edited one replaces it."""
    config = small_config(tmp_path)
    first = for_config(config, ControlState())
    v2 = replace(first.routes["iris"].candidates["v2"], weight_bp=4_200, killed=Part.MIRROR)
    live = replace(
        first,
        killed=Part.CANARY,
        routes={"iris": RouteState(Part.RECORD, {"v2": v2}), "gone": RouteState()},
    )
    same = for_config(config, live)
    assert same.killed == Part.CANARY
    assert same.routes["iris"].killed == Part.RECORD
    assert same.routes["iris"].candidates["v2"] == v2
    assert set(same.routes) == {"iris"}
    edited = replace(config.routes[0].candidates[0], weight_bp=2_000)
    route = replace(config.routes[0], candidates=(edited,))
    changed = for_config(replace(config, routes=(route,)), same).routes["iris"].candidates
    assert changed["v2"].weight_bp == 2_000
    assert changed["v2"].killed == Part.MIRROR
    assert set(changed) == {"v2"}


def test_a_candidate_that_was_killed_comes_back_killed(tmp_path: Path) -> None:
    """Taken out of the config and put in again, it has the config's weight, and the latch."""
    config = small_config(tmp_path)
    first = for_config(config, ControlState())
    killed = kill(first, Scope("iris", "v2"), Part.DEFAULT, "bad")
    without = replace(config.routes[0], name="rose", candidates=())
    gone = for_config(replace(config, routes=(without,)), killed)
    assert gone.routes["iris"].candidates["v2"] == CandidateState(killed=Part.DEFAULT)
    assert "v3" not in gone.routes["iris"].candidates
    only_v3 = replace(config.routes[0], candidates=config.routes[0].candidates[1:])
    kept = for_config(replace(config, routes=(only_v3,)), killed).routes["iris"].candidates
    assert kept["v2"] == CandidateState(killed=Part.DEFAULT)
    back = for_config(config, gone)
    assert back.routes["iris"].candidates["v2"] == killed.routes["iris"].candidates["v2"]
    assert set(back.routes) == {"iris"}
    opened = revive(gone, Scope("iris"), Part.DEFAULT)
    assert set(for_config(replace(config, routes=(without,)), opened).routes) == {"rose"}
    assert back.config_revision == first.config_revision + 2


def test_any_of_the_three_scopes_kills_a_candidate() -> None:
    """The parts of everything, the route and the candidate add up."""
    assert _state().killed_parts("iris", "v2") == Part.RECORD | Part.MIRROR | Part.CANARY
    assert _state().killed_parts("other", "x") == Part.RECORD


def test_a_disk_that_hangs_stops_no_writer_and_keeps_no_lock(tmp_path: Path) -> None:
    """A write that would wait for it is refused before anything is changed; a sync is not waited for."""
    with hanging_disk(tmp_path / "disk") as disk:
        page = open_page(disk.path, create=True)
        disk.hang()
        update(page, lambda _: _state("first"))
        disk.go_on()
        disk.hang_writes()
        with pytest.raises(HangingDiskError, match=r"control\.page cannot be written now"):
            update(page, lambda _: _state("second"))
        with locked(disk.path):
            assert page.read() == _state("first")
        disk.go_on()
        update(page, lambda _: _state("third"))
        assert page.read() == _state("third")
        page.close()
