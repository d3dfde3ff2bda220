"""The kill switch end to end, under load, by each of its ways: counted at the candidate's socket."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.state.control_page import Part, open_page
from proxy.state.stats_file import read_stats
from tests.support.counting_backend import CountingBackend, Load, counting_backend, two_workers
from tests.support.deadline import wait_for
from tests.support.instance import Instance, running, understudy

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow

#: Requests that must be answered after a kill without one reaching the candidate.
AFTER = 150


def _by_cli(instance: Instance) -> None:
    done = instance.cli("kill", "--reason", "test")
    assert done.returncode == 0, done.stderr
    assert "killed * (mirror, canary)" in done.stdout


def _by_api(instance: Instance) -> None:
    answer = instance.admin("POST", "/api/v1/kill", {"reason": "test"})
    assert answer.status_code == 200, answer.text


def _by_file(instance: Instance) -> None:
    (instance.state_dir / "KILL").write_text("test\n")


def _by_signal(instance: Instance) -> None:
    instance.process.send_signal(signal.SIGUSR1)


def _by_page(instance: Instance) -> None:
    done = understudy("kill", "--state-dir", str(instance.state_dir), "--reason", "test")
    assert done.returncode == 0, done.stderr


def _by_page_with_control_dead(instance: Instance) -> None:
    instance.send("control", signal.SIGKILL)
    _by_page(instance)


def _by_cli_with_control_hung(instance: Instance) -> None:
    """The command finds the state directory by itself and needs no control."""
    control = instance.pids["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        done = understudy("kill", "--reason", "test", cwd=instance.state_dir.parent)
        assert done.returncode == 0, done.stderr
        assert "control page in state" in done.stdout
    finally:
        os.kill(control, signal.SIGCONT)


def _by_cli_revive(instance: Instance) -> None:
    done = instance.cli("revive", "--reason", "over")
    assert done.returncode == 0, done.stderr
    assert "nothing is killed" in done.stdout


WAYS = [
    _by_cli, _by_api, _by_file, _by_signal, _by_page, _by_page_with_control_dead,
    _by_cli_with_control_hung,
]  # fmt: skip


def _is_killed(instance: Instance) -> bool:
    page = open_page(instance.state_dir)
    killed = page.read().killed_parts("iris", "v2") & Part.DEFAULT == Part.DEFAULT
    page.close()
    return killed


def _sent(instance: Instance) -> int:
    """Return what the workers have sent to the candidate, as they count it."""
    found = 0
    for index in range(2):
        page = read_stats(instance.state_dir, index)
        found += page.get("mirror_sent", "iris", "v2") + page.get("canary", "iris", "v2")
        page.close()
    return found


def _assert_left_alone(instance: Instance, load: Load, candidate: CountingBackend) -> None:
    """No worker sends anything after the next answers; what was on its way arrives, and that is all."""

    def is_quiet() -> bool:
        before, answered = candidate.requests, load.total
        wait_for(lambda: load.total >= answered + AFTER, "more answers")
        return candidate.requests == before

    answered = load.total
    wait_for(lambda: load.total >= answered + AFTER, "what was decided before the kill to be sent")
    sent = _sent(instance)
    wait_for(is_quiet, "nothing to reach the candidate")
    assert _sent(instance) == sent


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, CountingBackend]]:
    """One instance for every way; each test leaves it revived."""
    with counting_backend("primary") as primary, counting_backend("candidate") as candidate:
        config = two_workers(primary, candidate)
        with running(config, tmp_path_factory.mktemp("shared")) as instance:
            yield instance, candidate


@pytest.mark.parametrize("kill", WAYS)
def test_after_a_kill_no_request_reaches_the_candidate(
    kill: Callable[[Instance], None], shared: tuple[Instance, CountingBackend]
) -> None:
    """By CLI, API, file, signal and page, control dead or hung; users see nothing of it."""
    instance, candidate = shared
    with Load(instance.base_url) as load:
        before = candidate.requests
        wait_for(lambda: candidate.requests > before + 50, "traffic at the candidate")
        kill(instance)
        wait_for(lambda: _is_killed(instance), "the latch")
        _assert_left_alone(instance, load, candidate)
        wait_for(instance.is_healthy, "control")
        _by_cli_revive(instance)
        before = candidate.requests
        wait_for(lambda: candidate.requests > before + 10, "traffic at the candidate again")
    assert load.failures == []
    assert load.answered["candidate"] > 0
    assert not list(instance.state_dir.glob("KILL*"))


def test_a_kill_survives_a_restart(
    config: dict[str, Any], candidate: CountingBackend, tmp_path: Path
) -> None:
    """Not one request reaches the candidate until a revive."""
    with running(config, tmp_path) as instance:
        _by_file(instance)
        wait_for(lambda: _is_killed(instance), "the latch")
    with running(config, tmp_path) as instance, Load(instance.base_url) as load:
        wait_for(lambda: load.total > AFTER, "answers after the restart")
        assert candidate.requests == 0
        _by_cli_revive(instance)
        wait_for(lambda: candidate.requests > 10, "traffic at the candidate")


@pytest.mark.parametrize(
    ("only", "mirrored", "served"), [("mirror", False, True), ("canary", True, False)]
)
def test_a_part_can_be_killed_alone(
    only: str, mirrored: bool, served: bool, config: dict[str, Any], tmp_path: Path
) -> None:
    """`--only mirror` leaves the canary, `--only canary` the mirror."""
    with running(config, tmp_path) as instance:
        done = instance.cli("kill", "--only", only, "--reason", "test")
        assert done.returncode == 0, done.stderr
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 150, "answers")
        v2 = instance.status()["routes"][0]["candidates"][0]
        assert (v2["mirror_sent"] > 0) == mirrored
        assert (v2["canary"] > 0) == served
        assert load.failures == []
