"""Worker processes by themselves, started as the launcher starts them, on a socket of the test's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from proxy.config.resolved import Config, Endpoint
from proxy.launcher.sockets import BACKLOG
from proxy.state.shares_page import SharesPage, make_shares
from proxy.state.stats_file import read_stats
from tests.support.dataplane import prepare
from tests.support.deadline import wait_for
from tests.support.resolved_config import small_config, write_config


def worker_config(state_dir: Path, backend_url: str) -> Config:
    """Return the small config with all backends at one address."""
    port = httpx.URL(backend_url).port
    assert port is not None
    base = small_config(state_dir)
    backends = {
        name: replace(found, endpoints=(Endpoint("127.0.0.1", port),))
        for name, found in base.backends.items()
    }
    return replace(base, backends=backends)


@contextmanager
def worker_process(
    config: Config, *, python_flags: Sequence[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run worker 0 until the end of the block; give the process and its base URL.

    Its stderr is a pipe. Whatever is left of it at the end is killed.
    """
    prepare(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = _start(config, listener, python_flags=python_flags)
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            _end(process)


class Crew:
    """All workers of a config, on one socket.

    Attributes:
        processes: by the worker's index.
        address: where they listen.
    """

    def __init__(self, config: Config, listener: socket.socket, shares: int) -> None:
        self._config, self._listener, self._shares = config, listener, shares
        self._view = SharesPage(shares, 0)
        self.processes: list[subprocess.Popen[str]] = []
        self.address: tuple[str, int] = listener.getsockname()

    def start(self, index: int) -> None:
        """Start a worker, or its successor, and wait until it accepts connections."""
        before = self._view.signs(index)
        for gone in self.processes[index : index + 1]:
            _end(gone)
        process = _start(self._config, self._listener, index=index, shares=self._shares)
        self.processes[index : index + 1] = [process]
        wait_for(lambda: self._view.signs(index) > before, f"worker {index}")

    def open_connections(self) -> list[int]:
        """Return how many client connections each worker has open."""
        pages = [read_stats(Path(self._config.state_dir), i) for i in range(len(self.processes))]
        return [page.get("connections_open") for page in pages]

    def signs(self) -> list[int]:
        """Return how many signs of life each worker has given."""
        return [self._view.signs(index) for index in range(len(self.processes))]

    def accepted(self) -> int:
        """Return how many connections all of them have ever accepted."""
        return sum(self._view.accepted(index) for index in range(len(self.processes)))

    def loads(self) -> list[int]:
        """Return how many each has told the others that it has; -1: it accepts none."""
        return [self._view.load(index) for index in range(len(self.processes))]


@contextmanager
def worker_crew(config: Config) -> Iterator[Crew]:
    """Run every worker of `config` until the end of the block, as the launcher starts them."""
    prepare(config)
    shares = make_shares(config.workers)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        crew = Crew(config, listener, shares)
        try:
            for index in range(config.workers):
                crew.start(index)
            yield crew
        finally:
            for process in crew.processes:
                _end(process)
            os.close(shares)


def _start(
    config: Config,
    listener: socket.socket,
    *,
    index: int = 0,
    shares: int = -1,
    python_flags: Sequence[str] = (),
) -> subprocess.Popen[str]:
    inherited = {"--fd": listener.fileno(), "--shares": shares}
    given = {option: each for option, each in inherited.items() if each >= 0}
    return subprocess.Popen(
        [
            sys.executable, *python_flags, "-m", "proxy.dataplane",
            "--config", str(write_config(config)), "--index", str(index),
            *(word for option, each in given.items() for word in (option, str(each))),
        ],
        pass_fds=tuple(given.values()), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
