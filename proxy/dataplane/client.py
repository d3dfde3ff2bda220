"""Client connections: read requests, hand them to exchanges, write answers in order.

`ClientConnection` is the class given to uvicorn as `http=`: uvicorn keeps the sockets, limits,
signals and graceful stop; between its sockets and ours stand no ASGI scope, no task and no copy.

Requests of one connection are served one at a time. What a client pipelines behind the one under
way is not even parsed before that one is answered: it waits as the bytes of one read, while reading
is paused. What is read but not whole has a deadline (`proxy.dataplane.deadlines`). Anything
ambiguous is refused and ends the connection.

What HTTP means is judged in `proxy.wire`; here is only what happens when.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from proxy.dataplane import refusals
from proxy.dataplane.answering import Answering
from proxy.dataplane.deadlines import Stage
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.half_closed import CONTINUE, set_reset_on_close, watch
from proxy.dataplane.peers import has_unread, peer_of
from proxy.dataplane.tunnel import TunnelEnd, open_exchange
from proxy.wire.body import ChunkedBody, ChunkError, LengthBody
from proxy.wire.partial_head import HeadFault, PartialHead
from proxy.wire.request_head import Refusal, RequestHead, read_request_head
from proxy.wire.upstream_head import peer_lines

if TYPE_CHECKING:
    from proxy.dataplane.leg import ServingLeg
    from proxy.dataplane.worker import Worker
    from proxy.wire.forwarded import TrustedPeer


class ClientConnection(Answering):
    """One client connection.

    An `asyncio.Protocol` by its methods: it inherits nothing of asyncio's, so that it can be compiled.
    """

    __slots__ = (
        "_body", "_body_limit", "_front", "_has_read", "_head_limit", "_partial", "_receiving",
        "_server_state", "peer_host", "peer_lines",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        config: Any,  # uvicorn passes these four, by name
        server_state: Any,
        app_state: Any,
        _loop: Any = None,
    ) -> None:
        super().__init__(worker)
        self._server_state = server_state
        #: The exchange whose request body is still coming, and where that ends.
        self._receiving: Exchange | None = None
        self._body: LengthBody | ChunkedBody | None = None
        #: A head that is not whole.
        self._partial: PartialHead | None = None
        #: Something was read since the last sweep; None: nothing was ever read.
        self._has_read: bool | None = None
        self.peer_host = self.peer_lines = b""
        #: A proxy whose word on each request's client is taken.
        self._front: TrustedPeer | None = None
        self._head_limit = self.worker.config.limits.request_head_bytes
        self._body_limit = self.worker.config.limits.request_body_bytes

    # What asyncio and uvicorn call.

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Register with uvicorn and learn who the peer is."""
        self.transport = transport
        self._server_state.connections.add(self)
        worker = self.worker
        self.peer_host, scheme = peer_of(transport)
        self.peer_lines = peer_lines(worker.pseudonym, self.peer_host, scheme)
        self._front = worker.trusted_proxies.peer(self.peer_host, scheme, worker.pseudonym)
        worker.connection_opened()
        if not worker.clients.opened(self):
            self.keep_alive = False
            self._answer(503, refusals.CROWDED, b"retry-after: 1\r\n")
            self._close()

    def data_received(self, data: bytes) -> None:
        """Read what came, then let the exchange under way act on it."""
        if self._is_closing:
            return
        self._has_read = True
        if self._receiving is not None:
            self._receive(self._receiving, data)
        elif self._serving is None:
            self._begin(data)
        else:
            self._wait(data)
            return
        if self._serving is not None:
            self._serving.advance()

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
        self._rest = b""
        self._partial = self._receiving = None
        self._server_state.connections.discard(self)
        self.worker.clients.closed(self)
        self.worker.unread.discard(self)
        self.worker.connection_closed()
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.abort()

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
        else:
            self._go_on()

    def shutdown(self) -> None:
        """Called by uvicorn at its graceful stop: answer what is under way, then close.

        A request that has come and is not read yet is under way, too: to close now would reset it.
        """
        self.keep_alive = False
        if self._serving is None and not has_unread(self.transport):
            self._close()

    # Reading.

    def _begin(self, data: bytes) -> None:
        """Read a head and open its exchange; the common case is a whole request in one read."""
        end = data.find(b"\r\n\r\n") if self._partial is None else 0
        if 0 < end <= self._head_limit:
            block, body = data[:end], data[end + 4 :]
        else:
            found = self._add_to_head(data)
            if found is None:
                return
            block, body = found
        worker = self.worker
        worker.cells[worker.received_cell] += 1
        head = read_request_head(block, worker.pseudonym)
        if isinstance(head, Refusal):
            self._refuse(head, has_body=not block.startswith(b"HEAD "))
            return
        exchange = self._open(head, block)
        if exchange is None:
            return
        self._serving = exchange
        if head.length == len(body):
            if body:
                exchange.receive(body)
            exchange.complete()
        else:
            self._begin_body(exchange, body)

    def _open(self, head: RequestHead, block: bytes) -> Exchange | None:
        """Return the exchange of a request, or None where it was refused; `block` is its head."""
        if self._front is not None:
            self.peer_host, self.peer_lines = self._front.read(block)
        length = head.length
        if length is not None and length > self._body_limit:
            refusal = refusals.body_too_large(self._body_limit)
            self._refuse(refusal, has_body=head.method != b"HEAD", head=head)
            return None
        context = self.worker.routes.find(head)
        if context is None:
            self._refuse(refusals.NO_ROUTE, has_body=head.method != b"HEAD", head=head)
            return None
        if not head.upgrade:
            return Exchange(self, context, head)
        opened = open_exchange(self, context, head)
        if isinstance(opened, Refusal):
            self._refuse(opened, head=head)
            return None
        return opened

    def _add_to_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Keep a head that is not whole; return (head, what follows) once it is."""
        if self._partial is None:
            self._partial = PartialHead(self._head_limit)
        found = self._partial.add(data)
        if isinstance(found, HeadFault):
            self._refuse(refusals.partial_head_refused(found, self._head_limit))
            return None
        if found is not None:
            self._partial = None
        elif self._partial.is_empty:
            self._partial, self._has_read = None, False  # empty lines keep nobody alive
        return found

    def _begin_body(self, exchange: Exchange, data: bytes) -> None:
        """Take the start of a body that is not whole yet, or is followed by another request."""
        head = exchange.head
        self._receiving = exchange
        self._body = ChunkedBody() if head.length is None else LengthBody(head.length)
        if data:
            self._receive(exchange, data)
        # Not `self._receiving is not None`: mypy, and so the compiled code, trusts the line above.
        if head.expects_continue and not (exchange.is_whole or exchange.is_aborted):
            self.transport.write(CONTINUE)

    def _receive(self, exchange: Exchange, data: bytes) -> None:
        """Hand a piece of the body to its exchange."""
        assert self._body is not None
        try:
            pieces, rest = self._body.read(data)
        except ChunkError as exc:
            self._refuse(refusals.bad_chunks(exc))
            return
        if pieces:
            # One piece per read: a client that sends a byte per chunk must not cost us a list of them.
            exchange.receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if exchange.received_bytes > self._body_limit:
                self._refuse(refusals.body_too_large(self._body_limit))
                return
        if rest is not None:
            self._receiving = self._body = None
            exchange.complete()
            if rest:
                self._wait(rest)

    def _wait(self, data: bytes) -> None:
        """Keep what was pipelined until the exchange under way has ended."""
        self._rest += data
        self.pause_reading()

    def _go_on(self) -> None:
        """Read what waits, or read on; not before the client has taken most of the last answer."""
        if self._is_closing or self._serving is not None or self._write_paused:
            return
        rest, self._rest = self._rest, b""
        if not self._has_eof:
            self.resume_reading()
        if rest:
            self.data_received(rest)
        if self._has_eof and not self.is_serving():
            self._close()

    # What exchanges call.

    def exchange_over(self, exchange: Exchange) -> None:
        """The answer is written: go on to the next request, or close."""
        if exchange is not self._serving:
            return
        self._serving = None
        if not exchange.is_whole or not exchange.head.keep_alive:
            self.keep_alive = False
            self._receiving = None
        if not self.keep_alive:
            self._close(lingers=not exchange.is_whole or bool(self._rest))
        elif self._rest or self._write_paused:
            self.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)
        elif self._has_eof:
            self._close()
        else:
            self.resume_reading()

    def hand_over(self, end: TunnelEnd) -> tuple[bytes, bool]:
        """Leave reading to a tunnel; return what has waited, and whether nothing more will come."""
        self.transport.set_protocol(end)  # type: ignore[arg-type]  # an asyncio.Protocol by its methods
        waiting, self._rest = self._rest, b""
        if not self._has_eof:
            self.resume_reading()
        return waiting, self._has_eof

    def refuse_exchange(self, exchange: Exchange, status: int, detail: str) -> None:
        """Answer an exchange that never reached a backend."""
        self._answer(status, detail, refusals.FULL_LINE)
        self.exchange_over(exchange)

    def serving_failed(self, exchange: Exchange, leg: ServingLeg) -> None:
        """Answer for a backend that did not, or cut an answer that broke in the middle."""
        if leg.has_answered:
            if leg.ends_by_close():  # a plain close would look like the end of the answer
                set_reset_on_close(self.transport)
            self._close_abruptly()
            return
        status, detail, line = refusals.failure(leg)
        self._answer(status, detail, line)
        self.exchange_over(exchange)

    # Deadlines.

    def stage(self) -> tuple[Stage, object]:
        """Return where the connection is, with something that is equal as long as it is stuck."""
        has_read = self._has_read
        if has_read:
            self._has_read = False
        if self._is_closing:
            unsent = self.transport.get_write_buffer_size()
            return (Stage.FLUSHING if unsent else Stage.LINGERING), unsent
        if self._receiving is not None and not self._is_read_paused:
            return Stage.BODY, object() if has_read and self._receiving.legs else None
        if self._serving is not None or self._rest:
            return Stage.SERVING, None
        if self._partial is not None:
            return Stage.HEAD, self._partial
        if has_read is None:
            return Stage.NEW, None
        return Stage.IDLE, object() if has_read else None

    def expire(self, stage: Stage) -> None:
        """End what has been in `stage` for longer than its deadline."""
        if stage is Stage.HEAD:
            self._refuse(refusals.SLOW_HEAD)
        elif stage is Stage.BODY:
            self._refuse(refusals.SLOW_BODY)
        elif stage is Stage.NEW or stage is Stage.IDLE:
            self._close()
        else:
            self.drop()

    # Refusals.

    def _refuse(
        self, refusal: Refusal, *, has_body: bool = True, head: RequestHead | None = None
    ) -> None:
        """Answer with a refusal and end; a request whose body cannot become whole is given up."""
        worker = self.worker
        broken, self._serving = self._serving, None
        if self._partial is not None:
            has_body = not self._partial.is_of_head_request
            worker.cells[worker.received_cell] += 1  # it will never be whole
        worker.count_rejected(refusal.reason, is_routed=broken is not None)
        if worker.access_log is not None:
            # What a head that was refused says of its client is not believed.
            front = self._front
            peer = self.peer_host if head or front is None else front.host
            worker.access_log.refused(refusal, peer, head, broken)
        self._receiving = self._partial = None
        if broken is not None:
            has_answered, has_body = broken.has_answered, broken.head.method != b"HEAD"
            broken.abort()
            if has_answered:
                self._close_abruptly()
                return
        self.keep_alive = False
        self._answer(refusal.status, refusal.detail, b"", has_body=has_body)
        self._close(lingers=True)
