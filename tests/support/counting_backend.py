"""A real HTTP backend that counts what reaches its socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.support.deadline import PATIENCE_S


class CountingBackend:
    """Answers every request with its name.

    Attributes:
        url: where it listens.
        requests: how many requests have arrived.
        mirrors: how many of them were marked as mirrors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.mirrors = 0
        self._lock = threading.Lock()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes; the second would wait 40 ms for the first to be acknowledged.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                backend.count(is_mirror=self.headers.get("x-understudy-mirror") is not None)
                body = f'{{"from": "{backend.name}"}}'.encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 - the base class asks for this name

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def count(self, *, is_mirror: bool) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            self.mirrors += is_mirror


@contextmanager
def counting_backend(name: str) -> Iterator[CountingBackend]:
    """Run a backend until the end of the block."""
    backend = CountingBackend(name)
    thread = threading.Thread(target=backend.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        backend.server.shutdown()
        backend.server.server_close()
        thread.join()


def two_workers(primary: CountingBackend, candidate: CountingBackend) -> dict[str, Any]:
    """Return a config: two workers; the candidate v2 is mirrored and serves a fifth of the users."""
    return {
        "workers": 2,
        "backends": {
            "p": {"endpoints": [primary.url]},
            "c": {"endpoints": [candidate.url]},
        },
        "routes": [
            {
                "name": "iris",
                "protocol": "json",
                "primary": "p",
                "split_by": "header:x-user-id",
                "candidates": [{"name": "v2", "backend": "c", "mirror": "100%", "weight": "20%"}],
            }
        ],
        "limits": {"shutdown": "2s"},
    }


class Load:
    """Users who send one request after the other until told to stop.

    Attributes:
        answered: answers so far, by the name of the backend that gave them.
        failures: anything but a 200.
    """

    def __init__(self, url: str, users: int = 4) -> None:
        self.answered: dict[str, int] = {}
        self.failures: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._send, args=(f"user-{n}",), daemon=True)
            for n in range(users)
        ]

    @property
    def total(self) -> int:
        """All answers so far."""
        with self._lock:
            return sum(self.answered.values())

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, user: str) -> None:
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                try:
                    answer = client.post(
                        self._url, json={"x": number}, headers={"x-user-id": f"{user}-{number}"}
                    )
                    name = answer.json()["from"] if answer.status_code == 200 else ""
                except (httpx.TransportError, ValueError) as exc:
                    with self._lock:
                        self.failures.append(repr(exc))
                    continue
                with self._lock:
                    if name:
                        self.answered[name] = self.answered.get(name, 0) + 1
                    else:
                        self.failures.append(f"{answer.status_code} {answer.text}")
