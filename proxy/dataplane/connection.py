"""Connections to backends: they read answers, and carry at most one leg each.

A connection knows HTTP and nothing of routes; a leg (`proxy.dataplane.leg`) knows what its answer
is for. Who gets which connection is the pool's to decide (`proxy.dataplane.pool`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.dataplane.proxy_status import Fault
from proxy.state.stats_page import Outcome
from proxy.wire.body import ChunkedBody, ChunkError
from proxy.wire.partial_head import HeadFault, PartialHead
from proxy.wire.response_head import ResponseHead, has_no_body, read_response_head
from proxy.wire.upstream_body import BODY_METHODS

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg
    from proxy.dataplane.member import Member

#: An answer's head may not be larger than this; nginx allows 4 to 8 KiB, Envoy 60 KiB.
MAX_HEAD_BYTES = 64 * 1024
#: More chunks than this in one read are handed on as one piece.
MAX_PIECES = 64


class UpstreamConnection:
    """One TCP connection to a backend, and what it has read of the answer.

    An `asyncio.Protocol` by its methods: it inherits nothing, so that it can be compiled.
    """

    __slots__ = (
        "_chunks", "_head", "_interim_bytes", "_is_paused", "_known_block", "_known_head", "_left",
        "_partial", "idle_since_s", "leg", "member", "transport",
    )  # fmt: skip

    def __init__(self, member: Member) -> None:
        self.leg: Leg | None = None
        #: The head of the answer under way, and what is left of its body: a length, chunks, or
        #: None and None until the connection closes.
        self._head: ResponseHead | None = None
        self._left: int | None = None
        self._chunks: ChunkedBody | None = None
        self.member = member
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made
        self._is_paused = False
        self._partial: PartialHead | None = None
        self._interim_bytes = 0
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
                assert self._head is not None
                if self._head.is_event_stream:
                    leg.note_arrival([body])
                leg.response_body(body)
            leg.flush()
            return
        if left:
            if leg.times is not None:
                leg.note_arrival([body])
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
            if not self._goes_on_after(head, len(block), leg, data):
                return None
        self._head = head
        if has_no_body(leg.exchange.head.method, head.status):
            self._left = 0
        else:
            self._left = head.length
            self._chunks = ChunkedBody() if head.is_chunked else None
        leg.response_head(head)
        return data

    def _goes_on_after(self, head: ResponseHead, size: int, leg: Leg, rest: bytes) -> bool:
        """Tell whether another head follows in `rest`: interim answers (RFC 9110 section 15.2) end here.

        A 101 is the final answer for a leg that has asked for it, and no answer for any other.
        """
        self._interim_bytes += size
        if head.status != 101 and self._interim_bytes <= MAX_HEAD_BYTES:
            return bool(rest)
        if head.status != 101 or not leg.switch(head, rest):
            self._break("malformed answer: 101 without Upgrade, or endless interim answers")
        return False

    def _add_to_head(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Keep a head that is not whole; return (head, what follows) once it is."""
        if self._partial is None:
            self._partial = PartialHead(MAX_HEAD_BYTES)
        found = self._partial.add(data)
        if isinstance(found, HeadFault):
            fault = Fault.HEAD_SIZE if found is HeadFault.TOO_LARGE else Fault.PROTOCOL_ERROR
            self._break(f"malformed answer: its head has or is {found.value}", fault)
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
                self._break(f"malformed answer: {exc}", Fault.CODING)
                return
        # An answer that is whole in the read of its first piece has no times worth a clock.
        if pieces and (rest is None or leg.times is not None):
            assert self._head is not None
            if chunks is not None or self._head.is_event_stream:
                leg.note_arrival(pieces)
        if len(pieces) > MAX_PIECES:  # nobody streams like this, and TCP keeps no boundary anyway
            leg.chunks += len(pieces) - 1
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
        """Fail the leg that was waiting, if any, and leave the idle ones."""
        self.member.forget(self)
        leg, self.leg = self.leg, None
        if leg is not None:
            has_heard = (
                self._head is not None or self._partial is not None or self._interim_bytes > 0
            )
            leg.is_stale = leg.is_reused and not has_heard
            fault = Fault.INCOMPLETE if has_heard else Fault.TERMINATED
            leg.fail(Outcome.RESET, f"connection lost: {exc or 'closed by the backend'}", fault)

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
            self.member.release(self)
        else:
            self.transport.close()
        leg.response_end()
        if self._is_paused:  # the last piece may have filled the client's buffer
            self.resume()

    def _break(self, reason: str, fault: Fault = Fault.PROTOCOL_ERROR) -> None:
        leg, self.leg = self.leg, None
        self.transport.abort()
        if leg is not None:
            leg.fail(Outcome.RESET, reason, fault)

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
