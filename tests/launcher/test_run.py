"""The launcher over stub children: what it starts, restarts, latches and stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from proxy.config.resolved import Address, Config
from proxy.state.control_page import ControlPage, Part, for_config, open_page, update
from proxy.state.kill import Scope, kill
from proxy.state.page_file import PAGE_BYTES
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for
from tests.support.resolved_config import small_config, write_config

LAUNCHER = Path(__file__).with_name("stub_launcher.py")


class Running:
    """A launcher under test."""

    def __init__(self, process: subprocess.Popen[str], state_dir: Path) -> None:
        self.process = process
        self.state_dir = state_dir

    @property
    def runtime(self) -> dict[str, Any]:
        """What runtime.json says; empty while there is none."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.state_dir / "runtime.json").read_text())
            return found
        return {}

    def pid(self, name: str) -> int:
        """Return the process id of a child, 0 while it is down."""
        return next((p["pid"] for p in self.runtime.get("processes", []) if p["name"] == name), 0)

    def alive(self, name: str) -> int:
        """Return the process id that the child itself wrote once it was up."""
        with suppress(FileNotFoundError):
            return int((self.state_dir / f"alive-{name}").read_text() or 0)
        return 0

    def is_up(self, name: str) -> bool:
        """Return whether a child is up, and the launcher has said so: a file may come before the other."""
        file = name.replace(" ", "-") if " " in name else f"{name}-"
        return self.alive(file) == self.pid(name) != 0

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """Send SIGTERM; return the exit code and the log."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code and the log once the launcher has ended."""
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two workers, and so long a shutdown that nobody who stops by itself is too slow for it."""
    config = small_config(tmp_path / "state", workers=2)
    return replace(config, limits=replace(config.limits, shutdown_s=600.0))


@contextmanager
def launched(config: Config, **environment: str) -> Iterator[Running]:
    """Start the launcher and wait until it listens; kill what is left of it at the end."""
    path = write_config(config)
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    running = Running(process, Path(config.state_dir))
    try:
        wait_for(lambda: running.runtime.get("processes") or process.poll(), "the launcher")
        yield running
    finally:
        left = [pid for entry in running.runtime.get("processes", []) if (pid := entry["pid"])]
        if process.poll() is None:
            process.kill()
        process.wait()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def wait_for_all(running: Running) -> None:
    """Return when every child is up."""
    names = ("worker 0", "worker 1", "recorder 0", "control")
    wait_for(lambda: all(map(running.is_up, names)), "all")


@pytest.fixture
def running(config: Config) -> Iterator[Running]:
    """A launcher whose children are all up."""
    with launched(config) as running:
        wait_for_all(running)
        yield running


def _page(running: Running) -> ControlPage:
    return open_page(running.state_dir)


def test_it_starts_every_process_and_says_where_it_listens(running: Running) -> None:
    """runtime.json holds the real ports; both accept; the line for people names both."""
    runtime = running.runtime
    for key in ("listen", "admin"):
        host, port = runtime[key].rsplit(":", 1)
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    assert runtime["pid"] == running.process.pid
    assert [p["name"] for p in runtime["processes"]] == [
        "worker 0", "worker 1", "control", "recorder 0",
    ]  # fmt: skip
    assert (running.state_dir / "runtime.json").stat().st_mode & 0o777 == 0o600
    assert running.process.stdout is not None
    line = running.process.stdout.readline()
    assert runtime["listen"] in line
    assert runtime["admin"] in line
    code, log = running.stop()
    assert code == 0
    assert [entry["event"] for entry in log].count("process_started") == 4


def test_sigterm_stops_workers_then_the_recorder_then_control(running: Running) -> None:
    """The recorder drains what the workers wrote; control answers to the end."""
    code, log = running.stop()
    assert code == 0
    order = (running.state_dir / "stops").read_text().split()
    assert order == ["worker", "worker", "recorder", "control"]
    assert not (running.state_dir / "runtime.json").exists()
    assert {entry["ended"] for entry in log if entry["event"] == "process_stopped"} == {"exit 0"}


@pytest.mark.parametrize("name", ["worker 0", "recorder 0", "control"])
def test_a_killed_process_is_started_again_at_once(running: Running, name: str) -> None:
    """The others are left alone."""
    before = {p["name"]: p["pid"] for p in running.runtime["processes"]}
    os.kill(before[name], signal.SIGKILL)
    wait_for(lambda: running.pid(name) != before[name] and running.is_up(name), "the restart")
    after = {p["name"]: p["pid"] for p in running.runtime["processes"]}
    assert {n for n in before if before[n] != after[n]} == {name}
    code, log = running.stop()
    died = [entry for entry in log if entry["event"] == "process_died"]
    assert [(d["name"], d["ended"], d["restart_in_s"]) for d in died] == [(name, "SIGKILL", 0.1)]
    assert code == 0


def test_a_process_that_always_crashes_is_tried_again_ever_later(config: Config) -> None:
    """0.1, 0.2, 0.4 s …: and the others run on."""
    with launched(config, STUB_CRASH="recorder") as running:
        wait_for(lambda: running.runtime["processes"][-1]["restarts"] >= 3, "three restarts")
        assert running.runtime["processes"][-1]["last_end"] == "exit 3"
        code, log = running.stop()
    waits = [e["restart_in_s"] for e in log if e["event"] == "process_died"]
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert code == 0


@pytest.mark.parametrize(
    ("stubborn", "least_s"), [("worker", 1.4), ("recorder", 1.7), ("control", 1.9), ("all", 1.9)]
)
def test_a_stop_ends_whoever_will_not_stop(config: Config, stubborn: str, least_s: float) -> None:
    """By SIGKILL, which comes neither early nor never; the exit code is still 0.

    When it comes to whom is looked at without a clock, in `test_stop`: in so short a time a machine that is
    busy may keep others from stopping, too.
    """
    brief = replace(config, limits=replace(config.limits, shutdown_s=2.0))
    with launched(brief, STUB_STUBBORN=stubborn) as running:
        wait_for_all(running)
        began_s = monotonic_s()
        code, log = running.stop()
        assert monotonic_s() - began_s > least_s
    assert code == 0
    ends = {e["name"]: e["ended"] for e in log if e["event"] == "process_stopped"}
    assert set(ends) == {"worker 0", "worker 1", "recorder 0", "control"}
    for name, end in ends.items():
        is_stubborn = stubborn in (name.split()[0], "all")
        assert end == "SIGKILL" if is_stubborn else end in ("SIGKILL", "exit 0")


def test_a_second_sigterm_hurries(config: Config) -> None:
    """Everyone is told at once and has one second; by itself the stop would take the ten minutes."""
    slow = replace(config, limits=replace(config.limits, shutdown_s=600.0))
    with launched(slow, STUB_STUBBORN="worker") as running:
        wait_for_all(running)
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        code, _ = running.wait()
    assert code == 0


def test_children_go_with_a_launcher_that_was_killed(running: Running) -> None:
    """And the next launcher starts on the same folder, whatever the old one left."""
    pids = [p["pid"] for p in running.runtime["processes"]]
    running.process.kill()
    running.process.wait()

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    wait_for(gone, "the orphans to stop")


def test_only_one_launcher_runs_on_a_state_dir(running: Running, config: Config) -> None:
    """The second one says who has it, and disturbs nothing."""
    second = subprocess.run(
        [sys.executable, str(LAUNCHER), str(write_config(config))],
        capture_output=True, text=True, timeout=START_PATIENCE_S, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"process {running.process.pid}" in second.stderr
    assert running.runtime["pid"] == running.process.pid
    assert running.stop()[0] == 0


def test_a_taken_port_is_a_clear_error(config: Config) -> None:
    """It names the address, the key and the way out; nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = replace(config, listen=Address("127.0.0.1", port))
        result = subprocess.run(
            [sys.executable, str(LAUNCHER), str(write_config(busy))],
            capture_output=True, text=True, timeout=START_PATIENCE_S, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert f"127.0.0.1:{port} (`listen` in the config)" in result.stderr
    assert "another process listens there" in result.stderr
    assert not list(Path(config.state_dir).glob("alive*"))


def test_a_worker_whose_heartbeat_stands_still_is_replaced(config: Config) -> None:
    """After ten looks; SIGKILL, because a stopped process hears nothing else. The other is left alone."""
    with launched(config, STUB_BEATS="yes") as running:
        wait_for_all(running)
        before = {name: running.pid(name) for name in ("worker 0", "worker 1")}
        began_s = monotonic_s()
        os.kill(before["worker 0"], signal.SIGSTOP)
        wait_for(lambda: running.pid("worker 0") not in (0, before["worker 0"]), "it to go")
        assert monotonic_s() - began_s > 8
        assert running.pid("worker 1") == before["worker 1"]
        _, log = running.stop()
    (hung,) = [entry for entry in log if entry["event"] == "process_hung"]
    assert (hung["name"], hung["pid"]) == ("worker 0", before["worker 0"])
    assert "stood still for 10 s" in hung["why"]


@pytest.mark.parametrize(
    ("name", "candidate", "expected"),
    [
        ("KILL", "v3", Part.DEFAULT),
        ("KILL.iris.v2", "v3", Part.NONE),
        ("KILL.tpyo", "v3", Part.DEFAULT),
    ],
)
def test_a_kill_file_is_latched(
    running: Running, name: str, candidate: str, expected: Part
) -> None:
    """Without a word from anybody; one of an unknown scope stops everything and says so."""
    page = _page(running)
    (running.state_dir / name).touch()
    wait_for(lambda: page.read().killed_parts("iris", "v2") == Part.DEFAULT, "the latch")
    assert page.read().killed_parts("iris", candidate) == expected
    page.close()
    _, log = running.stop()
    assert [e["via"] for e in log if e["event"] == "killed"] == [f"file {name}"]
    unknown = [e for e in log if e["event"] == "kill_file_unknown"]
    assert bool(unknown) == (name == "KILL.tpyo")


def test_sigusr1_kills_everything_and_a_restart_keeps_it(running: Running, config: Config) -> None:
    """The latch is on the page, so the next launcher's workers find it."""
    running.process.send_signal(signal.SIGUSR1)
    page = _page(running)
    wait_for(lambda: page.read().killed == Part.DEFAULT, "the latch")
    page.close()
    assert running.stop()[0] == 0
    with launched(config) as again:
        page = _page(again)
        assert page.read().killed == Part.DEFAULT
        page.close()
        assert again.stop()[0] == 0


def test_a_kill_file_that_waits_is_latched_before_the_first_worker(config: Config) -> None:
    """No request is served in between."""
    Path(config.state_dir).mkdir()
    (Path(config.state_dir) / "KILL").write_text("not before Monday")
    with launched(config) as running:
        page = _page(running)
        assert page.read().killed == Part.DEFAULT
        page.close()
        _, log = running.stop()
    events = [e["event"] for e in log]
    assert events.index("killed") < events.index("listening") < events.index("process_started")


@pytest.mark.parametrize("damage", ["short", "garbage"])
def test_a_corrupt_page_is_reported_and_left_alone(config: Config, damage: str) -> None:
    """The proxy starts all the same: its workers serve the primary only."""
    state_dir = Path(config.state_dir)
    state_dir.mkdir()
    page = open_page(state_dir, create=True)
    page.close()
    bad = b"x" * (10 if damage == "short" else PAGE_BYTES)
    page.path.write_bytes(bad)
    with launched(config) as running:
        (state_dir / "KILL").touch()
        wait_for(lambda: running.alive("worker-0"), "a worker")
        code, log = running.stop()
    assert code == 0
    assert page.path.read_bytes() == bad
    errors = [e for e in log if e["level"] == "error"]
    assert errors[0]["event"] == "control_page_unusable"
    assert sum(e["event"] == "kill_not_latched" for e in errors) <= 1


def test_a_start_adapts_the_page_to_the_config_and_keeps_kills(config: Config) -> None:
    """Live weights and latches survive; the version is the config's."""
    state_dir = Path(config.state_dir)
    state_dir.mkdir()
    with launched(config) as running:
        page = _page(running)
        assert page.read().config_version == config.version
        update(page, lambda s: kill(s, Scope("iris", "v2"), Part.CANARY, "why"))
        running.stop()
    with launched(config) as running:
        assert page.read().killed_parts("iris", "v2") == Part.CANARY
        running.stop()
    page.close()


def test_ctrl_c_stops_in_order_and_a_closed_terminal_stops_nothing(running: Running) -> None:
    """A terminal sends SIGINT to the whole group, which the children must not be in.

    SIGHUP is passed on to control, and whoever does not listen to it yet lives on.
    """
    running.process.send_signal(signal.SIGHUP)
    os.killpg(running.process.pid, signal.SIGINT)
    code, log = running.wait()
    assert code == 0
    order = (running.state_dir / "stops").read_text().split()
    assert order == ["worker", "worker", "recorder", "control"]
    assert "reload_asked" in [e["event"] for e in log]
    assert "process_died" not in [e["event"] for e in log]


def test_children_that_start_later_get_the_config_that_is_in_place(
    running: Running, config: Config
) -> None:
    """Control has named another one on the page; commands find it in runtime.json."""
    later = replace(config, version="later")
    path = write_config(later)
    page = open_page(running.state_dir)
    update(page, lambda before: for_config(later, before))
    page.close()
    wait_for(lambda: running.runtime["config_version"] == "later", "the launcher to follow")
    old = running.pid("worker 0")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: running.pid("worker 0") != old and running.is_up("worker 0"), "its successor")
    words = psutil.Process(running.pid("worker 0")).cmdline()
    assert words[words.index("--config") + 1] == str(path)


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--what", "x"], ["--config", "a", "b"]])
def test_wrong_arguments_are_answered_with_the_usage(arguments: list[str]) -> None:
    """Exit 2, as usual."""
    result = _module(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")


def test_a_file_that_is_no_resolved_config_is_refused(tmp_path: Path) -> None:
    """With the way to make one, and no traceback."""
    for text in ("{}", "no json"):
        path = tmp_path / "x.json"
        path.write_text(text)
        result = _module("--config", str(path))
        assert result.returncode == 1
        assert "understudy serve CONFIG" in result.stderr
    assert "cannot use" in _module("--config", str(tmp_path / "none.json")).stderr


def _module(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy.launcher", *arguments],
        capture_output=True, text=True, timeout=START_PATIENCE_S, check=False,
    )  # fmt: skip
