"""`understudy decisions`: what was decided, and what was refused, by whatever way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proxy.state import decisions
from proxy.state.decision_record import Decision, json_schema
from tests.support.deadline import START_PATIENCE_S, wait_for
from tests.support.instance import Instance, running, understudy
from tests.support.records import pair, write_pairs

#: Action, outcome, way and scope of all that is ordered here; reloads come by one way or two.
ALL_KINDS = {
    ("weight", "done", "api", "iris/v2"),
    ("kill", "done", "api", "iris/v2"),
    ("kill", "refused", "api", "x/v2"),
    ("revive", "refused", "api", "*"),
    ("kill", "refused", "state-dir", "rose"),
    ("revive", "done", "state-dir", "*"),
    ("kill", "done", "file", "iris"),
    ("kill", "done", "signal", "*"),
}


def told(instance: Instance, *words: str) -> list[dict[str, Any]]:
    """Return the records that the command prints, the oldest first."""
    done = instance.cli("decisions", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def decide_everything(instance: Instance, path: Path) -> None:
    """Give every order once, by each of the ways, good ones and bad ones."""
    good, folder = path.read_text(), str(instance.state_dir)
    assert instance.cli("weight", "iris", "v2", "5", "--reason", "less").returncode == 0
    api = {"route": "iris", "candidate": "v2", "reason": "bad answers"}
    assert instance.admin("POST", "/api/v1/kill", api).status_code == 200
    assert instance.admin("POST", "/api/v1/kill", {**api, "route": "x"}).status_code == 404
    late = {"reason": "late", "seen_generation": 0}
    assert instance.admin("POST", "/api/v1/revive", late).status_code == 412
    here = ("--state-dir", folder, "--reason", "typo", "--route", "rose")
    assert understudy("kill", *here).returncode == 1
    assert understudy("revive", "--state-dir", folder, "--reason", "ok").returncode == 0
    put(instance.state_dir / "KILL.iris", "by hand\n")
    instance.process.send_signal(signal.SIGUSR1)
    put(path, good.replace("weight: 20%", "weight: 8%"))
    instance.cli("reload", "--reason", "new weight")
    put(path, good.replace("weight: 20%", "weight: 800%"))
    instance.cli("reload", "--reason", "a slip")
    wait_for(lambda: kinds_of(told(instance)).keys() >= ALL_KINDS, "the decisions")


def put(path: Path, text: str) -> None:
    """Write a file that somebody watches, who must not see the half of it."""
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_text(text)
    fresh.replace(path)


def kinds_of(found: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Return the last decision of each action, outcome, way and scope."""
    return {
        (each["action"], each["outcome"], each["via"].split(" ")[0], each["scope"]): each
        for each in found
    }


@pytest.mark.slow
def test_every_kind_of_decision_is_a_record_that_says_who_why_old_and_new(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """By command, API, file and signal; orders and files that were refused, too."""
    config["instance"] = "gateway-a"
    config["routes"][0]["experiment_id"] = "iris-may"
    with running(config, tmp_path) as instance:
        assert told(instance) == []
        decide_everything(instance, tmp_path / "understudy.yaml")
        found, status = told(instance, "--limit", "100"), instance.status()["decisions"]
        assert "last decisions" in instance.cli("status", env={"COLUMNS": "200"}).stdout
        here = ("--state-dir", str(instance.state_dir))
        table = understudy("decisions", *here, env={"COLUMNS": "200"}).stdout
    assert table.count("refused") >= 4
    assert status["written"] >= len(found)
    assert "reload" in {each["action"] for each in status["last"]}
    assert [each["seq"] for each in found] == list(range(1, len(found) + 1))
    for each in found:
        jsonschema.validate(each, json_schema())
        assert each["instance"] == "gateway-a"
        assert each["experiment_id"] in ("iris-may", "*", "rose", "x")
    check_orders(kinds_of(found))
    check_reloads(found)


def check_orders(kinds: dict[tuple[str, str, str, str], dict[str, Any]]) -> None:
    """Look at what was ordered, by action, outcome, way and scope."""
    weight = kinds["weight", "done", "api", "iris/v2"]
    assert (weight["old"], weight["new"], weight["reason"]) == (2_000, 500, "less")
    assert kinds["kill", "done", "api", "iris/v2"]["new"] == ["mirror", "canary"]
    assert "no route 'x'" in kinds["kill", "refused", "api", "x/v2"]["refusal"]
    assert "was a kill after" in kinds["revive", "refused", "api", "*"]["refusal"]
    assert kinds["kill", "refused", "state-dir", "rose"]["reason"] == "typo"
    assert kinds["revive", "done", "state-dir", "*"]["new"] == []
    assert kinds["kill", "done", "file", "iris"]["reason"] == "by hand"
    assert kinds["kill", "done", "signal", "*"]["new"] == ["mirror", "canary"]


def check_reloads(found: list[dict[str, Any]]) -> None:
    """Look at the file that was taken, the weight that it moved, and the file that was refused."""
    done, refused = (
        [each for each in found if (each["action"], each["outcome"]) == ("reload", word)]
        for word in ("done", "refused")
    )
    (edited,) = done
    assert edited["diff"] == ["routes.iris.candidates.v2.weight: 20% -> 8%"]
    moved = [each for each in found if each["action"] == "weight"][1]
    assert (moved["old"], moved["new"], moved["config_version"]) == (500, 800, edited["new"])
    assert "weight" in refused[0]["refusal"]
    assert (refused[0]["old"], refused[0]["new"]) == (edited["new"], None)


@pytest.mark.slow
def test_a_start_with_another_config_is_a_decision(config: dict[str, Any], tmp_path: Path) -> None:
    """With the weights that it moves; a start with the same one decides nothing."""
    with running(config, tmp_path) as instance:
        before = instance.status()["config_version"]
    config["routes"][0]["candidates"][0]["weight"] = "1%"
    with running(config, tmp_path) as instance:
        after = instance.status()["config_version"]
        start, weight = told(instance)
    with running(config, tmp_path) as instance:
        assert told(instance) == [start, weight]
    assert (start["action"], start["old"], start["new"]) == ("start", before, after)
    assert (weight["action"], weight["old"], weight["new"]) == ("weight", 2_000, 100)


def test_a_verdict_is_made_again_from_the_decision_that_holds_it(tmp_path: Path) -> None:
    """As a line of the log, or of the topic, on standard input; a forged one is an error."""
    records = [pair(n, 1, 2 if n % 8 == 0 else 1) for n in range(1, 1_001)]
    write_pairs(tmp_path / "pairs" / "1.ndjson.zst", records)
    (tmp_path / "config").mkdir()
    made = understudy("verdict", "--from", str(tmp_path), "--json")
    document = json.loads(made.stdout)
    for evidence in (document["record"], None):
        decisions.append(
            tmp_path,
            Decision(1, "verdict", "ramp", "control", "iris/v2", None, "halt", "r", evidence=evidence),
        )  # fmt: skip
    lines = understudy("decisions", "--json", "--state-dir", str(tmp_path)).stdout.splitlines()
    again = verdict_of(lines[0])
    assert (again.returncode, again.stderr) == (2, "")
    assert again.stdout.splitlines()[0] == document["sentence"]
    forged = json.loads(lines[0])
    forged["evidence"]["counts"]["gates"][0]["overall"]["cells"][0][2] += 1
    assert "its counts give" in verdict_of(json.dumps(forged)).stderr
    without = verdict_of(lines[1])
    assert (without.returncode, "carries no verdict" in without.stderr) == (1, True)


def verdict_of(record: str) -> subprocess.CompletedProcess[str]:
    """Run `understudy verdict` on a record that comes by a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "verdict", "--from-record", "-"],
        input=record, capture_output=True, text=True, timeout=START_PATIENCE_S, check=False,
    )  # fmt: skip


def test_nothing_decided_yet_is_no_error(tmp_path: Path) -> None:
    """A folder of an instance that has only been started."""
    (tmp_path / "config").mkdir()
    done = understudy("decisions", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "nothing has been decided yet\n")
