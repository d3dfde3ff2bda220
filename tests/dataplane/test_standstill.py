"""A loop that stood still: what came meanwhile is not too late, and deadlines hold nevertheless."""

from __future__ import annotations

import signal
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from proxy.dataplane.standstill import STALL_S, Standstill
from proxy.telemetry import monotonic_s
from tests.support.dataplane import request_bytes
from tests.support.deadline import wait_for
from tests.support.worker_process import worker_config, worker_process

TICK_S = 0.05
FIRST_BYTE_S = 1.0
ASK = request_bytes(b"POST", b"/", b"x", b"")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def test_the_first_tick_after_it_is_known() -> None:
    """Lag is none; the time of the tick is when the loop came back."""
    standstill = Standstill(due_s=1.0)
    assert not standstill.lasts(1.0 + STALL_S)
    assert not standstill.tick(1.2, TICK_S)
    assert standstill.resumed_s == 0.0
    assert standstill.lasts(2.0)
    assert standstill.tick(2.0, TICK_S)
    assert (standstill.resumed_s, standstill.due_s) == (2.0, 2.0 + TICK_S)
    assert not standstill.lasts(2.0)
    assert not standstill.tick(2.1, TICK_S)


def test_a_loop_that_always_comes_late_puts_deadlines_off_by_a_tick() -> None:
    """Not for ever."""
    standstill = Standstill(due_s=1.0)
    assert [standstill.tick(number * 2.0, TICK_S) for number in range(1, 6)] == [
        True, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("is_answered", [True, False])
def test_an_answer_that_came_meanwhile_is_passed_on(tmp_path: Path, *, is_answered: bool) -> None:
    """Though its deadline has passed; without one the user is told that it has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        config = worker_config(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}")
        backends = {
            name: replace(found, first_byte_timeout_s=FIRST_BYTE_S)
            for name, found in config.backends.items()
        }
        with worker_process(replace(config, backends=backends)) as (process, url):
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as user:
                user.sendall(ASK)
                backend, _ = listener.accept()
                with backend:
                    backend.settimeout(20)
                    assert backend.recv(1)
                    since_s = monotonic_s()
                    process.send_signal(signal.SIGSTOP)
                    wait_for(lambda: _is_stopped(process.pid), "it to stand still")
                    if is_answered:
                        backend.sendall(ANSWER)
                    wait_for(lambda: monotonic_s() > since_s + 2 * FIRST_BYTE_S, "the deadline")
                    process.send_signal(signal.SIGCONT)
                    status = user.recv(4096).split(b" ")[1]
    assert status == (b"200" if is_answered else b"504")


def _is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
