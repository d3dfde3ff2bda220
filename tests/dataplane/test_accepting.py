"""Several worker processes on one socket: connections spread, and nobody waits for one that is hung."""

from __future__ import annotations

import signal
import socket
import ssl
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Config
from proxy.routing.shares import TOLERANCE
from proxy.telemetry import monotonic_s
from tests.support.authority import Authority
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.worker_process import Crew, worker_config, worker_crew

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel decides")

#: There is no backend: the answer is 502, and the connection stays open.
REQUEST = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"


def _config(tmp_path: Path, workers: int) -> Config:
    return replace(worker_config(tmp_path, "http://127.0.0.1:9"), workers=workers)


class _Users(ExitStack):
    """Keep-alive connections to a crew."""

    def __init__(self, crew: Crew, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._crew, self._context = crew, context
        self.count = 0

    def open_at_once(self, count: int) -> None:
        """Open connections without waiting for any."""
        for _ in range(count):
            fresh = self.enter_context(socket.socket())
            fresh.setblocking(False)
            with suppress(BlockingIOError):
                fresh.connect(self._crew.address)
        self.count += count

    def ask_on_a_new_one(self) -> float:
        """Open a connection and send a request; return how long the answer took, in seconds."""
        begin_s = monotonic_s()
        fresh = self.enter_context(socket.create_connection(self._crew.address, timeout=PATIENCE_S))
        if self._context is not None:
            fresh = self._context.wrap_socket(fresh, server_hostname="127.0.0.1")
            self.enter_context(fresh)
        fresh.sendall(REQUEST)
        assert fresh.recv(4096).startswith(b"HTTP/1.1 502")
        self.count += 1
        return monotonic_s() - begin_s

    def landed(self) -> list[int]:
        """Return how many of them each worker has, once they have them all."""
        wait_for(lambda: sum(self._crew.open_connections()) == self.count, "all connections")
        return self._crew.open_connections()

    def leave(self) -> None:
        """Close all; return when every worker has told the others so."""
        self.close()
        self.count = 0
        wait_for(lambda: not any(self._crew.loads()), "the connections to end")

    def become_level(self) -> bool:
        """Open connections one by one until both workers have as many, but for what nobody waits for.

        False: sixty were not enough. Where the kernel decides, who is behind by a dozen stays behind.
        They come over some beats: a worker that the machine has not run for 2 ms is forgiven at its next,
        and nobody comes while it is not run at all.
        """
        for number in range(60):
            if number % 6 == 0:
                self._wait_for_signs()
            self.ask_on_a_new_one()
            low, high = sorted(self._crew.open_connections())
            if high - low <= 2 + high // TOLERANCE:
                return True
        return False

    def _wait_for_signs(self) -> None:
        """Wait until each worker has given a sign of life."""
        before = self._crew.signs()
        wait_for(
            lambda: all(now > then for now, then in zip(self._crew.signs(), before, strict=True)),
            "a sign of life of each worker",
        )


@contextmanager
def _two_workers(tmp_path: Path) -> Iterator[tuple[Crew, _Users]]:
    with worker_crew(_config(tmp_path, 2)) as crew, _Users(crew) as users:
        yield crew, users


def test_connections_that_come_at_once_to_idle_workers_spread(tmp_path: Path) -> None:
    """Whoever wakes first took nearly all of forty; here both have a third at least.

    In most of some rounds: a worker that a busy machine does not run for 2 ms is not waited for.
    """
    fewest: list[int] = []
    with _two_workers(tmp_path) as (_, users):
        while sum(few >= 14 for few in fewest) < 6:
            users.open_at_once(40)
            fewest.append(min(users.landed()))
            assert sum(few < 14 for few in fewest) < 6, fewest
            users.leave()


def test_a_stopped_worker_delays_one_connection_and_then_none(tmp_path: Path) -> None:
    """It has the lowest load, so all are left to it; and yet nobody waits for long."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(8)
        before = users.landed()[0]
        crew.processes[1].send_signal(signal.SIGSTOP)
        times_s = [users.ask_on_a_new_one() for _ in range(40)]
        # 2 ms, and then 0.3 ms, on a machine that is not busy; a stall delays one, and not half of them.
        assert max(times_s) < 5
        assert statistics.median(times_s) < 0.05
        assert crew.open_connections()[0] == before + 40
        users.open_at_once(100)
        assert users.landed()[0] == before + 140


def test_a_worker_that_was_replaced_gets_the_new_ones_until_all_are_level(tmp_path: Path) -> None:
    """What its predecessor had is gone with it; nobody's connection is moved or closed."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(24)
        kept = users.landed()[0]
        crew.processes[1].kill()
        crew.processes[1].wait()
        for _ in range(9):  # whoever is left takes all
            users.ask_on_a_new_one()
        assert crew.open_connections()[0] == kept + 9
        crew.start(1)
        assert users.become_level()


def test_a_worker_that_ends_takes_no_more(tmp_path: Path) -> None:
    """SIGTERM: its exit code is 0, and the other has all that comes meanwhile."""
    with _two_workers(tmp_path) as (crew, users):
        users.open_at_once(6)
        before = users.landed()[1]
        crew.processes[0].terminate()
        wait_for(lambda: crew.loads()[0] == -1, "the worker to stop accepting")
        assert max(users.ask_on_a_new_one() for _ in range(10)) < 5
        assert crew.open_connections()[1] == before + 10
        assert crew.processes[0].wait(PATIENCE_S) == 0


def test_connections_spread_over_tls_too(tmp_path: Path) -> None:
    """Handshakes that never come count for a moment, not for ever."""
    authority = Authority(tmp_path)
    config = replace(_config(tmp_path / "state", 2), tls=authority.tls)
    with worker_crew(config) as crew, _Users(crew, authority.client()) as users:
        for _ in range(9):
            socket.create_connection(crew.address).close()
        wait_for(lambda: crew.accepted() == 9 and not any(crew.loads()), "those that left to go")
        users.open_at_once(9)
        wait_for(
            lambda: crew.accepted() == 18 and not any(crew.loads()), "the silent to be forgotten"
        )
        assert users.become_level()
