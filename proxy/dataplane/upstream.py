"""Connections to backends: one parser and at most one leg each, kept in a pool per backend.

A connection knows HTTP and nothing of routes; a leg (`proxy.dataplane.leg`) knows what its answer
is for. A pool hands out idle connections, newest first, opens new ones, and ends the legs that
have passed their deadline. Deadlines of one backend all have the same length, so a dict in the order of
insertion is a queue of them, looked at by the worker's tick: two dict operations per leg instead of
a timer, and nothing is kept of a leg that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import httptools

from proxy.config.resolved import Address, Backend
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from proxy.wire.request_head import Field
from proxy.wire.response_head import has_no_body, read_response_head, read_whole_answer

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

#: An answer's head may not be larger than this; nginx allows 4 to 8 KiB, Envoy 60 KiB.
MAX_HEAD_BYTES = 64 * 1024

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class UpstreamConnection:
    """One TCP connection to a backend, and the parser of its answers.

    An `asyncio.Protocol` by its methods: it inherits nothing, so that it can be compiled.
    """

    __slots__ = (
        "_head_bytes", "_headers", "_is_begun", "_is_complete", "_is_interim", "_is_paused", "_is_reading_body",
        "_is_reusable", "_is_until_close", "_parser", "idle_since_s", "leg", "pool", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.leg: Leg | None = None
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made
        self._parser = httptools.HttpResponseParser(self)
        self._is_paused = False
        self._headers: list[Field] = []
        self._head_bytes = 0
        self._is_begun = self._is_complete = self._is_interim = self._is_reading_body = False
        self._is_until_close = self._is_reusable = False

    def begin(self, leg: Leg) -> None:
        """Take a leg; its answer is the next thing this connection reads."""
        self.leg = leg
        self._headers = []
        self._head_bytes = 0
        self._is_begun = self._is_complete = self._is_reading_body = False

    def pause(self) -> None:
        """Stop reading: whoever takes the answer cannot keep up."""
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse, hand to the leg what it produced, and finish when the answer is whole."""
        leg = self.leg
        if leg is None:  # bytes that nobody asked for: this connection cannot be trusted
            self.transport.abort()
            return
        if not leg.is_serving and not self._is_begun and self._took_whole(leg, data):
            return
        self._is_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._break(f"malformed answer: {exc}")
            return
        if not self._is_reading_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(f"answer's head is over {MAX_HEAD_BYTES} bytes")
                return
        leg.flush()
        if self._is_complete:
            self._finish()

    def _took_whole(self, leg: Leg, data: bytes) -> bool:
        """Take a shadow's answer that came in one read, without the parser."""
        found = read_whole_answer(data)
        if found is None or has_no_body(leg.exchange.head.method, found[0].status):
            return False
        head, start = found
        leg.response_head(head)
        leg.response_body(data[start:])
        self._is_reusable = True
        self._finish()
        return True

    def eof_received(self) -> bool:
        """End an answer that lasts until the connection closes; anything else was cut short."""
        if self.leg is not None and self._is_reading_body and not self._is_complete:
            self._is_complete = self._is_until_close
            if self._is_complete:
                self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the leg that was waiting, if any, and leave the pool."""
        self.pool.forget(self)
        self._parser = None  # type: ignore[assignment]  # they know each other: no cycle is left
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.fail(Outcome.RESET, f"connection lost: {exc or 'closed by the backend'}")

    def pause_writing(self) -> None:
        """Hold the request body back: the backend reads slower than the client sends."""
        if self.leg is not None:
            self.leg.pause_request()

    def resume_writing(self) -> None:
        """Let the request body flow again."""
        if self.leg is not None:
            self.leg.resume_request()

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; after the head nobody looks at them again, so trailers are dropped."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Read the head and tell the leg."""
        leg = self.leg
        if leg is None or self._is_complete:
            raise ValueError("an answer without a request")
        status = self._parser.get_status_code()
        if status < 200:  # interim answers, RFC 9110 section 15.2
            if status == 101:  # Upgrade is never forwarded
                raise ValueError("101 without Upgrade")
            self._is_interim = True
            return
        head = read_response_head(status, self._headers, for_client=leg.is_serving)
        self._is_until_close = head.length is None and not head.is_chunked
        self._is_reading_body = True
        self._is_reusable = self._parser.should_keep_alive()
        leg.response_head(head)
        if has_no_body(leg.exchange.head.method, status):
            self._is_complete = True
            if head.length or head.is_chunked:  # llhttp waits for a body that never comes
                self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to the leg."""
        if self._is_complete:
            raise ValueError("more than the answer")
        self.leg.response_body(body)  # type: ignore[union-attr]  # a head came first

    def on_message_complete(self) -> None:
        """Note the end; `data_received` acts on it."""
        if self._is_interim:
            self._is_interim = False
            self._headers = []
        else:
            self._is_complete = True

    # Endings.

    def _finish(self) -> None:
        leg, self.leg = self.leg, None
        assert leg is not None
        if self._is_reusable and leg.is_request_sent and not self.transport.is_closing():
            self.pool.release(self)
        else:
            self.transport.close()
        leg.response_end()

    def _break(self, reason: str) -> None:
        leg, self.leg = self.leg, None
        self.transport.abort()
        if leg is not None:
            leg.fail(Outcome.RESET, reason)

    def abandon(self) -> None:
        """Close at once; the leg has ended for another reason."""
        self.leg = None
        self.transport.abort()


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of one pool."""

    in_flight: int
    idle: int
    connecting: int
    opened: int


class Pool:
    """The connections of one backend."""

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop, spawn: Spawn) -> None:
        self.backend = backend
        self.in_flight = 0
        self._loop = loop
        self._spawn = spawn
        self._idle: list[UpstreamConnection] = []
        self._deadlines: dict[Leg, float] = {}
        self._connecting = 0
        self._opened = 0
        self._turn = 0

    def statistics(self) -> PoolStatistics:
        """Return a snapshot."""
        return PoolStatistics(self.in_flight, len(self._idle), self._connecting, self._opened)

    def is_full(self) -> bool:
        """Tell whether one more leg would pass `max_in_flight`."""
        return self.in_flight >= self.backend.max_in_flight

    def legs(self) -> list[Leg]:
        """Return the legs under way."""
        return list(self._deadlines)

    def enter(self, leg: Leg, now_s: float) -> None:
        """Count a leg in, watch its deadline, and give it a connection now or soon."""
        self.in_flight += 1
        self._deadlines[leg] = now_s + self.backend.timeout_s
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                leg.attach(connection, is_reused=True)
                return
        self._spawn(self._connect(leg))

    def leave(self, leg: Leg) -> None:
        """Count a leg out."""
        self.in_flight -= 1
        del self._deadlines[leg]

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can serve another leg; it is read, so that its end shows."""
        connection.resume()
        connection.idle_since_s = monotonic_s()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that has closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def expire(self, now_s: float) -> None:
        """End the legs past their deadline; the dict keeps them in the order of it."""
        late = list(takewhile(lambda leg: self._deadlines[leg] <= now_s, self._deadlines))
        for leg in late:
            leg.fail(Outcome.TIMEOUT, f"no whole answer in {self.backend.timeout_s:g} s")

    def prune(self, now_s: float) -> None:
        """Close the connections idle for longer than the backend allows; oldest come first."""
        oldest_s = now_s - self.backend.keepalive_s
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    async def _connect(self, leg: Leg) -> None:
        """Open a connection for `leg`; when it ended meanwhile, the connection waits for another."""
        endpoints = self.backend.endpoints
        turn = self._turn = self._turn + 1
        self._connecting += 1
        connection, error = None, ""
        try:
            async with asyncio.timeout(self.backend.connect_timeout_s):
                for number in range(len(endpoints)):
                    endpoint = endpoints[(turn + number) % len(endpoints)]
                    try:
                        connection = await self._open(endpoint)
                        break
                    except OSError as exc:  # nothing was sent: the next one can be asked
                        error = f"no connection to {endpoint}: {exc.strerror or exc}"
        except TimeoutError:
            error = f"no connection in {self.backend.connect_timeout_s:g} s"
        finally:
            self._connecting -= 1
        if connection is None:
            leg.fail(Outcome.CONNECT_ERROR, error)
            return
        self._opened += 1
        if leg.is_over:
            self.release(connection)
        else:
            leg.attach(connection, is_reused=False)

    async def _open(self, endpoint: Address) -> UpstreamConnection:
        _, connection = await self._loop.create_connection(  # type: ignore[type-var]  # by methods
            lambda: UpstreamConnection(self), endpoint.host, endpoint.port
        )
        return connection
