"""Backends on real sockets that behave, or misbehave, as a test says.

    async with Upstream(answer(b'{"y": 1}')) as upstream:
        ...
    upstream.requests  # what arrived, parsed by httptools

A behaviour is an async function of (request, writer); those below are the usual ones.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import httptools


@dataclass(slots=True)
class Request:
    """A request as it arrived; `fields` by lower-case name, `body` unchunked."""

    method: bytes = b""
    target: bytes = b""
    fields: dict[bytes, bytes] = field(default_factory=dict)
    names: list[bytes] = field(default_factory=list)
    body: bytes = b""


Behaviour = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class _Collector:
    """Parser callbacks that collect requests."""

    def __init__(self) -> None:
        self.done: list[Request] = []
        self._now = Request()
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        self._now = Request()
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._now.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._now.fields[name.lower()] = value
        self._now.names.append(name.lower())

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._now.body = b"".join(self._body)
        self.done.append(self._now)


class Upstream:
    """A listening backend; an async context manager.

    Attributes:
        requests: whole requests in the order of arrival.
        raw: every byte that arrived, per connection.
        open_connections: connections open now.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        reads: bool = True,
        tls: ssl.SSLContext | None = None,
        socket_path: str = "",
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.raw: list[bytearray] = []
        self.open_connections = 0
        self.port = port
        self._reads = reads
        self._tls = tls
        self._socket_path = socket_path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen, on a free port unless told otherwise."""
        if self._socket_path:
            self._server = await asyncio.start_unix_server(self._serve, self._socket_path)
            return self
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the listener and every connection."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        raw = bytearray()
        self.raw.append(raw)
        collector = _Collector()
        parser = httptools.HttpRequestParser(collector)
        try:
            while data := (await reader.read(65536) if self._reads else await _never()):
                raw += data
                parser.feed_data(data)
                for request in collector.done:
                    parser_method = parser.get_method()
                    request.method = parser_method
                    self.requests.append(request)
                    await self.behaviour(request, writer)
                collector.done.clear()
        except (ConnectionError, httptools.HttpParserError, asyncio.CancelledError):
            pass  # the end of the test; asyncio would log a cancelled handler as an error
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _never() -> bytes:
    await asyncio.Event().wait()
    return b""


def answer(body: bytes, *, status: int = 200, extra: bytes = b"") -> Behaviour:
    """Answer every request with `body`; `extra` are header lines, each ended by CRLF."""
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head % (status, len(body), extra))
        if request.method != b"HEAD":
            writer.write(body)

    return behave


async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with the request's body."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(request.body))
    writer.write(request.body)


def raw_answer(*pieces: bytes, close: bool = False, pause_s: float = 0.0) -> Behaviour:
    """Answer with these bytes, each written by itself, `pause_s` seconds apart."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if close:
            writer.close()

    return behave


async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
    """Accept, and never answer."""
    del request, writer
    await asyncio.Event().wait()


async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
    """Send half an answer, then reset the connection."""
    del request
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()


def closes_the_second() -> Behaviour:
    """Answer the first request of each connection, and close under the second."""
    known: set[asyncio.StreamWriter] = set()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if writer in known:
            writer.transport.abort()
        else:
            known.add(writer)
            await echo(request, writer)

    return behave


#: Sockets that keep the ports which `unused_port` gave, until the session ends.
_kept: list[socket.socket] = []


def unused_port() -> int:
    """Return a port on which nobody listens, so that connecting to it is refused.

    It is kept from everybody who takes any free port, also for the own end of a connection; whoever asks
    for it by its number may listen there (both have SO_REUSEADDR).
    """
    kept = socket.socket()
    _kept.append(kept)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    port: int = kept.getsockname()[1]
    return port
