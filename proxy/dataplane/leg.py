"""Legs: one upstream call of an exchange, and what becomes of its answer.

A `Leg` is driven by its connection and tells its exchange when it is over. A `ServingLeg` passes
the answer to the client as it arrives; a `ShadowLeg` (mirror, replicate) only keeps the start of
it for the record. Failures are values (`Outcome`): nothing raised by a candidate can reach a user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.answer import Answer
from proxy.dataplane.connection import UpstreamConnection
from proxy.dataplane.member import UNSURE_AFTER_S, Member
from proxy.dataplane.patience import Seen, look
from proxy.dataplane.pool import Pool
from proxy.dataplane.proxy_status import Fault
from proxy.dataplane.rescue import FIRST_FAULT_STATUS, WITHHELD_BYTES, could_rescue
from proxy.dataplane.writing import write_together
from proxy.state.stats_page import HTTP_ERROR, NOT_SENT, OK, Outcome
from proxy.telemetry import monotonic_s
from proxy.wire.response_head import STATUS_LINES, ResponseHead, has_no_body
from proxy.wire.upstream_head import CHUNKED_LINE, LAST_CHUNK, add_chunk

if TYPE_CHECKING:
    from proxy.dataplane.canary_guard import CanaryGuard
    from proxy.dataplane.copy_gate import CopyGate
    from proxy.dataplane.exchange import Exchange

#: From here on an answer is an error, whoever made it.
FIRST_ERROR_STATUS = 400
#: A client that held the answer back for more than this share of a call has used up its time.
HELD_SHARE = 0.5
NEVER_S = float("inf")


class Leg(Answer):
    """One upstream call.

    Attributes:
        role: `primary`, `replicate`, or a candidate's name.
        status: how it ended; `NOT_SENT` until it starts.
        begun_s, sent_s, first_s, end_s: monotonic times, 0.0 until they happen.
        is_stale: it met a pooled connection that the backend closed before any byte of an answer.
        member: where its pool has sent it.
        look_s: monotonic time at which `patience` looks at it; set by its pool first.
        until_s: monotonic time at which it must be over, whatever its backend is allowed.
        seen: what the last look saw; None before the first.
        fault: what went wrong, for the user; None where `status` says it.
        holds_client: the client waits, unread, until this leg is connected or has sent more.
        gate, turn: of a copy to a candidate: whom to tell how it ended, and when it was sent.
    """

    __slots__ = (
        "_connection", "_pieces", "begun_s", "end_s", "error", "fault", "first_s", "gate",
        "holds_client", "is_over", "is_request_sent", "is_reused", "is_stale", "look_s", "member",
        "pool", "role", "seen", "sent_s", "status", "turn", "until_s",
    )  # fmt: skip

    is_serving = False

    def __init__(self, exchange: Exchange, role: str, pool: Pool) -> None:
        super().__init__(exchange)
        self.role = role
        self.pool = pool
        self.status = NOT_SENT
        self.error: str | None = None
        self.fault: Fault | None = None
        self.seen: Seen | None = None
        self.begun_s = self.sent_s = self.first_s = self.end_s = self.look_s = 0.0
        self.until_s = NEVER_S
        self.is_over = False
        self.is_request_sent = False
        self.is_reused = False
        self.is_stale = False
        self.holds_client = False
        self.member: Member | None = None
        self.gate: CopyGate | None = None
        self.turn = 0
        self._connection: UpstreamConnection | None = None
        self._pieces: list[bytes] = []

    def start(
        self, pieces: list[bytes], now_s: float, *, is_whole: bool, is_fresh: bool = False
    ) -> None:
        """Send the head and what there is of the body, now or once connected.

        Args:
            pieces: the head, then body pieces, framed.
            now_s: monotonic seconds.
            is_whole: nothing more will come.
            is_fresh: on a new connection only.
        """
        self.begun_s = now_s
        self._pieces = pieces
        self.is_request_sent = is_whole
        self.pool.enter(self, now_s, is_fresh=is_fresh)

    def attach(self, connection: UpstreamConnection, *, is_reused: bool) -> None:
        """Take the connection and send what waits."""
        if not is_reused and connection.transport.is_closing():  # its end came before our turn
            self.fail(Outcome.RESET, "connection lost: closed by the backend at once")
            return
        self._connection = connection
        self.is_reused = is_reused
        connection.begin(self)
        self.sent_s = monotonic_s()
        held_client, self.holds_client = self.holds_client, False
        write_together(connection.transport, self._pieces)  # may call `pause_request`
        self._pieces = []
        if held_client and not self.holds_client:
            self.resume_request()

    def send(self, pieces: list[bytes], *, is_last: bool) -> None:
        """Send more of the request body, framed."""
        self.is_request_sent = is_last
        if self._connection is None:
            self._pieces.extend(pieces)
        elif pieces:
            self._connection.transport.writelines(pieces)

    def is_answered(self) -> bool:
        """Tell whether the backend answered whole, be it with an error: a latency worth counting."""
        return self.status is OK or self.status is HTTP_ERROR

    def has_connection(self) -> bool:
        """Tell whether the request is on its way."""
        return self._connection is not None

    def response_head(self, head: ResponseHead) -> None:
        """Keep the head of the answer."""
        self.head = head
        self.first_s = monotonic_s()

    def switch(self, head: ResponseHead, rest: bytes) -> bool:
        """Take the connection over after a 101; False: no other protocol was asked for."""
        return False

    def response_end(self) -> None:
        """The answer is whole."""
        assert self.head is not None
        is_error = self.head.status >= FIRST_ERROR_STATUS
        self._over(HTTP_ERROR if is_error else OK, None)

    def flush(self) -> None:
        """Act on what one read brought; a shadow has nothing to do."""

    def fail(self, outcome: Outcome, error: str, fault: Fault | None = None) -> None:
        """End the leg without a whole answer; its connection is not used again."""
        if not self.is_over:
            self.fault = fault
            self.drop_connection()
            self._over(outcome, error)

    def look(self, now_s: float) -> None:
        """End if the time is up; else say when to look again (`look_s`)."""
        look(self, now_s)

    def drop_connection(self) -> None:
        """Close the connection at once, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.leg is self:
            connection.abandon()

    def pause_request(self) -> None:
        """Stop reading the client; only the serving leg can hold a client back."""

    def resume_request(self) -> None:
        """Read the client again."""

    def is_awaited(self) -> bool:
        """Tell whether it is the backend's turn, and not our client's."""
        return True

    def is_held_up(self) -> bool:
        """Tell whether the backend does not read the request that it is sent."""
        return False

    def hindrance(self, now_s: float) -> str:
        """Return what the client has done too slowly for this call to end in time, or nothing."""
        del now_s
        return ""

    def _over(self, outcome: Outcome, error: str | None) -> None:
        self.is_over = True
        self.status = outcome
        self.error = error
        self.end_s = monotonic_s()
        self._connection = None
        self._pieces = []
        self.pool.leave(self)
        self.exchange.leg_over(self)


class ServingLeg(Leg):
    """The leg whose answer the user gets, as it arrives.

    Attributes:
        guard: of a candidate: whom to tell how it goes.
        guard_number: under which its guard has counted it as a bad call; 0: not so far.
        asked_s: since when its guard waits for the first byte (monotonic); 0.0: it does not.
        is_withheld: a canary answers with an error, which the user gets only if nobody rescues it.
    """

    __slots__ = (
        "_held_s", "_held_since_s", "_is_chunked", "_out", "asked_s", "client", "guard",
        "guard_number", "has_answered", "is_withheld",
    )  # fmt: skip

    is_serving = True

    def __init__(self, exchange: Exchange, role: str, pool: Pool) -> None:
        super().__init__(exchange, role, pool)
        self.client = exchange.client
        self._out: list[bytes] = []
        self.has_answered = self.is_withheld = False
        self._is_chunked = False
        self._held_s = self._held_since_s = self.asked_s = 0.0
        self.guard: CanaryGuard | None = None
        self.guard_number = 0

    def response_head(self, head: ResponseHead) -> None:
        """Rebuild the head for the client."""
        super().response_head(head)
        client, request = self.client, self.exchange.head
        framing = b""
        if head.length is not None:
            if head.status != 204:  # RFC 9110 section 8.6: no length in a 204
                framing = b"content-length: %d\r\n" % head.length
        elif not has_no_body(request.method, head.status):
            self._is_chunked = not request.is_http10
            framing = CHUNKED_LINE if self._is_chunked else b""
            if request.is_http10:
                client.keep_alive = False
        if not head.has_request_id:
            framing += b"x-request-id: %b\r\n" % self.exchange.request_id
        self._out.append(
            b"%b%b%b%b\r\n"
            % (STATUS_LINES[head.status], head.lines, framing, client.connection_line())
        )
        if head.status >= FIRST_FAULT_STATUS:
            self.is_withheld = could_rescue(self.exchange, self)

    def response_body(self, data: bytes) -> None:
        """Pass a piece on, and keep the start."""
        super().response_body(data)
        if self._is_chunked:
            add_chunk(self._out, data)
        else:
            self._out.append(data)
        if self.is_withheld and self.response_bytes > WITHHELD_BYTES:
            self.is_withheld = False

    def flush(self) -> None:
        """Write what one read brought in one call."""
        if self._out and not self.is_withheld:
            self.has_answered = True
            self.client.write(self._out)
            self._out = []

    def response_end(self) -> None:
        """Write the last chunk and end."""
        if self._is_chunked:
            self._out.append(LAST_CHUNK)
        self.flush()
        super().response_end()

    def release(self) -> None:
        """Pass on the error answer that was withheld, if it is whole: nobody answers in its place."""
        if self.is_withheld and self.is_answered() and not self.exchange.is_aborted:
            self.is_withheld = False
            self.flush()

    def pause_request(self) -> None:
        """Stop reading the client until the backend has read more."""
        self.holds_client = True
        self.client.pause_reading()

    def resume_request(self) -> None:
        """Read the client again."""
        self.holds_client = False
        self.client.resume_reading()

    def pause_response(self) -> None:
        """Stop reading the backend: the client reads slower than it sends."""
        if self._connection is not None:
            self._connection.pause()
            if not self._held_since_s:
                self._held_since_s = monotonic_s()
                if self.times is not None:
                    self.times.held()

    def resume_response(self) -> None:
        """Read the backend again."""
        if self._connection is not None:
            self._connection.resume()
            if self._held_since_s:
                self._held_s += monotonic_s() - self._held_since_s
                self._held_since_s = 0.0

    def look(self, now_s: float) -> None:
        """End if the time is up, or the guard says so; else say when to look again (`look_s`)."""
        guard = self.guard
        if guard is not None:
            guard.look(self, now_s)
        if not self.is_over:
            look(self, now_s)
            if guard is not None:
                self.look_s = min(self.look_s, guard.due_s(self))

    def may_be_stale(self) -> bool:
        """Tell whether the backend may have closed the connection for having been idle."""
        connection = self._connection
        return connection is not None and self.begun_s - connection.idle_since_s > UNSURE_AFTER_S

    def is_awaited(self) -> bool:
        """Tell whether it is the backend's turn: the client reads, and has sent its request."""
        return not self._held_since_s and (self.is_request_sent or self.holds_client)

    def is_held_up(self) -> bool:
        """Tell whether the backend does not read the request that it is sent."""
        return self.holds_client and self._connection is not None

    def hindrance(self, now_s: float) -> str:
        """Return what the client has done too slowly for this call to end in time, or nothing."""
        if not (self.is_request_sent or self.holds_client):
            return "the client sends too slowly"
        held_since_s = self._held_since_s
        held_s = self._held_s + (now_s - held_since_s if held_since_s else 0.0)
        if held_since_s or held_s > HELD_SHARE * (now_s - self.begun_s):
            return "the client reads too slowly"
        return ""

    def probe_client(self) -> None:
        """Send a client that may have left a byte of what follows anyway, if there is such a byte.

        A chunk's size may begin with zeros, that of the last chunk too (RFC 9112 section 7.1). So
        one zero changes nothing for a client that reads, and brings a reset from one that left.
        """
        if self._is_chunked and self.has_answered and not self.is_over:
            self.client.write([b"0"])

    def ends_by_close(self) -> bool:
        """Tell whether only the connection's end tells the client where the answer ends."""
        return self.head is not None and self.head.length is None and not self._is_chunked

    def take_over_client(self) -> None:
        """Read the client as this leg allows: the one that it replaces may have held it back."""
        if self._connection is None:
            self.holds_client = True
        elif not self.holds_client:
            self.client.resume_reading()
