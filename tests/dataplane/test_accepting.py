"""Several worker processes on one socket: connections spread, and nobody waits for one that is hung."""

from __future__ import annotations

import signal
import socket
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Config
from proxy.telemetry import monotonic_s
from tests.support.authority import Authority
from tests.support.deadline import wait_for
from tests.support.worker_process import Crew, worker_config, worker_crew

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel decides")

#: There is no backend: the answer is 502, and the connection stays open.
REQUEST = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"


def _config(tmp_path: Path, workers: int) -> Config:
    return replace(worker_config(tmp_path, "http://127.0.0.1:9"), workers=workers)


class _Users(ExitStack):
    """Keep-alive connections to a crew."""

    def __init__(self, crew: Crew) -> None:
        super().__init__()
        self._crew = crew
        self.sockets: list[socket.socket] = []

    def open_at_once(self, count: int) -> None:
        """Open connections without waiting for any."""
        fresh = [self.enter_context(socket.socket()) for _ in range(count)]
        for each in fresh:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(self._crew.address)
        self.sockets += fresh

    def ask_on_a_new_one(self) -> float:
        """Open a connection and send a request; return how long the answer took, in seconds."""
        begin_s = monotonic_s()
        fresh = self.enter_context(socket.create_connection(self._crew.address, timeout=10))
        fresh.sendall(REQUEST)
        assert fresh.recv(4096).startswith(b"HTTP/1.1 502")
        self.sockets.append(fresh)
        return monotonic_s() - begin_s

    def landed(self) -> list[int]:
        """Return how many of them each worker has, once it has all."""
        count = len(self.sockets)
        wait_for(lambda: sum(self._crew.open_connections()) == count, f"{count} connections")
        return self._crew.open_connections()


@contextmanager
def _two_workers(tmp_path: Path) -> Iterator[tuple[Crew, _Users]]:
    with worker_crew(_config(tmp_path, 2)) as crew, _Users(crew) as users:
        yield crew, users


def test_connections_that_come_at_once_to_idle_workers_spread(tmp_path: Path) -> None:
    """Whoever wakes first took nearly all of forty; here each has a third at least, and later half."""
    with _two_workers(tmp_path) as (_, users):
        users.open_at_once(40)
        assert min(users.landed()) >= 14
        for _ in range(20):
            users.ask_on_a_new_one()
        assert min(users.landed()) >= 26


def test_a_stopped_worker_delays_one_connection_and_then_none(tmp_path: Path) -> None:
    """It has the lowest load, so all are left to it; no user waits for longer than the patience."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(8)
        before = users.landed()
        crew.processes[1].send_signal(signal.SIGSTOP)
        times_s = [users.ask_on_a_new_one() for _ in range(40)]
        # Twenty workers' turns, for a machine that is busy; mostly it is 2 ms and then 0.3 ms.
        assert max(times_s) < 0.5
        assert statistics.median(times_s) < 0.02
        assert crew.open_connections()[0] == before[0] + 40
        users.open_at_once(100)
        wait_for(lambda: crew.open_connections()[0] == before[0] + 140, "the crowd to be accepted")


def test_a_worker_that_was_replaced_gets_the_new_ones_until_all_are_level(tmp_path: Path) -> None:
    """What its predecessor had is gone with it; nobody's connection is moved or closed."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(24)
        kept = users.landed()[0]
        crew.processes[1].kill()
        crew.processes[1].wait()
        for _ in range(3):  # whoever is left takes all
            users.ask_on_a_new_one()
        assert crew.open_connections()[0] == kept + 3
        crew.start(1)
        for _ in range(10):
            users.ask_on_a_new_one()
        first, second = crew.open_connections()
        assert (first + second, second >= 9) == (kept + 13, True)


def test_a_worker_that_ends_answers_what_it_has_and_takes_no_more(tmp_path: Path) -> None:
    """SIGTERM: exit code 0, and the others have all that comes meanwhile."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(6)
        users.landed()
        crew.processes[0].terminate()
        times_s = [users.ask_on_a_new_one() for _ in range(10)]
        assert crew.processes[0].wait(10) == 0
        assert max(times_s) < 0.5


def test_connections_spread_over_tls_too(tmp_path: Path) -> None:
    """They count from their accepting on: handshakes are under way when the next ones come."""
    authority = Authority(tmp_path)
    config = replace(_config(tmp_path / "state", 2), tls=authority.tls)
    with worker_crew(config) as crew, ExitStack() as stack:
        raw = [stack.enter_context(socket.create_connection(crew.address)) for _ in range(20)]
        context = authority.client()
        for each in raw:
            each.settimeout(10)
            wrapped = stack.enter_context(context.wrap_socket(each, server_hostname="127.0.0.1"))
            wrapped.sendall(REQUEST)
            assert wrapped.recv(4096).startswith(b"HTTP/1.1 502")
        assert sum(crew.open_connections()) == 20
        assert min(crew.open_connections()) >= 7
