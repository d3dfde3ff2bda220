"""Whatever a benchmark starts ends with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks import origin as upstream, processes
from benchmarks.fleet import BenchmarkError, Fleet, Place, free_port
from benchmarks.load import PATH, json_body
from benchmarks.programs.serving import ANSWER
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks need Linux")

_STUBBORN = """
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", flush=True)
time.sleep(600)
"""

# It waits in short steps, as Python may go to sleep right after a signal without looking at it.
_RUNNER = """
import select, sys
from pathlib import Path
from benchmarks.fleet import Fleet, Place, ended_by_signals
with ended_by_signals(), Fleet(Path(sys.argv[1])) as fleet:
    print(fleet.start("sleeper", ["sleep", "600"], Place.PROXY).pid, flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
"""


def _wait_until_gone(pid: int) -> None:
    """Wait until a process has ended (a zombie has no command line)."""
    give_up = monotonic_s() + PATIENCE_S
    while processes.title(pid):
        assert monotonic_s() < give_up, f"process {pid} lives on"
        time.sleep(0.02)


def test_children_of_children_end_with_the_fleet(tmp_path: Path) -> None:
    """A child that leaves its own child behind does not leave it to the machine."""
    with Fleet(tmp_path) as fleet:
        child = fleet.start("parent", [sys.executable, "-c", _STUBBORN], Place.PROXY)
        give_up = monotonic_s() + PATIENCE_S
        while "started" not in child.tail() and monotonic_s() < give_up:
            time.sleep(0.02)
        pids = [stat.pid for stat in processes.tree(child.pid)]
    assert len(pids) == 2
    for pid in pids:
        _wait_until_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_processes_end_when_the_benchmark_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    """By any signal, also by the one that leaves no time to tidy up."""
    command = [sys.executable, "-c", _RUNNER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        assert "sleep" in processes.title(pid)
        os.kill(runner.pid, number)
        runner.wait(PATIENCE_S)
        assert runner.returncode != 0
    _wait_until_gone(pid)


def test_a_program_that_fails_is_reported_with_its_own_words(tmp_path: Path) -> None:
    """The last lines of its output are in the message."""
    with Fleet(tmp_path) as fleet:
        broken = [sys.executable, "-c", "raise SystemExit('no such thing')"]
        child = fleet.start("broken", broken, Place.BESIDE)
        with pytest.raises(BenchmarkError, match="no such thing"):
            fleet.wait_for_port(child, free_port())


def test_a_free_port_is_never_given_to_a_connection() -> None:
    """And nobody listens on it, so whoever it was found for can."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    first, last = map(int, text.split())
    ports = {free_port() for _ in range(100)}
    assert not any(first <= port <= last for port in ports)
    assert len(ports) > 50
    with socket.create_server(("127.0.0.1", free_port())):
        pass


@pytest.mark.parametrize("is_nginx", [True, False])
def test_upstream_answers_after_the_whole_body_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_nginx: bool
) -> None:
    """The stand-in behaves as nginx does; asking for the count is not counted."""
    if not is_nginx:
        monkeypatch.setattr(upstream, "nginx_path", lambda: None)
    elif upstream.nginx_path() is None:
        pytest.skip("nginx is not installed")
    with Fleet(tmp_path) as fleet:
        origin = upstream.start_origin(fleet, "origin")
        assert origin.received() == 0
        url = f"http://127.0.0.1:{origin.port}{PATH}"
        for size in (256, 1 << 20):
            with urllib.request.urlopen(url, data=json_body(size), timeout=PATIENCE_S) as answer:
                assert answer.read() == ANSWER
        assert (origin.received(), origin.received()) == (2, 2)
