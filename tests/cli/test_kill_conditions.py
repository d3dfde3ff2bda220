"""The kill switch by each of its ways, while everything else that could be needed for it is gone.

Kafka is dead all the time. What each way leaves undone (a log, a file) is told loudly, and made good
afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.errors import StateError
from proxy.state.control_page import Part, open_page
from tests.support.counting_backend import CountingBackend, Load, counting_backend, two_workers
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.disks import SmallDisk, read_only, small_disk
from tests.support.instance import Instance, running, understudy

pytestmark = pytest.mark.slow

#: Requests that must be answered after a kill without one reaching the candidate.
AFTER = 60
#: Nobody listens there.
DEAD_KAFKA = {"bootstrap_servers": ["127.0.0.1:1"]}


@dataclass(frozen=True, slots=True)
class Stage:
    """A running instance on a disk of its own, and its candidate."""

    instance: Instance
    disk: SmallDisk
    primary: CountingBackend
    candidate: CountingBackend


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One instance for all; each test leaves it revived and well."""
    folder = tmp_path_factory.mktemp("conditions")
    with (
        small_disk(folder / "disk", size_kib=32 * 1024) as disk,
        counting_backend("primary") as primary,
        counting_backend("candidate") as candidate,
    ):
        config = two_workers(primary, candidate)
        config |= {"state_dir": str(disk.path / "state"), "record": {"kafka": DEAD_KAFKA}}
        with running(config, folder, wait_healthy=False) as instance:
            yield Stage(instance, disk, primary, candidate)


# The ways.


def by_command(stage: Stage) -> str:
    """Kill on the instance's machine; return what it said on stderr."""
    words = ("kill", "--state-dir", str(stage.instance.state_dir), "--reason", "test")
    done = understudy(*words)
    assert done.returncode == 0, done.stderr
    return done.stderr


def by_api(stage: Stage) -> str:
    """Kill by the admin API; return its warnings."""
    answer = stage.instance.admin("POST", "/api/v1/kill", {"reason": "test"})
    assert answer.status_code == 200, answer.text
    return " ".join([*answer.json()["warnings"], answer.json()["log_error"]])


def by_file(stage: Stage) -> str:
    """Kill by a file with nothing in it."""
    (stage.instance.state_dir / "KILL").touch()
    return ""


def by_signal(stage: Stage) -> str:
    """Kill by SIGUSR1."""
    stage.instance.process.send_signal(signal.SIGUSR1)
    return ""


Way = Callable[[Stage], str]
ALL: tuple[Way, ...] = (by_command, by_api, by_file, by_signal)


# The conditions.


@contextmanager
def stopped(stage: Stage, name: str) -> Iterator[None]:
    """Let one process stand still."""
    pid = stage.instance.pids[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def full(stage: Stage) -> Iterator[None]:
    """Let there be no block left on the disk of the state directory, nor in the log of decisions."""
    log = stage.instance.state_dir / "decisions.ndjson"
    with log.open("ab") as file:
        file.write(b"\n" * (-log.stat().st_size % 4096))
    stage.disk.fill()
    try:
        yield
    finally:
        stage.disk.make_room()


def is_killed(instance: Instance) -> bool:
    """Return whether mirror and canary are killed, as the page says."""
    try:
        page = open_page(instance.state_dir)
    except StateError:
        return False
    killed = page.read().killed_parts("iris", "v2") & Part.DEFAULT == Part.DEFAULT
    page.close()
    return killed


def assert_left_alone(load: Load, candidate: CountingBackend) -> None:
    """Users go on being answered, and nothing more reaches the candidate."""
    # A copy that was on its way at the kill may reach the candidate's thread after many more answers.
    wait_for(lambda: not _asked_during(load, candidate, AFTER), "nothing to reach the candidate")


def _asked_during(load: Load, candidate: CountingBackend, answers: int) -> int:
    """Return how often the candidate was asked while users got so many answers."""
    asked, answered = candidate.requests, load.total
    wait_for(lambda: load.total >= answered + answers, "answers")
    return candidate.requests - asked


def revive(stage: Stage) -> None:
    """Open everything by the way that needs least, and see that the candidate is asked again."""
    words = ("revive", "--state-dir", str(stage.instance.state_dir), "--reason", "over")
    done = understudy(*words)
    assert done.returncode == 0, done.stderr
    asks_again(stage)


def revive_by_api(stage: Stage) -> None:
    """Open everything where the command itself may not write."""
    seen = stage.instance.status()["control_page"]["generation"]
    order = {"reason": "over", "seen_generation": seen}
    answer = stage.instance.admin("POST", "/api/v1/revive", order)
    assert answer.status_code == 200, answer.text
    asks_again(stage)


def asks_again(stage: Stage) -> None:
    """Wait until the candidate is asked."""
    before = stage.candidate.requests
    wait_for(lambda: stage.candidate.requests > before, "traffic at the candidate")


def kill_by(stage: Stage, way: Way, load: Load) -> str:
    """Kill while the candidate is asked; return what the way said."""
    asks_again(stage)
    told = way(stage)
    wait_for(lambda: is_killed(stage.instance), "the latch")
    assert_left_alone(load, stage.candidate)
    return told


def decided(stage: Stage) -> list[dict[str, Any]]:
    """Return the log of decisions, newest first."""
    answer = stage.instance.admin("GET", "/api/v1/decisions?limit=100")
    found: list[dict[str, Any]] = answer.json()["decisions"]
    return found


@pytest.mark.parametrize(
    ("name", "ways"),
    [("control", (by_command, by_file, by_signal)), ("recorder 0", (by_command, by_api))],
)
def test_a_process_that_stands_still_keeps_nobody_from_killing(
    name: str, ways: tuple[Way, ...], stage: Stage
) -> None:
    """A stopped control takes no order by the API, and that is all."""
    with Load(stage.instance.base_url) as load, stopped(stage, name):
        for way in ways:
            kill_by(stage, way, load)
            revive(stage)
    assert load.failures == []


def test_a_full_disk_keeps_nobody_from_killing(stage: Stage) -> None:
    """The page has its blocks; a kill file needs none. What the log does not take is told, and kept."""
    with Load(stage.instance.base_url) as load:
        with full(stage):
            told = [kill_by(stage, by_api, load)]
            problems = stage.instance.status()["problems"]
            revive(stage)
            told += [kill_by(stage, way, load) for way in (by_command,)]
            revive(stage)
            for way in (by_file, by_signal):
                kill_by(stage, way, load)
                revive(stage)
        assert all("cannot append" in words for words in told), told
        assert any("wait in the memory of control" in each for each in problems), problems
        wait_for(
            lambda: (
                {"api 127.0.0.1", "file KILL", "signal SIGUSR1"}
                <= {each["via"] for each in decided(stage)[:12]}
            ),
            "the decisions to be logged after all",
        )
    assert load.failures == []


def test_a_read_only_state_directory_keeps_nobody_from_killing(stage: Stage) -> None:
    """In memory then, and said loudly: by the answer, by stderr, by status and readiness."""
    with Load(stage.instance.base_url) as load:
        with read_only(stage.instance.state_dir):
            told = kill_by(stage, by_api, load)
            assert "may not survive a restart of the instance" in told
            assert "may not survive a restart of the instance" in stage.instance.stderr
            readiness = stage.instance.admin("GET", "/readyz")
            assert readiness.status_code == 200
            assert any("cannot be written" in each for each in readiness.json()["problems"])
            assert any("cannot be written" in each for each in stage.instance.status()["problems"])
            revive_by_api(stage)
            assert "read-only" in kill_by(stage, by_command, load)  # which asks control
            revive_by_api(stage)
            with stopped(stage, "control"):
                assert "SIGUSR1" in kill_by(stage, by_command, load)  # which tells the launcher
            revive_by_api(stage)
            kill_by(stage, by_signal, load)
        revive(stage)
    assert load.failures == []


def test_what_restarts_on_a_read_only_disk_serves_and_obeys(stage: Stage) -> None:
    """A worker counts in its memory, and on its page again later; control kills by the launcher."""
    instance = stage.instance
    with httpx.Client(base_url=instance.base_url, trust_env=False, timeout=PATIENCE_S) as client:

        def ask() -> bool:
            try:
                return client.post("/", json={"x": 1}).status_code == 200
            except httpx.TransportError:
                return False

        with read_only(instance.state_dir):
            control = instance.pids["control"]
            for name in ("control", "worker 0", "worker 1"):
                instance.send(name, signal.SIGKILL)
            wait_for(ask, "a worker")
            wait_for(lambda: _answers(instance), "control")
            asked = stage.candidate.requests
            wait_for(lambda: ask() and stage.candidate.requests > asked, "traffic at the candidate")
            assert instance.pids["control"] == control  # nobody could write the new one down
            assert "SIGUSR1" in by_api(stage)

            def is_left_alone() -> bool:
                asked = stage.candidate.requests
                assert all(ask() for _ in range(AFTER))
                return stage.candidate.requests == asked

            wait_for(is_left_alone, "nothing to reach the candidate")
            assert instance.admin("GET", "/readyz").status_code == 200
        routed = instance.status()["routes"][0]["routed"]
        wait_for(
            lambda: ask() and instance.status()["routes"][0]["routed"] > routed + AFTER,
            "what was counted in memory on the pages",
        )
        assert instance.status()["ledger_verdict"]["verdict"] != "unbalanced"
    revive_and_wait(stage)


def _answers(instance: Instance) -> bool:
    with suppress(httpx.TransportError):
        return instance.admin("GET", "/healthz").status_code == 200
    return False


def revive_and_wait(stage: Stage) -> None:
    """Open everything with some traffic."""
    with Load(stage.instance.base_url):
        revive(stage)


@pytest.mark.parametrize("harm", ["corrupt", "missing"])
def test_without_a_page_only_the_primary_serves_and_a_kill_is_remembered(
    harm: str, stage: Stage
) -> None:
    """By command, by API and by file; the first revive writes the page afresh and opens none of them."""
    path = stage.instance.state_dir / "control.page"
    with Load(stage.instance.base_url) as load:
        asks_again(stage)
        if harm == "missing":
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.write(b"\0" * 64)
        assert_left_alone(load, stage.candidate)
        problems = stage.instance.admin("GET", "/readyz").json()["problems"]
        assert any("only the primary serves" in each for each in problems), problems
        assert "kill file was left" in by_command(stage)
        assert "kill file was left" in by_api(stage)
        words = ("revive", "--state-dir", str(stage.instance.state_dir), "--reason", "mend")
        done = understudy(*words)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: is_killed(stage.instance), "the kill file on the new page")
        assert_left_alone(load, stage.candidate)
        revive(stage)
    assert load.failures == []
    assert not list(Path(stage.instance.state_dir).glob("KILL*"))
