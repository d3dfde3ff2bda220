"""Connections to backends: at most one leg each, kept in a pool per backend.

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

from proxy.config.resolved import Address, Backend
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from proxy.wire.body import ChunkedBody, ChunkError
from proxy.wire.partial_head import HeadFault, PartialHead
from proxy.wire.response_head import ResponseHead, has_no_body, read_response_head
from proxy.wire.upstream_body import BODY_METHODS

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

#: An answer's head may not be larger than this; nginx allows 4 to 8 KiB, Envoy 60 KiB.
MAX_HEAD_BYTES = 64 * 1024
#: More chunks than this in one read are handed on as one piece.
MAX_PIECES = 64

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class UpstreamConnection:
    """One TCP connection to a backend, and what it has read of the answer.

    An `asyncio.Protocol` by its methods: it inherits nothing, so that it can be compiled.
    """

    __slots__ = (
        "_chunks", "_head", "_interim_bytes", "_is_paused", "_known_block", "_known_head", "_left",
        "_partial", "idle_since_s", "leg", "pool", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.leg: Leg | None = None
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made
        self._is_paused = False
        self._partial: PartialHead | None = None
        self._interim_bytes = 0
        #: The head of the answer under way, and what is left of its body: a length, chunks, or
        #: None and None until the connection closes.
        self._head: ResponseHead | None = None
        self._left: int | None = None
        self._chunks: ChunkedBody | None = None
        #: The last head, as sent and as read: those of one backend often differ in the date alone.
        self._known_block = b""
        self._known_head = ResponseHead(0, keep_alive=False)

    def begin(self, leg: Leg) -> None:
        """Take a leg; its answer is the next thing this connection reads."""
        self.leg = leg
        self._interim_bytes = 0

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
        """Read the answer, hand it to the leg piece by piece, and finish when it is whole."""
        leg = self.leg
        if leg is None:  # bytes that nobody asked for: this connection cannot be trusted
            self.transport.abort()
            return
        body = data
        if self._head is None:
            found = self._read_head(leg, data)
            if found is None:
                return
            body = found
        left = self._left
        if left is None:
            self._read_unbounded(leg, body)
            return
        size = len(body)
        if size < left:
            self._left = left - size
            if size:
                leg.response_body(body)
            leg.flush()
            return
        if left:
            leg.response_body(body if size == left else body[:left])
        self._finish(leg, is_clean=size == left)

    def _read_head(self, leg: Leg, data: bytes) -> bytes | None:
        """Read the head and tell the leg; return what follows it, None where it is not there yet."""
        while True:
            end = data.find(b"\r\n\r\n") if self._partial is None else 0
            if end > 0:
                block, data = data[:end], data[end + 4 :]
            else:
                found = self._add_to_head(data)
                if found is None:
                    return None
                block, data = found
            head = self._known_head if block == self._known_block else self._learn_head(block)
            if head is None:
                return None
            if head.status >= 200:
                break
            # Interim answers (RFC 9110 section 15.2) end here; Upgrade is never forwarded.
            self._interim_bytes += len(block)
            if head.status == 101 or self._interim_bytes > MAX_HEAD_BYTES:
                self._break("malformed answer: 101 without Upgrade, or endless interim answers")
                return None
            if not data:
                return None
        self._head = head
        if has_no_body(leg.exchange.head.method, head.status):
            self._left = 0
        else:
            self._left = head.length
            self._chunks = ChunkedBody() if head.is_chunked else None
        leg.response_head(head)
        return data

    def _add_to_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Keep a head that is not whole; return (head, what follows) once it is."""
        if self._partial is None:
            self._partial = PartialHead(MAX_HEAD_BYTES)
        found = self._partial.add(data)
        if isinstance(found, HeadFault):
            self._break(f"malformed answer: its head has or is {found.value}")
            return None
        if found is not None:
            self._partial = None
        return found

    def _learn_head(self, block: bytes) -> ResponseHead | None:
        head = read_response_head(block) if len(block) <= MAX_HEAD_BYTES else "head too large"
        if isinstance(head, str):
            self._break(f"malformed answer: {head}")
            return None
        self._known_block, self._known_head = block, head
        return head

    def _read_unbounded(self, leg: Leg, data: bytes) -> None:
        """Take a piece of a body in chunks, or of one that lasts until the connection closes."""
        chunks, rest = self._chunks, None
        pieces = [data] if data else []
        if chunks is not None:
            try:
                pieces, rest = chunks.read(data)
            except ChunkError as exc:
                self._break(f"malformed answer: {exc}")
                return
            if len(pieces) > MAX_PIECES:  # nobody streams like this
                pieces = [b"".join(pieces)]
        for piece in pieces:
            leg.response_body(piece)
        if rest is None:
            leg.flush()
        else:
            self._finish(leg, is_clean=not rest)

    def eof_received(self) -> bool:
        """End an answer that lasts until the connection closes; any other was cut short.

        Chunks without the empty line after the last one are whole too: the chunk of size zero ends
        the data (RFC 9112 section 8), and trailers are dropped anyway.
        """
        leg, chunks = self.leg, self._chunks
        has_begun = leg is not None and self._head is not None and self._left is None
        if leg is not None and has_begun and (chunks is None or chunks.has_last_chunk):
            self._finish(leg, is_clean=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the leg that was waiting, if any, and leave the pool."""
        self.pool.forget(self)
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

    # Endings.

    def _finish(self, leg: Leg, *, is_clean: bool) -> None:
        """The answer is whole; `is_clean` when it ended where the bytes did."""
        head = self._head
        assert head is not None
        self.leg = self._head = self._chunks = None
        is_usable = is_clean and head.keep_alive and leg.is_request_sent
        if is_usable and _has_read_all(leg) and not self.transport.is_closing():
            self.pool.release(self)
        else:
            self.transport.close()
        leg.response_end()
        if self._is_paused:  # the last piece may have filled the client's buffer
            self.resume()

    def _break(self, reason: str) -> None:
        leg, self.leg = self.leg, None
        self.transport.abort()
        if leg is not None:
            leg.fail(Outcome.RESET, reason)

    def abandon(self) -> None:
        """Close at once; the leg has ended for another reason."""
        self.leg = None
        self.transport.abort()


def _has_read_all(leg: Leg) -> bool:
    """Tell whether the backend has surely read the request's body, and not only answered it.

    Some ignore the body of a GET, HEAD or OPTIONS, and would take it for the next request.
    """
    exchange = leg.exchange
    return not exchange.received_bytes or exchange.head.method in BODY_METHODS


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
