"""Somebody whom webhooks call, on a real socket.

with listening() as listener:
    webhooks.notify(listener.hook(), {"event": "halt"})
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from proxy.config.resolved import Webhook
from tests.support.deadline import PATIENCE_S


class Listener:
    """Somebody who is called: keeps what came, answers `statuses` in turn (0: not at all)."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.is_released = threading.Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.calls.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status = listener.statuses.pop(0) if listener.statuses else 200
                if not status:
                    listener.is_released.wait(PATIENCE_S)
                    return
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def hook(self, *, secret: str = "", timeout_s: float = PATIENCE_S) -> Webhook:
        """Return the webhook that calls it; by default no answer comes too late on a busy machine."""
        return Webhook(f"http://127.0.0.1:{self.server.server_address[1]}/hook", secret, timeout_s)

    @property
    def said(self) -> list[Any]:
        """The bodies."""
        return [json.loads(body) for _, body in self.calls]


@contextmanager
def listening() -> Iterator[Listener]:
    """Answer until the block ends."""
    found = Listener()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        found.is_released.set()
        found.server.shutdown()
        thread.join()
        found.server.server_close()
