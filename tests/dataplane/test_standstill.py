"""A loop that stood still: what came meanwhile is not too late, and deadlines hold nevertheless."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uvloop

from proxy.config.resolved import Config, Endpoint, UpstreamTls
from proxy.dataplane.dial import awake_for
from proxy.dataplane.standstill import STALL_S, Standstill
from proxy.telemetry import monotonic_s
from tests.support.authority import Authority
from tests.support.dataplane import request_bytes
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.worker_process import worker_config, worker_process

TICK_S = 0.05
FIRST_BYTE_S = 1.0
CONNECT_S = 0.5
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
        listener.settimeout(PATIENCE_S)
        config = _alone(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}")
        backends = {
            name: replace(found, first_byte_timeout_s=FIRST_BYTE_S)
            for name, found in config.backends.items()
        }
        with worker_process(replace(config, backends=backends)) as (process, url):
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as user:
                user.sendall(ASK)
                backend, _ = listener.accept()
                with backend:
                    backend.settimeout(PATIENCE_S)
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


def test_a_connection_that_was_made_meanwhile_is_used(tmp_path: Path) -> None:
    """Its handshake was answered in time, and read when the time was up."""
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        port = listener.getsockname()[1]
        config = _alone(tmp_path / "state", f"http://127.0.0.1:{port}")
        name = config.routes[0].primary
        primary = replace(
            config.backends[name],
            endpoints=(Endpoint("127.0.0.1", port, is_tls=True),),
            tls=UpstreamTls(ca=str(authority.ca_file)),
            connect_timeout_s=CONNECT_S,
        )
        backends = {**config.backends, name: primary}
        with worker_process(replace(config, backends=backends)) as (process, url):
            address = ("127.0.0.1", int(url.rpartition(":")[2]))
            with socket.create_connection(address, timeout=PATIENCE_S) as user:
                user.sendall(ASK)
                backend, _ = listener.accept()
                backend.settimeout(PATIENCE_S)
                assert backend.recv(1, socket.MSG_PEEK)
                since_s = monotonic_s()
                process.send_signal(signal.SIGSTOP)
                wait_for(lambda: _is_stopped(process.pid), "it to stand still")
                server = threading.Thread(target=_answer_in_tls, args=(backend, authority))
                server.start()
                wait_for(lambda: monotonic_s() > since_s + CONNECT_S + 2 * STALL_S, "its time")
                process.send_signal(signal.SIGCONT)
                status = user.recv(4096).split(b" ")[1]
                server.join(PATIENCE_S)
    assert status == b"200"


def _alone(state_dir: Path, url: str) -> Config:
    """Return a config whose primary is the only one to connect to its backend."""
    config = worker_config(state_dir, url)
    return replace(config, routes=(replace(config.routes[0], candidates=()),))


def _answer_in_tls(backend: socket.socket, authority: Authority) -> None:
    context = authority.server("127.0.0.1")
    with backend, context.wrap_socket(backend, server_side=True) as stream:
        assert stream.recv(1)
        stream.sendall(ANSWER)
        stream.recv(4096)  # until the worker has read it


@pytest.mark.parametrize(
    ("stall_s", "comes", "is_late"),
    [(2 * STALL_S, True, False), (2 * STALL_S, False, True), (0.0, False, True)],
)
def test_a_time_is_bounded_but_by_what_the_loop_slept_through(
    stall_s: float, *, comes: bool, is_late: bool
) -> None:
    """On the loop of the workers, which looks at its timers before it looks at its sockets."""

    async def wait(ours: socket.socket, theirs: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours)

        def stand_still() -> None:
            loop.remove_reader(bell)
            if comes:
                theirs.sendall(b"x")
            time.sleep(stall_s)

        loop = asyncio.get_running_loop()
        bell, ringer = socket.socketpair()
        loop.add_reader(
            bell, stand_still
        )  # what comes while sockets are read is found after timers
        ringer.sendall(b"x")
        with bell, ringer:
            try:
                async with awake_for(0.1):
                    await reader.readexactly(1)
            finally:
                writer.close()

    ours, theirs = socket.socketpair()
    with theirs:
        if is_late:
            with pytest.raises(TimeoutError):
                uvloop.run(wait(ours, theirs))
        else:
            uvloop.run(wait(ours, theirs))


def _is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
