"""`understudy ramp`: an operator's words to a running instance, and what they read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.entry import run
from proxy.cli.ramp import WORDS
from proxy.control import ramp_orders
from proxy.ramp.phases import Phase
from tests.support.instance import running

pytestmark = pytest.mark.slow


def test_the_words_are_those_of_the_api() -> None:
    """Each with its line of help."""
    assert WORDS.keys() == ramp_orders.WORDS.keys()


def test_an_operators_day(
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Try, start, look, pause, resume, abort; the weight goes to 0 with the start already."""
    config["routes"][0]["ramp"] = {"steps": [{"weight": "30%"}], "gates": [{"metric": "agreement"}]}

    def say(*words: str, code: int = 0) -> str:
        """Run the command here: a process for each would take a second."""
        assert run(["ramp", *words]) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out

    with running(config, tmp_path) as instance:
        monkeypatch.setenv("UNDERSTUDY_ADMIN", instance.admin_url)
        tried = say("start", "iris", "--dry-run")
        assert "would go from idle to shadow; weight 20% -> 0%" in tried
        assert json.loads(say("status", "--json"))["iris/v2"]["phase"] == Phase.IDLE
        words = ("start", "iris", "--candidate", "v2", "--reason", "May", "--json")
        started = json.loads(say(*words))
        assert (started["old"], started["new"], started["new_weight_bp"]) == ("idle", "shadow", 0)
        assert "shadow" in say("status", "iris")
        assert "paused shadow" in say("pause", "iris")
        assert "409" in say("promote", "iris", code=1)
        assert run(["status"]) == 0
        assert "ramps" in capsys.readouterr().out
        assert "from paused shadow to shadow" in say("resume", "iris")
        assert "to rolled_back" in say("abort", "iris")
        assert "there are: " in say("pause", "other", code=1)
        decisions = instance.admin("GET", "/api/v1/decisions").json()["decisions"]
        start = next(each for each in decisions if each["action"] == "ramp_start")
        assert (start["reason"], "@" in start["who"]) == ("May", True)
