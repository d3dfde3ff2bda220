"""`understudy kill` on a state directory: the quick way, the long way, and that they tell the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.entry import run
from proxy.cli.kill import PARSER
from proxy.cli.quick_kill import try_quick_kill
from proxy.state import decisions
from proxy.state.control_page import ControlPage, Part, for_config, open_page, update
from tests.support.resolved_config import small_config, write_config


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPage]:
    """The page of an instance that does not run, in `state`; the current folder is beside it."""
    state_dir = tmp_path / "state"
    write_config(small_config(state_dir))
    page = open_page(state_dir, create=True)
    update(page, lambda before: for_config(small_config(state_dir), before))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNDERSTUDY_ADMIN", raising=False)
    yield page
    page.close()


def test_it_takes_effect_before_it_is_told(
    page: ControlPage, capsys: pytest.CaptureFixture[str]
) -> None:
    """One write, one decision, one answer."""
    words = [
        "kill",
        "--route",
        "iris",
        "--reason",
        "bad \udcff byte",
        "--state-dir",
        "state",
        "--json",
    ]
    generation = page.generation()
    assert run(words) == 0
    assert page.generation() == generation + 1
    assert page.read().routes["iris"].killed == Part.DEFAULT
    (decision,) = decisions.read_last(page.path.parent, 9)
    assert (decision["action"], decision["scope"], decision["via"]) == ("kill", "iris", "state-dir")
    assert decision["reason"] == "bad ? byte"
    assert (decision["old"], decision["new"]) == ([], ["mirror", "canary"])
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert answer["killed"] == {"iris": ["mirror", "canary"]}
    assert page.read().notes["iris"].endswith("(state-dir): bad ? byte")
    assert "nothing seems to run on state now" in shown.err


def test_the_long_way_tells_the_same(
    page: ControlPage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For whoever parses it."""
    words = ["kill", "--only", "canary", "--reason", "r", "--state-dir", "state", "--json"]
    assert run(words) == 0
    quick = json.loads(capsys.readouterr().out)
    assert run(["revive", "--reason", "r", "--state-dir", "state"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("proxy.cli.kill.try_quick_kill", lambda _: None)
    assert run(words) == 0
    long = json.loads(capsys.readouterr().out)
    assert {**quick, "took_ms": 0} == {**long, "took_ms": 0}
    first, _, last = decisions.read_last(page.path.parent, 9)
    apart = {"decision_id": "", "seq": 0, "ts": "", "ts_ms": 0}
    assert {**first, **apart} == {**last, **apart}


@pytest.mark.parametrize(
    ("words", "is_quick"),
    [
        (["--state-dir", "state"], True),
        (["--state-dir", "state", "--route", "iris", "--candidate", "v2"], True),
        (["--state-dir", "state", "--route", "rose"], False),
        (["--state-dir", "state", "--candidate", "v2"], False),
        (["--state-dir", "."], False),
        (["--admin", "127.0.0.1:1"], False),
        ([], False),  # an instance that does not run is not found by its folder alone
    ],
)
def test_it_is_quick_where_the_folder_is_known(
    page: ControlPage, words: list[str], is_quick: bool
) -> None:
    """And changes nothing where it is not, so that the long way can say what is wrong."""
    generation = page.generation()
    quick = try_quick_kill(PARSER.parse_args([*words, "--reason", "r"]))
    assert (quick is not None) == is_quick
    assert (page.generation() != generation) == is_quick


def test_a_revive_tells_what_it_opened_or_that_there_was_nothing(
    page: ControlPage, capsys: pytest.CaptureFixture[str]
) -> None:
    """`revived *` when nothing was killed would be a false comfort."""
    revive = ["revive", "--reason", "r", "--state-dir", "state"]
    assert run(revive) == 0
    assert "nothing of * was killed" in capsys.readouterr().out
    assert run(["kill", "--route", "iris", "--reason", "r", "--state-dir", "state"]) == 0
    capsys.readouterr()
    assert run(revive) == 0
    assert "revived *: opened iris (mirror, canary)" in capsys.readouterr().out


def test_a_revive_of_a_corrupt_page_says_loudly_what_it_cost(
    page: ControlPage, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr and in the log: the weights are the config's again."""
    assert run(["weight", "iris", "v3", "5", "--state-dir", "state"]) == 0
    page.path.write_bytes(b"x" * page.path.stat().st_size)
    assert run(["kill", "--reason", "r", "--state-dir", "state"]) == 0
    assert "only the primary serves already" in capsys.readouterr().err
    revive = ["revive", "--reason", "r", "--state-dir", "state"]
    assert run(revive) == 0
    shown = capsys.readouterr()
    assert "WROTE THE CONTROL PAGE AFRESH" in shown.out
    assert "killed: *: mirror, canary" in shown.out
    assert "live weights are the config's again (iris/v2 10%, iris/v3 0%)" in shown.err
    assert "config's again" in decisions.read_last(page.path.parent, 1)[0]["note"]
    assert run(revive) == 0
    assert "nothing is killed" in capsys.readouterr().out
