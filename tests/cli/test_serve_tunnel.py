"""WebSockets through a whole instance, and a stop that does not wait for them for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import running

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow


@contextmanager
def _echo_server() -> Iterator[str]:
    """Run a WebSocket server in a thread; give its address."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, port = server.socket.getsockname()
        yield f"http://{host}:{port}"
        server.shutdown()
        thread.join()


def test_a_stop_ends_open_tunnels_in_its_time(config: dict[str, Any], tmp_path: Path) -> None:
    """They live until users' share of the stop is over; the exit code is 0, and status counts them."""
    with _echo_server() as url:
        config["backends"]["p"]["endpoints"] = [url]
        with running(config, tmp_path) as instance:
            address = instance.base_url.replace("http", "ws")
            with (
                connect(address, proxy=None, open_timeout=PATIENCE_S) as idle,
                connect(address, proxy=None, open_timeout=PATIENCE_S) as client,
            ):
                client.send("hello")
                assert client.recv(PATIENCE_S) == "hello"
                metrics = 'understudy_tunnels_open{route="iris"} 2.0'
                wait_for(lambda: metrics in instance.admin("GET", "/metrics").text, "the gauge")
                began_s = monotonic_s()
                instance.stop()
                assert monotonic_s() - began_s < 10  # 2 s, and what a busy machine adds
                for each in (idle, client):
                    with pytest.raises(ConnectionClosed):
                        each.recv(PATIENCE_S)
