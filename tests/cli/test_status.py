"""`understudy status` and `weight` against a running instance."""

from __future__ import annotations

import io
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.status_tables import render
from tests.support.counting_backend import CountingBackend, Load
from tests.support.deadline import wait_for
from tests.support.instance import Instance, running, understudy
from tests.support.ledgers import wait_balanced
from tests.support.upstreams import unused_port

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow


def test_status_shows_the_instance_and_weight_changes_it(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Tables for people, JSON for programs, the same from the folder alone."""
    with running(config, tmp_path, env={"UNDERSTUDY_TOKEN": "geheimes-wort"}) as instance:
        refused = instance.cli("status", env={"UNDERSTUDY_TOKEN": "wrong"})
        assert refused.returncode == 1
        assert "set UNDERSTUDY_TOKEN" in refused.stderr
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 50, "answers")
        done = instance.cli("weight", "iris", "v2", "2.5%")
        assert done.returncode == 0, done.stderr
        assert "20% -> 2.5%" in done.stdout
        assert instance.cli("weight", "iris", "v2", "120").returncode == 1
        shown = instance.cli("status", env={"COLUMNS": "120"})
        assert shown.returncode == 0, shown.stderr
        assert "2.5%" in shown.stdout
        assert "worker 1" in shown.stdout
        wait_balanced(instance)  # from then on nothing moves
        by_folder = ("status", "--json", "--state-dir", str(instance.state_dir))

        def alike() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(instance.cli("status", "--json").stdout)
            is_same = found["routes"] == json.loads(understudy(*by_folder).stdout)["routes"]
            return found if is_same else None

        by_api = wait_for(alike, "the same from the folder") or {}
        # A recorder tells its numbers once a second.
        wait_for(lambda: 0 <= _lag_s(instance) < 5, "its lag")
        by_api["recorders"][0]["lag_s"] = 61.2
        console = Console(record=True, width=200, file=io.StringIO())
        console.print(render(by_api))
        assert "ok, 61 s late" in console.export_text()
        assert by_api["routes"][0]["candidates"][0]["weight_bp"] == 250
        instance.send("control", signal.SIGSTOP)
        near = understudy("status", "--json", cwd=instance.state_dir.parent)
        instance.send("control", signal.SIGCONT)
        assert near.returncode == 0
        assert json.loads(near.stdout)["instance"] == by_api["instance"]
        assert "cannot reach" in near.stderr


def test_the_exit_code_tells_whether_users_are_served(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """0 while they are; 1 when no worker moves, and after a stop, which is no crash."""
    with running(config, tmp_path) as instance:
        state_dir = str(instance.state_dir)
        assert instance.cli("status").returncode == 0
        assert understudy("status", "--state-dir", state_dir).returncode == 0
    for words in (["--state-dir", state_dir], []):
        done = understudy("status", *words, cwd=tmp_path, env={"COLUMNS": "140"})
        assert done.returncode == 1
        assert "NOT RUNNING" in done.stdout
        assert f"not running: no process of an instance lives on {state_dir}" in done.stdout
        assert "recorder 0: " not in done.stdout
    found = json.loads(understudy("status", "--json", "--state-dir", state_dir).stdout)
    assert (found["running"], found["ready"]) == (False, False)


def _lag_s(instance: Instance) -> float:
    """Return how late the recorder says that it is; -1 before it knows."""
    found = instance.status()["recorders"][0]["lag_s"]
    return -1.0 if found is None else float(found)


def test_a_candidate_that_refuses_every_call_is_told(
    config: dict[str, Any], primary: CountingBackend, tmp_path: Path
) -> None:
    """The tables show how its calls ended, and a problem says that it fails now; users are rescued."""
    config["backends"]["c"]["endpoints"] = [f"http://127.0.0.1:{unused_port()}"]

    def told() -> list[str]:
        problems: list[str] = instance.status()["problems"]
        is_all = all(word in str(problems) for word in ("connect_error", "its breaker is open"))
        return problems if is_all else []

    with running(config, tmp_path) as instance:
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 60, "answers")
            problems = wait_for(told, "the problems")
        assert all(problem.startswith("iris/v2: ") for problem in problems)
        assert "its breaker is open" in problems[-1]
        shown = instance.cli("status", env={"COLUMNS": "200"}).stdout
        assert re.search(r"iris/v2 .*│ connect_error \d+", shown)
        v2 = instance.status()["routes"][0]["candidates"][0]
        assert v2["served"] == 0 < v2["rescued"] == v2["canary"]
        assert load.failures == []


def test_a_command_without_an_instance_says_where_it_looked(tmp_path: Path) -> None:
    """One line, exit 1."""
    for words in (["status"], ["kill", "--reason", "r"], ["weight", "a", "b", "1"]):
        done = understudy(*words, cwd=tmp_path)
        assert done.returncode == 1
        assert "UNDERSTUDY_ADMIN" in done.stderr
    done = understudy("status", "--admin", "http://127.0.0.1:1")
    assert "cannot reach http://127.0.0.1:1" in done.stderr
    done = understudy("kill", "--reason", "r", "--state-dir", str(tmp_path / "none"))
    assert "is no folder" in done.stderr


def test_a_kill_without_a_page_leaves_the_kill_file(tmp_path: Path) -> None:
    """For the launcher that starts next; nothing stands in the way of a kill."""
    (tmp_path / "config").mkdir()
    done = understudy("kill", "--route", "iris", "--reason", "why", "--state-dir", str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / "KILL.iris").read_text() == "why\n"
    assert "KILL.iris" in done.stdout
    assert "a kill file was left" in done.stderr
    assert "nothing seems to run" in done.stderr


@pytest.mark.parametrize("order", ["kill", "revive", "weight"])
def test_an_order_for_a_folder_that_is_no_state_directory_is_refused(
    tmp_path: Path, order: str
) -> None:
    """It would have stopped nothing; nothing is left there, either."""
    words = {"weight": ["iris", "v2", "5"]}.get(order, ["--reason", "r"])
    done = understudy(order, *words, "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "is no state directory, so nothing was done" in done.stderr
    assert list(tmp_path.iterdir()) == []
