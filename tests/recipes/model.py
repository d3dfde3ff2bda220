"""A model over HTTP whose answers follow from the number it is asked about, and sometimes do not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Returns status and prediction for the number asked about.
Rule = Callable[[int], tuple[int, object]]


@contextmanager
def model(rule: Rule) -> Iterator[str]:
    """Serve `rule` until the end of the block; give the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes; a delayed acknowledgement between them costs 40 ms.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, prediction = rule(asked["x"])
            body = json.dumps({"y": prediction}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def noisy_primary() -> Rule:
    """Return a rule that is right, but at every twentieth number not when asked again."""
    asked: set[int] = set()
    lock = threading.Lock()

    def rule(x: int) -> tuple[int, object]:
        with lock:
            is_again = x in asked
            asked.add(x)
        return 200, x % 10 + (100 if is_again and x % 20 == 3 else 0)

    return rule


def candidate(x: int) -> tuple[int, object]:
    """Answer wrongly at every tenth number, and fail at every twenty-fifth."""
    if x % 25 == 7:
        return 500, None
    return 200, x % 10 + (x / 1000 if x % 10 == 4 else 0)
