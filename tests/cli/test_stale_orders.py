"""Orders that lie in the socket of a control that is frozen or gone, end to end."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.state.control_page import Part, open_page
from proxy.telemetry import wall_ns
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running, understudy

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow


def _send(instance: Instance, path: str, body: dict[str, Any]) -> socket.socket:
    """Leave an order in the socket; return the connection."""
    host, port = instance.runtime["admin"].rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    data = json.dumps(body).encode()
    method = "PUT" if path.endswith("weight") else "POST"
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


def _answer(connection: socket.socket) -> str:
    with connection, connection.makefile("rb") as file:
        return file.read().decode()


def _is_killed(instance: Instance) -> bool:
    page = open_page(instance.state_dir)
    killed = page.read().killed_parts("iris", "v2") & Part.DEFAULT == Part.DEFAULT
    page.close()
    return killed


def _weight(instance: Instance) -> int:
    page = open_page(instance.state_dir)
    found = page.read().routes["iris"].candidates["v2"].weight_bp
    page.close()
    return found


@contextmanager
def _frozen(instance: Instance) -> Iterator[None]:
    control = instance.pids["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(control, signal.SIGCONT)


@contextmanager
def _replaced(instance: Instance) -> Iterator[None]:
    """Control is dead until the end of the block: frozen and then killed, for a block that is long."""
    control = instance.pids["control"]
    os.kill(control, signal.SIGSTOP)
    yield
    os.kill(control, signal.SIGKILL)
    wait_for(lambda: instance.pids["control"] not in (0, control), "the successor")


@pytest.mark.parametrize("away", [_frozen, _replaced])
def test_an_order_that_waited_for_control_undoes_no_kill_given_since(
    config: dict[str, Any], tmp_path: Path, away: Any
) -> None:
    """Whether its giver left, gave it a time, said what it saw, or said nothing and still waits."""
    with running(config, tmp_path) as instance:
        seen = instance.status()["control_page"]["generation"]
        weight = "/api/v1/routes/iris/candidates/v2/weight"
        revive: dict[str, Any] = {"reason": "stale"}
        raised: dict[str, Any] = {"reason": "stale", "percent": 90}
        with away(instance):
            _send(instance, "/api/v1/revive", revive).close()
            _send(instance, weight, raised).close()
            soon_ms = wall_ns() // 1_000_000 + 100
            waiting = [
                (_send(instance, "/api/v1/revive", {**revive, "expires_ms": soon_ms}), 412),
                (_send(instance, "/api/v1/revive", {**revive, "seen_generation": seen}), 412),
                (_send(instance, weight, {**raised, "seen_generation": seen}), 412),
                (_send(instance, "/api/v1/revive", revive), 503),
            ]
            done = understudy(
                "kill", "--state-dir", str(instance.state_dir), "--reason", "since then"
            )
            assert done.returncode == 0, done.stderr
            wait_for(lambda: wall_ns() // 1_000_000 > soon_ms + 2_000, "a stall worth the name")
        for connection, status in waiting:
            answer = _answer(connection)
            assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert _is_killed(instance)
        assert _weight(instance) == 2_000
        wait_for(instance.is_healthy, "control")
        found = instance.admin("GET", "/api/v1/decisions").json()["decisions"]
        assert [d["action"] for d in found if d["outcome"] == "done"] == ["kill"]
        assert {d["action"] for d in found if d["outcome"] == "refused"} >= {"revive", "weight"}
        assert instance.cli("revive", "--reason", "now").returncode == 0
        assert not _is_killed(instance)


def test_a_revive_by_the_api_sends_nothing_to_a_frozen_control(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """It asks what there is first, so that an error means that nothing happens later either."""
    with running(config, tmp_path) as instance:
        assert instance.cli("kill", "--reason", "r").returncode == 0
        with _frozen(instance):
            done = instance.cli("revive", "--reason", "r")
        assert done.returncode == 1
        assert "nothing was changed, and nothing will be" in done.stderr
        wait_for(instance.is_healthy, "control")
        assert _is_killed(instance)
