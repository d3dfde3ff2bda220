"""`understudy serve` end to end: nothing opens on a wrong config, what dies comes back, and the books balance."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support.counting_backend import CountingBackend, Load
from tests.support.deadline import START_PATIENCE_S, wait_for
from tests.support.instance import running, understudy
from tests.support.ledgers import wait_balanced
from tests.support.upstreams import unused_port

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow


def test_a_wrong_config_opens_no_socket(tmp_path: Path) -> None:
    """It says what is wrong and exits 1; no state directory appears."""
    path = tmp_path / "bad.yaml"
    path.write_text(f"listen: 127.0.0.1:0\nstate_dir: {tmp_path / 'state'}\nroutez: []\n")
    done = understudy("serve", str(path))
    assert done.returncode == 1
    assert "routez" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_folder_called_proxy_here_is_not_run_instead_of_us(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """The interpreter looks into the current folder first, unless told not to."""
    trap = tmp_path / "proxy"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit('the wrong proxy')")
    path = tmp_path / "understudy.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(yaml.safe_dump({**config, "listen": listen, "state_dir": "state"}))
        done = subprocess.run(
            [Path(sys.executable).with_name("understudy"), "serve", path],
            capture_output=True, text=True, timeout=START_PATIENCE_S, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert "another process listens there" in done.stderr


def test_every_process_comes_back_while_users_notice_nothing(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Control and recorder killed under load: not one failed request, all back within a second or two."""
    with running(config, tmp_path) as instance:
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 50, "answers")
            before = instance.pids
            for name in ("control", "recorder 0"):
                instance.send(name, signal.SIGKILL)
            wait_for(
                lambda: all(
                    instance.pids[n] not in (0, before[n]) for n in ("control", "recorder 0")
                ),
                "both back",
            )
            wait_for(instance.is_healthy, "health")
        assert load.failures == []
        assert all(each["restart_in_s"] <= 1 for each in instance.log("process_died"))


def test_a_killed_worker_is_replaced_on_the_same_socket(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Connections queue for its successor; what it had in hand is counted."""
    with running(config, tmp_path) as instance:
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 50, "answers")
            old = instance.pids["worker 0"]
            instance.send("worker 0", signal.SIGKILL)
            wait_for(lambda: instance.pids["worker 0"] not in (0, old), "the successor")
            total = load.total
            wait_for(lambda: load.total > total + 50, "answers")
        wait_for(instance.is_healthy, "health")
        wait_balanced(instance)
        assert instance.status()["processes"][0]["restarts"] == 1


def test_the_next_launcher_takes_over_from_one_that_was_killed(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """On the same port, although its workers may still be finishing."""
    fixed = {**config, "listen": f"127.0.0.1:{unused_port()}"}
    with running(fixed, tmp_path) as instance:
        pids = [pid for pid in instance.pids.values() if pid]
        instance.kill()
        with running(fixed, tmp_path) as successor, Load(successor.base_url) as load:
            wait_for(lambda: load.total > 20, "answers")
        assert load.failures == []
        wait_for(lambda: not any(map(psutil.pid_exists, pids)), "the orphans to go")


def test_a_config_file_of_a_foreign_user_is_no_traceback(tmp_path: Path) -> None:
    """A missing file is one line."""
    done = understudy("serve", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_tree_stops_while_users_send(
    config: dict[str, Any], primary: CountingBackend, tmp_path: Path
) -> None:
    """SIGTERM under load: exit 0, nothing left running, runtime.json gone."""
    with running(config, tmp_path) as instance:
        pids = [pid for pid in instance.pids.values() if pid]
        with Load(instance.base_url) as load:
            wait_for(lambda: load.total > 50, "answers")
            instance.stop()
        assert not instance.runtime
        assert not any(psutil.pid_exists(pid) for pid in pids)
        ends = {entry["name"]: entry["ended"] for entry in instance.log("process_stopped")}
        assert ends == dict.fromkeys(("worker 0", "worker 1", "recorder 0", "control"), "exit 0")
    assert primary.requests > 0
