"""What the benchmarks' HTTP servers share: parse, count, answer `/status` as nginx's stub_status."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import httptools

STATUS = "/status"
#: A fixed answer of about 200 bytes; that of nginx as upstream too.
ANSWER = (
    b'{"model_name":"digits","model_version":"3","id":"fixed","outputs":[{"name":"probabilities",'
    b'"datatype":"FP32","shape":[1,6],"data":[0.0125,0.9012,0.0031,0.0512,0.0207,0.0113]}]}'
)


@dataclass(slots=True)
class Count:
    """Requests that one server received, those for the count itself included (as nginx does).

    Attributes:
        last_ns: when the last of the others came (monotonic clock).
    """

    requests: int = 0
    last_ns: int = 0


class Answering(asyncio.Protocol):
    """Answers each whole request by `respond`, which a subclass provides."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []

    def respond(self, url: bytes, body: bytes) -> None:
        """Answer one request."""
        self.transport.write(whole(ANSWER))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; the callbacks below answer."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Note which page is asked for."""
        self._url = url

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Count and answer."""
        body, self._body = b"".join(self._body), []
        self.count.requests += 1
        if self._url == STATUS.encode():
            count = self.count.requests
            self.transport.write(whole(f"server\n {count} {count} {count}\n".encode()))
        else:
            self.respond(self._url, body)


def head(*fields: str) -> bytes:
    """Return the head of an answer 200 with these fields."""
    return "\r\n".join(("HTTP/1.1 200 OK", *fields, "", "")).encode()


def whole(body: bytes) -> bytes:
    """Return a JSON answer."""
    return head("Content-Type: application/json", f"Content-Length: {len(body)}") + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; empty data is its end (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
