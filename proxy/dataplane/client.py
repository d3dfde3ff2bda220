"""Client connections: parse requests, hand them to exchanges, write answers in order.

`ClientConnection` is the class given to uvicorn as `http=`: uvicorn keeps the sockets, limits,
signals and graceful stop; between its sockets and ours stand no ASGI scope, no task and no copy.

Requests of one connection are served one at a time. Those that a client pipelines wait, parsed, in
a short queue while reading is paused. Anything ambiguous is refused with 400 and ends the
connection; what was parsed before it is still answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from proxy.dataplane.exchange import Exchange
from proxy.dataplane.half_closed import CONTINUE, watch
from proxy.dataplane.refusals import (
    CHUNKS_TOO_LONG,
    MAX_FIELDS,
    MAX_TARGET_BYTES,
    NO_ROUTE,
    NO_UPGRADE,
    TARGET_TOO_LONG,
    body_too_large,
    failure,
    head_too_large,
)
from proxy.state.stats_page import Reject
from proxy.wire.request_head import Field, Refusal, read_request_head
from proxy.wire.response_head import plain_answer

if TYPE_CHECKING:
    from proxy.dataplane.leg import ServingLeg
    from proxy.dataplane.worker import Worker

#: Chunk extensions and other bytes of a chunked body that are not the body itself.
MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024

#: How long a client that is still sending may take to read its last answer; nginx takes 5 s.
LINGER_S = 5.0


class _RefusedError(Exception):
    """Stops the parser; the refusal is already queued."""


class ClientConnection:
    """One client connection.

    An `asyncio.Protocol` by its methods: it inherits nothing, so that it can be compiled.
    """

    __slots__ = (
        "_body_limit", "_fields", "_has_eof", "_head_bytes", "_head_limit", "_headers", "_is_closing",
        "_is_head_done", "_is_head_new", "_is_read_paused", "_overhead_bytes", "_parser", "_queue", "_read_bytes", "_receiving",
        "_server_state", "_serving", "_target", "_write_paused", "keep_alive", "peer_host",
        "peer_lines", "transport", "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        config: Any,  # uvicorn passes these four, by name
        server_state: Any,
        app_state: Any,
        _loop: Any = None,
    ) -> None:
        self.worker = worker
        self._server_state = server_state
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange | Refusal] = deque()
        self._serving: Exchange | None = None
        self._receiving: Exchange | None = None
        self._is_read_paused = self._write_paused = False
        self._is_closing = self._has_eof = False
        self.keep_alive = True
        self.peer_host = b""
        self.peer_lines = b""
        self._read_bytes = 0
        self._head_limit = self.worker.config.limits.request_head_bytes
        self._body_limit = self.worker.config.limits.request_body_bytes
        self.on_message_begin()

    # What asyncio and uvicorn call.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Register with uvicorn and learn who the peer is."""
        self.transport = transport
        self._server_state.connections.add(self)
        peer = transport.get_extra_info("peername")
        self.peer_host = str(peer[0]).encode() if isinstance(peer, tuple) else b"unknown"
        scheme = b"https" if transport.get_extra_info("sslcontext") else b"http"
        self.peer_lines = b"via: 1.1 %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\n" % (
            self.worker.pseudonym,
            self.peer_host,
            scheme,
        )
        self.worker.connection_opened()

    def data_received(self, data: bytes) -> None:
        """Parse, then let the exchange under way act on what came."""
        if self._is_closing:
            return
        self._read_bytes = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as exc:
            if not isinstance(exc.__context__, _RefusedError):
                raise
        except httptools.HttpParserUpgrade:
            self._refuse(NO_UPGRADE)
        except httptools.HttpParserError as exc:
            self._refuse(Refusal(400, Reject.BAD_REQUEST, f"Malformed request: {exc}."))
        else:
            if self._receiving is not None or not self._is_head_done:
                self._check_sizes()
        self._advance()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answer; then the connection ends."""
        self._has_eof = True
        if self._serving is None or not self._serving.is_whole:
            return False
        watch(self, self._serving)
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: stop what was for it alone."""
        self._is_closing = True
        self._parser = None  # type: ignore[assignment]  # they know each other: no cycle is left
        self._server_state.connections.discard(self)
        self.worker.connection_closed()
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.abort()
        while self._queue:
            waiting = self._queue.popleft()
            if isinstance(waiting, Exchange):
                waiting.abort()

    def pause_writing(self) -> None:
        """The client reads slowly: hold the backend back."""
        self._write_paused = True
        if self._serving is not None:
            self._serving.pause_answer()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if self._serving is not None:
            self._serving.resume_answer()
        elif self._queue:
            self._advance()

    def shutdown(self) -> None:
        """Called by uvicorn at its graceful stop: answer what is under way, then close."""
        self.keep_alive = False
        if self._serving is None:
            self._close()

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Make ready for a head."""
        self._target = b""
        self._headers: list[Field] = []
        self._head_bytes = 0
        self._overhead_bytes = 0
        self._is_head_done = False
        self._is_head_new = True

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._target += url
        if len(self._target) > MAX_TARGET_BYTES:
            self._stop(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; after the head nobody looks at them again, so trailers are dropped."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head, find its route, open its exchange."""
        parser, worker = self._parser, self.worker
        self._is_head_done = True
        headers = self._headers
        if len(headers) > MAX_FIELDS or self._read_bytes > self._head_limit:
            self._check_head(headers)
        worker.cells[worker.received_cell] += 1
        head = read_request_head(
            parser.get_method(),
            self._target,
            parser.get_http_version(),
            headers,
            worker.pseudonym,
        )
        if isinstance(head, Refusal):
            self._stop(head)
            return
        if head.length is not None and head.length > self._body_limit:
            self._stop(body_too_large(self._body_limit))
            return
        context = worker.route(head)
        if context is None:
            self._stop(NO_ROUTE)
            return
        exchange = Exchange(self, context, head)
        self._receiving = exchange
        self._queue.append(exchange)

    def _check_head(self, headers: list[Field]) -> None:
        size = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MAX_FIELDS or size > self._head_limit:
            self._stop(head_too_large(self._head_limit))

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to its exchange."""
        exchange = self._receiving
        if exchange is None:
            return
        self._overhead_bytes -= len(body)
        exchange.receive(body)
        if exchange.received_bytes > self._body_limit:
            self._stop(body_too_large(self._body_limit))

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._receiving is not None:
            self._receiving.complete()
            self._receiving = None

    # What exchanges call.

    def connection_line(self) -> bytes:
        """Return the Connection line that the next answer must carry, or nothing."""
        serving = self._serving
        if serving is not None and not (serving.head.keep_alive and serving.is_whole):
            self.keep_alive = False
        if not self.keep_alive or self._has_eof:
            return b"connection: close\r\n"
        if serving is not None and serving.head.is_http10:
            return b"connection: keep-alive\r\n"
        return b""

    def write(self, pieces: list[bytes]) -> None:
        """Write to the client; a client that cannot keep up holds the backend back."""
        if not self._is_closing:
            self.transport.writelines(pieces)
            if self._write_paused and self._serving is not None:
                self._serving.pause_answer()

    def pause_reading(self) -> None:
        """Stop reading the client."""
        if not self._is_read_paused and not self._is_closing:
            self._is_read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the client again, unless pipelined requests are waiting."""
        if self._is_read_paused and not self._queue and not self._is_closing:
            self._is_read_paused = False
            self.transport.resume_reading()

    def exchange_over(self, exchange: Exchange) -> None:
        """The answer is written: go on to the next request, or close."""
        if exchange is not self._serving:
            return
        self._serving = None
        if not exchange.is_whole or not exchange.head.keep_alive:
            self.keep_alive = False
        if not self.keep_alive or (self._has_eof and not self._queue):
            self._close()
            return
        if self._queue:
            asyncio.get_running_loop().call_soon(self._advance)
        else:
            self.resume_reading()

    def refuse_exchange(self, exchange: Exchange, status: int, detail: str) -> None:
        """Answer an exchange that never reached a backend."""
        self._answer(status, detail, b"")
        self.exchange_over(exchange)

    def serving_failed(self, exchange: Exchange, leg: ServingLeg) -> None:
        """Answer for a backend that did not, or cut an answer that broke in the middle."""
        if leg.has_answered:
            self._close_abruptly()
            return
        status, error, detail = failure(leg)
        line = b"proxy-status: understudy; error=%b\r\n" % error
        self._answer(status, detail, line)
        self.exchange_over(exchange)

    # Refusals and endings.

    def is_waiting(self, exchange: Exchange) -> bool:
        """Tell whether the client still waits for the first byte of this exchange's answer."""
        return exchange is self._serving and not exchange.has_answered and not self._is_closing

    def _stop(self, refusal: Refusal) -> None:
        """Refuse from inside a parser callback."""
        self._refuse(refusal)
        raise _RefusedError

    def _refuse(self, refusal: Refusal) -> None:
        """Queue a refusal behind the answers that are still owed; nothing more is read."""
        self.worker.count_rejected(refusal.reason)
        broken, self._receiving = self._receiving, None
        self._queue.append(refusal)
        self.pause_reading()
        if broken is not None:
            self._drop(broken)

    def _drop(self, broken: Exchange) -> None:
        """The body of this exchange will never be whole."""
        if broken is not self._serving:
            self._queue.remove(broken)
        elif broken.has_answered:
            self._close_abruptly()
        else:
            self._serving = None
        broken.abort()

    def _check_sizes(self) -> None:
        """Bound what the parser swallows without telling: endless heads, chunk extensions."""
        if not self._is_head_done:
            if self._is_head_new:  # the read it began in may hold the end of another body
                self._is_head_new = False
                return
            self._head_bytes += self._read_bytes
            if self._head_bytes > self._head_limit:
                self._refuse(head_too_large(self._head_limit))
        elif self._receiving is not None and self._receiving.head.length is None:
            self._overhead_bytes += self._read_bytes
            allowed = MAX_CHUNK_OVERHEAD_BYTES + self._receiving.received_bytes // 2
            if self._overhead_bytes > allowed:
                self._refuse(CHUNKS_TOO_LONG)

    def _advance(self) -> None:
        """Begin the next exchange if none is under way, and let the one under way act."""
        while not self._is_closing:
            if self._serving is None and (self._write_paused or not self._begin_next()):
                return  # while answers pile up unread, no more of them are asked for
            serving = self._serving
            if serving is None:
                return
            if self._queue:
                self.pause_reading()
            serving.advance()
            if self._serving is not None:
                return

    def _begin_next(self) -> bool:
        """Take what waits first in the queue; False when there is nothing to serve."""
        if not self._queue:
            return False
        following = self._queue.popleft()
        if isinstance(following, Refusal):
            self._answer_refusal(following)
            return False
        self._serving = following
        if not self._queue:
            self.resume_reading()  # the rest of this request may still be on its way
        if following.head.expects_continue and not following.is_whole:
            self.transport.write(CONTINUE)
        return True

    def _answer_refusal(self, refusal: Refusal) -> None:
        self.keep_alive = False
        self._answer(refusal.status, refusal.detail, b"")
        self._close()

    def _answer(self, status: int, detail: str, line: bytes) -> None:
        if not self._is_closing:
            close = bool(self.connection_line() == b"connection: close\r\n")
            self.transport.write(plain_answer(status, detail, line, close=close))

    def _close(self) -> None:
        """Close in order; a client that is still sending may first read its answer.

        Closing with unread data makes the kernel send a reset, which can destroy the answer before
        the client has read it: so only our side is closed, and what comes is read and dropped for
        `LINGER_S` seconds (RFC 9112 section 9.6; nginx's `lingering_close`).
        """
        if self._is_closing:
            return
        self._is_closing = True
        is_sending = not self._has_eof and (self._receiving is not None or self._is_read_paused)
        if is_sending and self.transport.can_write_eof():
            self.transport.write_eof()
            if self._is_read_paused:
                self.transport.resume_reading()
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def _close_abruptly(self) -> None:
        """Let the client see that the answer is not whole (RFC 9112 section 8)."""
        self._serving = None
        if not self._is_closing:
            self._is_closing = True
            self.transport.abort()
