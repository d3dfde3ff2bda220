"""Orders: the page changes first, then the decision is logged, and kill files are answered."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.state import decisions
from proxy.state.control_page import ControlPage, Part, for_config, open_page, update
from proxy.state.decision_files import FILE_NAME
from proxy.state.kill import ALL_PARTS, Scope
from proxy.state.orders import (
    OvertakenError,
    Source,
    order_file_kills,
    order_kill,
    order_revive,
    order_weight,
    still_killed,
)
from tests.support.deadline import wait_for
from tests.support.resolved_config import small_config

SOURCE = Source("ann", "state-dir", "wrong answers", 1_700_000_000_123)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ControlPage]:
    """A page of the small config."""
    page = open_page(tmp_path, create=True)
    update(page, lambda before: for_config(small_config(tmp_path), before))
    yield page
    page.close()


def test_a_kill_is_latched_noted_and_logged(page: ControlPage, tmp_path: Path) -> None:
    """Who, when and why are on the page and in the log, which is private."""
    change = order_kill(page, Scope("iris"), Part.DEFAULT, SOURCE)
    assert page.read().routes["iris"].killed == Part.DEFAULT
    assert page.read().notes == {"iris": "2023-11-14T22:13:20.123Z ann (state-dir): wrong answers"}
    assert change.log_error == ""
    (found,) = decisions.read_last(tmp_path, 10)
    assert found | {"decision_id": "", "config_version": ""} == {
        "schema_version": "1", "decision_id": "", "seq": 1, "ts": "2023-11-14T22:13:20.123Z",
        "ts_ms": 1_700_000_000_123, "instance": "", "experiment_id": "iris", "config_version": "",
        "action": "kill", "outcome": "done", "scope": "iris", "route": "iris", "candidate": None,
        "who": "ann", "via": "state-dir", "reason": "wrong answers", "old": [],
        "new": ["mirror", "canary"], "note": None, "refusal": None, "evidence": None, "diff": None,
    }  # fmt: skip
    mode = (tmp_path / FILE_NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_decisions_come_back_newest_first_and_survive_a_torn_line(
    page: ControlPage, tmp_path: Path
) -> None:
    """A line cut by a crash hides no other."""
    order_kill(page, Scope(), Part.MIRROR, SOURCE)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"ts": "2\n')
    order_weight(page, Scope("iris", "v3"), 500, SOURCE)
    order_revive(page, Scope(), ALL_PARTS, SOURCE)
    found = decisions.read_last(tmp_path, 2)
    assert [(d["action"], d["old"], d["new"]) for d in found] == [
        ("revive", ["mirror"], []),
        ("weight", 0, 500),
    ]
    assert decisions.read_last(tmp_path / "none", 5) == []


def test_a_kill_holds_when_the_log_cannot_be_written(page: ControlPage, tmp_path: Path) -> None:
    """The log is the lesser good."""
    (tmp_path / FILE_NAME).mkdir()
    change = order_kill(page, Scope(), Part.DEFAULT, SOURCE)
    assert page.read().killed == Part.DEFAULT
    assert "cannot append" in change.log_error


def test_kill_files_are_latched_once_with_their_reason(page: ControlPage, tmp_path: Path) -> None:
    """The first line is the reason, the owner is who."""
    (tmp_path / "KILL.iris.v2").write_text("answers in Latin\nsecond line\n")
    changes = order_file_kills(page, 1)
    assert page.read().killed_parts("iris", "v2") == Part.DEFAULT
    assert page.read().killed_parts("iris", "v3") == Part.NONE
    decision = changes["KILL.iris.v2"].decision
    assert (decision.reason, decision.who) == ("answers in Latin", f"uid {os.getuid()}")
    generation = page.generation()
    assert order_file_kills(page, 2) == {}
    assert page.generation() == generation


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo])
def test_an_unknown_kill_file_of_any_kind_kills_everything(
    page: ControlPage, tmp_path: Path, make: object
) -> None:
    """A misspelt route, a folder, even a named pipe: stop, do not ask."""
    assert callable(make)
    make(tmp_path / "KILL.irsi")
    changes = order_file_kills(page, 1)
    assert page.read().killed == Part.DEFAULT
    assert changes["KILL.irsi"].is_guess


def test_a_revive_removes_the_kill_files_it_answers(page: ControlPage, tmp_path: Path) -> None:
    """So the launcher cannot latch them again."""
    (tmp_path / "KILL").touch()
    (tmp_path / "KILL.iris").touch()
    order_file_kills(page, 1)
    order_revive(page, Scope(), ALL_PARTS, SOURCE)
    assert still_killed(page.read()) == {}
    assert order_file_kills(page, 2) == {}


def test_reviving_one_part_keeps_what_a_kill_file_holds_beside_it(
    page: ControlPage, tmp_path: Path
) -> None:
    """Even when the launcher had not seen the file yet."""
    (tmp_path / "KILL").touch()
    order_revive(page, Scope(), Part.MIRROR, SOURCE)
    assert still_killed(page.read()) == {"*": ["canary"]}
    assert not (tmp_path / "KILL").exists()


def test_still_killed_names_every_latched_scope(page: ControlPage) -> None:
    """Everything, routes and candidates."""
    order_kill(page, Scope(), Part.RECORD, SOURCE)
    order_kill(page, Scope("iris"), Part.MIRROR, SOURCE)
    order_kill(page, Scope("iris", "v2"), Part.CANARY, SOURCE)
    assert still_killed(page.read()) == {"*": ["record"], "iris": ["mirror"], "iris/v2": ["canary"]}


def touch_later(path: Path) -> None:
    """Touch a file; at a later time than before, as the clock of the file system has it."""
    before_ns = path.lstat().st_ctime_ns if path.exists() else 0

    def is_later() -> bool:
        path.touch()
        return path.lstat().st_ctime_ns > before_ns

    wait_for(is_later, "the clock of the file system", every_s=0.001)


@pytest.mark.parametrize("way", ["order", "file", "touched file", "file over a kill"])
def test_an_order_given_before_a_kill_is_refused_after_it(
    page: ControlPage, tmp_path: Path, way: str
) -> None:
    """However the kill came, and even when its file was not latched yet, nothing opens."""
    if way in ("touched file", "file over a kill"):
        if way == "touched file":
            (tmp_path / "KILL").touch()
            order_file_kills(page, 1)
        else:
            order_kill(page, Scope(), Part.DEFAULT, SOURCE)
    old = replace(SOURCE, seen_generation=page.generation())
    if way == "order":
        order_kill(page, Scope("iris", "v2"), Part.DEFAULT, SOURCE)
    else:
        touch_later(tmp_path / "KILL")
    killed = page.read().killed_parts("iris", "v2") | Part.DEFAULT
    with pytest.raises(OvertakenError, match="a kill after this order was given"):
        order_revive(page, Scope(), ALL_PARTS, old)
    with pytest.raises(OvertakenError):
        order_weight(page, Scope("iris", "v3"), 500, old)
    assert page.read().killed_parts("iris", "v2") == killed
    assert (tmp_path / "KILL").exists() == (way != "order")
    assert [d["action"] for d in decisions.read_last(tmp_path, 9)].count("revive") == 0
    now = replace(SOURCE, seen_generation=page.generation())
    order_revive(page, Scope(), ALL_PARTS, now)
    assert still_killed(page.read()) == {}


def test_weights_and_revives_overtake_nobody(page: ControlPage) -> None:
    """Only a kill makes an order too old; a page that was made anew does, too."""
    seen = replace(SOURCE, seen_generation=page.generation())
    order_weight(page, Scope("iris", "v3"), 500, seen)
    order_revive(page, Scope(), ALL_PARTS, seen)
    order_weight(page, Scope("iris", "v3"), 600, seen)
    with pytest.raises(OvertakenError):
        order_weight(page, Scope("iris", "v3"), 1, replace(SOURCE, seen_generation=10_000))


def test_what_an_order_opened_can_be_told(page: ControlPage) -> None:
    """Scope by scope; nothing when nothing was killed."""
    order_kill(page, Scope(), Part.MIRROR, SOURCE)
    order_kill(page, Scope("iris"), Part.DEFAULT, SOURCE)
    change = order_revive(page, Scope(), Part.MIRROR, SOURCE)
    assert change.opened == {"*": ["mirror"], "iris": ["mirror"]}
    assert order_revive(page, Scope(), Part.MIRROR, SOURCE).opened == {}
