"""Reloads of a running instance, as operators and Kubernetes do them, while users send.

`UNDERSTUDY_RELOADS=200 .venv/bin/pytest tests/acceptance/test_reload.py` is the long form.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.support.counting_backend import CountingBackend, Load, counting_backend, two_workers
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running, understudy
from tests.support.planting import files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RELOADS = int(os.environ.get("UNDERSTUDY_RELOADS", "20"))
_PROCESSES = ("worker 0", "worker 1", "control", "recorder 0")
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def backends() -> Iterator[tuple[CountingBackend, CountingBackend]]:
    """The backend that serves users, and the one under trial."""
    with counting_backend("primary") as primary, counting_backend("candidate") as candidate:
        yield primary, candidate


@pytest.fixture
def config(backends: tuple[CountingBackend, CountingBackend]) -> dict[str, Any]:
    """Two workers; the candidate v2 is mirrored and serves a fifth of the users."""
    return two_workers(*backends)


def _write(folder: Path, change: Change) -> None:
    """Change the config file as an editor does: a new one in the place of the old one."""
    path = folder / "understudy.yaml"
    found = yaml.safe_load(path.read_text())
    change(found)
    fresh = folder / ".understudy.yaml.new"
    fresh.write_text(yaml.safe_dump(found))
    fresh.replace(path)


def _weight(percent: int) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["routes"][0]["candidates"][0]["weight"] = f"{percent}%"

    return change


def _redact(config: dict[str, Any]) -> None:
    config["record"].update(redact={"json": ["x"]})
    config.update(log={"slow": "10s"})


def _is_followed(instance: Instance) -> bool:
    """Tell whether every worker runs the config that is in place."""
    found = instance.status()["config"]
    return set(found["workers"].values()) == {found["revision"]} and len(found["workers"]) == 2


def _balances(instance: Instance) -> bool:
    """Tell whether all that was decided is with the sink."""
    return not any(
        account["open"] or account["parts"].get("retained")
        for account in instance.status()["ledger"]
    )


#: What an operator may change, and back; each is a good file.
_GOOD: tuple[Change, ...] = (
    _weight(5),
    lambda c: c["routes"][0]["candidates"].clear(),
    lambda c: c["backends"]["c"].update(timeout="7s"),
    lambda c: c["routes"].insert(
        0, {**c["routes"][0], "name": "rose", "match": {"path_prefix": "/rose"}}
    ),
    lambda c: c["routes"][0]["candidates"].append(
        {"name": "v3", "backend": "c", "mirror": "50%", "weight": "10%"}
    ),
    _redact,
    lambda c: c["backends"]["p"].update(max_in_flight=500),
)
#: And what he must not: a wrong value, a wrong key, a backend that is none, what is fixed at the start.
_BAD: tuple[Change, ...] = (
    lambda c: c["routes"][0].update(primary="nobody"),
    lambda c: c.update(workerz=3),
    lambda c: c["backends"]["p"].update(timeout="soon"),
    lambda c: c.update(workers=3),
    lambda c: c["routes"].clear(),
)


class _Operator:
    """Writes good and bad files in turn, and has them read in every way there is."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self._instance = instance
        self._folder = folder
        self._first = (folder / "understudy.yaml").read_text()

    def reload(self, number: int) -> None:
        """Write the file of this number; see that it is taken over, or refused."""
        is_bad = number % 2 == 1
        changes = _BAD if is_bad else _GOOD
        before = self._instance.status()["config"]
        self._put(changes[number // 2 % len(changes)])
        if number % 3 == 1:
            self._instance.process.send_signal(signal.SIGHUP)
        elif number % 3 == 2:
            answer = self._instance.admin("POST", "/api/v1/reload", {"reason": "a test"})
            assert (answer.status_code == 200) is not is_bad, answer.text
        if is_bad:
            wait_for(lambda: not self._instance.status()["config"]["valid"], "the refusal")
            assert self._instance.status()["config"]["version"] == before["version"]
        else:
            wait_for(
                lambda: self._instance.status()["config"]["revision"] > before["revision"],
                "the reload",
            )
            wait_for(lambda: _is_followed(self._instance), "the workers")
            assert self._instance.status()["config"]["valid"]

    def _put(self, change: Change) -> None:
        found = yaml.safe_load(self._first)
        change(found)
        fresh = self._folder / ".understudy.yaml.new"
        fresh.write_text(yaml.safe_dump(found))
        fresh.replace(self._folder / "understudy.yaml")


def test_reloads_under_load_cost_no_request_and_no_pair(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Half of them refused; each worker ends on the last good one, and every line of the books adds up."""
    with running(config, tmp_path) as instance:
        operator = _Operator(instance, tmp_path)
        memory = [_memory_mb(instance)]
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 50, "answers")
            for number in range(RELOADS):
                operator.reload(number)
                if number % 20 == 19:
                    memory.append(_memory_mb(instance))
        assert load.failures == []
        assert load.total > 10 * RELOADS
        wait_for(lambda: _balances(instance), "the ledger to balance")
        status = instance.status()
        assert _is_followed(instance)
        assert status["config"]["revision"] == 1 + RELOADS // 2
        accounts = {account["name"]: account["parts"] for account in status["ledger"]}
        assert set(accounts["requests routed"]) == {"ok"}
        assert accounts["requests routed"]["ok"] == load.total
        assert not [part for part in accounts["pairs decided"] if part.startswith("lost")]
        assert set(accounts["pairs journaled"]) == {"acknowledged"}
        assert all(r["unknown_config"] == 0 for r in status["recorders"])
        assert all(process["restarts"] == 0 for process in status["processes"])
        told = f"{RELOADS} reloads, {load.total} requests; MB of {', '.join(_PROCESSES)}: {memory}"
        sys.stderr.write(f"{told}\n")


def _memory_mb(instance: Instance) -> list[int]:
    found = (psutil.Process(instance.pids[name]).memory_info().rss for name in _PROCESSES)
    return [round(size / 1e6) for size in found]


def test_the_link_that_kubernetes_swaps_is_noticed(config: dict[str, Any], tmp_path: Path) -> None:
    """The file is a link through `..data`, which is replaced; the file's own folder sees nothing else."""
    folder = tmp_path / "conf"
    old = folder / "..2026_01"
    old.mkdir(parents=True)
    (folder / "..data").symlink_to(old.name)
    (old / "understudy.yaml").touch()
    (folder / "understudy.yaml").symlink_to("..data/understudy.yaml")
    whole = {**config, "state_dir": str(tmp_path / "state")}
    with running(whole, folder) as instance:
        before = instance.status()["config"]
        assert before["file"] == str(folder / "understudy.yaml")
        for number in (2, 3):
            fresh = folder / f"..2026_0{number}"
            fresh.mkdir()
            found = yaml.safe_load((folder / "understudy.yaml").read_text())
            _weight(number)(found)
            (fresh / "understudy.yaml").write_text(yaml.safe_dump(found))
            (folder / "..data_tmp").symlink_to(fresh.name)
            (folder / "..data_tmp").rename(folder / "..data")
            shutil.rmtree(folder / f"..2026_0{number - 1}")
            wait_for(
                lambda n=number: _live_weight(instance) == 100 * n,  # type: ignore[misc]
                "the reload",
            )
        wait_for(lambda: _is_followed(instance), "the workers")


def _live_weight(instance: Instance) -> int:
    found: int = instance.status()["routes"][0]["candidates"][0]["weight_bp"]
    return found


def test_what_changed_is_told_and_kept_without_secrets(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """And the decision is kept, without secrets."""
    config["routes"][0]["candidates"][0]["set_headers"] = {"authorization": "${KEY:-first}"}
    with running(config, tmp_path, wait_healthy=False) as instance:
        unchanged = instance.cli("reload")
        assert (unchanged.returncode, unchanged.stdout[:19]) == (0, "nothing has changed")

        def headers(found: dict[str, Any]) -> dict[str, str]:
            set_headers: dict[str, str] = found["routes"][0]["candidates"][0]["set_headers"]
            return set_headers

        _write(tmp_path, lambda found: headers(found).update(authorization="hunter2"))
        refused = instance.cli("reload")
        assert refused.returncode == 1
        assert "set_headers.authorization: a secret that the processes were not" in refused.stderr

        def moved(found: dict[str, Any]) -> None:
            _weight(7)(found)
            headers(found)["x-key"] = (
                headers(found).pop("authorization").replace("hunter2", "first")
            )

        _write(tmp_path, moved)
        wait_for(lambda: _live_weight(instance) == 700, "the reload")
        log = (instance.state_dir / "decisions.ndjson").read_text()
        *refusals, decision, weight = map(json.loads, log.splitlines())
        assert {(each["action"], each["outcome"]) for each in refusals} == {("reload", "refused")}
        assert (decision["action"], decision["outcome"]) == ("reload", "done")
        assert (weight["action"], weight["old"], weight["new"]) == ("weight", 2_000, 700)
        assert decision["diff"] == [
            "routes.iris.candidates.v2.weight: 20% -> 7%",
            "routes.iris.candidates.v2.set_headers.x-key: added: (secret)",
            "routes.iris.candidates.v2.set_headers.authorization: removed: (secret)",
        ]
        assert decision["old"] != decision["new"] == instance.status()["config_version"]
        assert "hunter2" not in log + instance.stderr
        assert not any(b"hunter2" in data for _, data in files(instance.state_dir))


def test_a_file_that_is_refused_is_in_no_part_in_effect(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Command, dry run, status and metrics say why; a good file ends it."""
    with running(config, tmp_path) as instance:

        def both(found: dict[str, Any]) -> None:
            _weight(9)(found)
            found["workers"] = 3

        _write(tmp_path, both)
        done = instance.cli("reload", "--reason", "more workers")
        assert done.returncode == 1
        assert "workers: 2 -> 3: this needs a restart" in done.stderr
        told = json.loads(instance.cli("reload", "--json").stdout)
        assert (told["result"], told["lagging_workers"]) == ("needs_restart", [])
        path = str(tmp_path / "understudy.yaml")
        checked = understudy("check", path, "--against-running", "--json")
        assert checked.returncode == 1
        assert json.loads(checked.stdout)["reload"]["needs_restart"] == ["workers"]
        assert (
            "a restart is needed for workers"
            in understudy("check", path, "--against-running").stdout
        )
        assert _live_weight(instance) == 2_000
        problems = instance.status()["problems"]
        assert any("was refused at" in problem for problem in problems)
        # Both commands, and whoever watches the file.
        thrice = 'understudy_config_reload_total{result="needs_restart"} 3.0'
        wait_for(lambda: thrice in instance.admin("GET", "/metrics").text, "three refusals")
        assert "understudy_config_valid 0.0" in instance.admin("GET", "/metrics").text
        _write(tmp_path, lambda found: found.update(workers=2))
        wait_for(lambda: instance.status()["config"]["valid"], "the good file")
        assert _live_weight(instance) == 900
        assert understudy("check", path, "--against-running").returncode == 0


def test_sighup_reads_the_file_again_and_ends_nobody(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Sent to the launcher, as `kill -HUP` or a closed terminal does."""
    with running(config, tmp_path) as instance:
        pids = instance.pids
        instance.process.send_signal(signal.SIGHUP)
        wait_for(lambda: instance.status()["config"]["reloads"]["unchanged"] == 1, "the reload")
        assert "asked by understudy (signal SIGHUP)" in instance.stderr
        assert instance.pids == pids


def test_processes_that_start_later_run_the_config_of_then(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """A worker that died, and a control that was down while the file changed."""
    with running(config, tmp_path) as instance:
        _write(tmp_path, _weight(7))
        wait_for(lambda: _live_weight(instance) == 700, "the reload")
        version = instance.status()["config_version"]
        wait_for(lambda: instance.runtime["config_version"] == version, "the launcher")
        old = instance.pids["worker 0"]
        instance.send("worker 0", signal.SIGKILL)
        wait_for(lambda: instance.pids["worker 0"] not in (0, old), "the successor")
        wait_for(instance.is_healthy, "health")
        wait_for(lambda: _is_followed(instance), "the successor's word")
        old = instance.pids["control"]
        instance.send("control", signal.SIGSTOP)
        _write(tmp_path, _weight(11))
        instance.send("control", signal.SIGKILL)
        wait_for(lambda: instance.pids["control"] not in (0, old), "the next control")
        wait_for(instance.is_healthy, "health")
        wait_for(lambda: _live_weight(instance) == 1_100, "what was missed")
        wait_for(lambda: _is_followed(instance), "the workers")
        answer = httpx.post(instance.base_url, json={}, trust_env=False, timeout=PATIENCE_S)
        assert answer.status_code == 200


def test_a_live_weight_stays_unless_the_file_changes_it(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """As at a start; a kill stays latched, and more than the whole is refused."""
    with running(config, tmp_path) as instance:
        assert instance.cli("weight", "iris", "v2", "60").returncode == 0
        assert instance.cli("kill", "--reason", "t", "--candidate", "v2", "--route", "iris").returncode == 0  # fmt: skip
        _write(tmp_path, lambda found: found["backends"]["c"].update(timeout="9s"))
        wait_for(lambda: instance.status()["config"]["revision"] == 2, "the reload")
        assert _live_weight(instance) == 6_000
        assert instance.status()["killed"] == {"iris/v2": ["mirror", "canary"]}

        def third(found: dict[str, Any]) -> None:
            more = {"name": "v3", "backend": "c", "weight": "50%"}
            found["routes"][0]["candidates"].append(more)

        _write(tmp_path, third)
        done = instance.cli("reload")
        assert done.returncode == 1
        assert "more than 100% (v2 60%, v3 50%)" in done.stderr
        assert instance.cli("weight", "iris", "v2", "50").returncode == 0
        assert instance.cli("reload").returncode == 0
        weights = {c["name"]: c["weight_bp"] for c in instance.status()["routes"][0]["candidates"]}
        assert weights == {"v2": 5_000, "v3": 5_000}


def test_the_sink_follows_without_a_restart(config: dict[str, Any], tmp_path: Path) -> None:
    """The recorder opens another one where it stands; no pair is lost on the way."""
    with running(config, tmp_path) as instance:
        pid = instance.pids["recorder 0"]
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 20, "answers")
            _write(tmp_path, lambda found: found["limits"].update(journal_disk="2GiB"))
            wait_for(lambda: instance.log("sink changed"), "the recorder")
            total = load.total
            wait_for(lambda: load.total > total + 20, "answers")
        assert load.failures == []
        wait_for(lambda: _balances(instance), "the ledger to balance")
        assert instance.pids["recorder 0"] == pid
        assert instance.status()["ledger"][-1]["parts"]["acknowledged"] == load.total
