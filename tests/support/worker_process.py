"""A worker process by itself, started as the launcher starts it, on a socket of the test's."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from proxy.config.resolved import Config, Endpoint
from tests.support.dataplane import prepare
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
        process = subprocess.Popen(
            [
                sys.executable, *python_flags, "-m", "proxy.dataplane",
                "--config", str(write_config(config)), "--index", "0",
                "--fd", str(listener.fileno()),
            ],
            pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.communicate()
