"""A small OpenTelemetry collector: takes OTLP over HTTP on a real socket and decodes it.

with collector() as found:
    ...
    found.spans  # as protobuf, in the order of their coming
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.deadline import PATIENCE_S


@dataclass
class Collector:
    """What came, and how the next call is answered.

    Attributes:
        port: where it listens, on loopback.
        resources: the attributes of each call's resource.
        headers: of the last call, names in lower case.
        status: of the answers.
        goes_on: calls are answered while it is set.
    """

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    status: int = 200
    goes_on: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """What the config says."""
        return f"http://127.0.0.1:{self.port}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Decode one call."""
        request = ExportTraceServiceRequest.FromString(body)
        self.paths.add(path)
        self.headers = headers
        for resource in request.resource_spans:
            self.resources.append(
                {a.key: a.value.string_value for a in resource.resource.attributes}
            )
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector until the end of the block."""
    found = Collector()
    found.goes_on.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.goes_on.wait(PATIENCE_S)
            if found.status == 200:
                names = {name.lower(): value for name, value in self.headers.items()}
                found.take(self.path, names, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(found.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has gone is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield found
    finally:
        found.goes_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: Span) -> dict[str, object]:
    """Return a span's attributes as plain values."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}
