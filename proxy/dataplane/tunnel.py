"""Tunnels: an `Upgrade` that the primary accepts, and the bytes that then flow both ways unread.

A request for a protocol that its route lists (`upgrades`) goes to the primary, whatever weights and
kills say; it is neither mirrored nor recorded. What the client sends behind the request waits until
the backend has answered. After a 101 it belongs to the tunnel; after anything else it is the next
request, and is checked like any other. A proxy that passes it on at once lets a backend that
refused the upgrade take it for a request that nobody has checked.

After the 101 the two transports have protocols that know nothing but each other, so an ordinary
request pays one look at `RequestHead.upgrade` for all of this.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.dataplane.exchange import Exchange
from proxy.dataplane.leg import Leg, ServingLeg
from proxy.dataplane.proxy_status import Fault
from proxy.dataplane.refusals import UPGRADE_WITH_BODY
from proxy.routing.decide import PRIMARY, Decision
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from proxy.wire.request_head import Refusal
from proxy.wire.response_head import STATUS_LINES, ResponseHead
from proxy.wire.trace_context import PRIMARY as PRIMARY_SPAN
from proxy.wire.upgrade import chosen_upgrade, is_chosen, upgrade_lines
from proxy.wire.upstream_body import whole_framing
from proxy.wire.upstream_head import leg_head

if TYPE_CHECKING:
    from proxy.dataplane.client import ClientConnection
    from proxy.dataplane.pool import Pool
    from proxy.dataplane.routes import RouteContext
    from proxy.wire.request_head import RequestHead

#: How long a backend may take for the last bytes of a tunnel that is over; `Deadlines.flush_s` is
#: what a client gets.
FLUSH_S: Final = 30.0
#: How long a tunnel may be idle of which one side has ended; HAProxy's documentation suggests 30 s
#: for its `timeout client-fin`.
HALF_CLOSED_S: Final = 30.0

_PRIMARY_ALONE: Final = Decision(
    serving=PRIMARY,
    mirrors=(),
    mirror_primary=False,
    replicate=False,
    assign_prob=1.0,
    sample_probs=(),
    pairs=(),
)


def open_exchange(
    client: ClientConnection, context: RouteContext, head: RequestHead
) -> Exchange | Refusal:
    """Return the exchange of a request with an `Upgrade`, or the refusal of one with a body.

    Protocols that the route does not list are left out; without one the request is an ordinary one
    (RFC 9110 section 7.8: a server may ignore the field). A body would have to be read before the
    protocol changes, which few backends get right, so with one it is refused.
    """
    head.upgrade = chosen_upgrade(head.upgrade, context.upgrades)
    if not head.upgrade:
        return Exchange(client, context, head)
    if head.length != 0:
        return UPGRADE_WITH_BODY
    return TunnelExchange(client, context, head)


class TunnelExchange(Exchange):
    """A request that asks to change the protocol: for the primary alone, and without a record."""

    __slots__ = ()

    def _decide(self) -> Decision:
        self.plan = self.context.plan
        self.keep_limit = 0
        self._drop_capture()
        self.decision = _PRIMARY_ALONE
        return _PRIMARY_ALONE

    def start_serving(self, number: int, *, is_fresh: bool = False) -> ServingLeg:
        """Send the request to the primary; the body follows once the protocol has changed."""
        role, pool = self.context.roles[number], self.context.pools[number]
        self.serving = leg = TunnelLeg(self, role, pool)
        self.legs[number] = leg
        self.live += 1
        trace = self.trace_line(PRIMARY_SPAN)
        lines = whole_framing(self.head.method, 0) + upgrade_lines(self.head.upgrade)
        head = leg_head(self.shared, trace, lines, mirror=False)
        leg.start([head], monotonic_s(), is_whole=True, is_fresh=is_fresh)
        return leg


class TunnelLeg(ServingLeg):
    """The call that asks for the other protocol, and the tunnel when it is granted.

    Until the answer the backend's deadlines hold; then the time to look at it moves with every byte, so
    that the pool ends a tunnel that is idle. A worker that stops ends it like any other leg.
    """

    __slots__ = ("_backend", "_client", "_idle_s")

    def __init__(self, exchange: Exchange, role: str, pool: Pool) -> None:
        super().__init__(exchange, role, pool)
        self._idle_s = exchange.worker.config.limits.tunnel_idle_s
        self._client: TunnelEnd | None = None
        self._backend: TunnelEnd | None = None

    def switch(self, head: ResponseHead, rest: bytes) -> bool:
        """Take both transports over after a 101; False where it grants what was not asked for.

        Args:
            head: the 101.
            rest: what the backend has sent behind it.
        """
        connection, exchange = self._connection, self.exchange
        if connection is None or not is_chosen(head.upgrade, exchange.head.upgrade):
            return False
        self._connection = connection.leg = None
        self.has_answered = True
        Leg.response_head(self, head)  # not the serving leg's, which would frame a body
        client = exchange.client
        self._client = to_client = TunnelEnd(self, client.transport)
        self._backend = to_backend = TunnelEnd(self, connection.transport)
        to_client.other, to_backend.other = to_backend, to_client
        exchange.worker.cells[exchange.context.cells.tunnels] += 1
        self.moved()
        connection.resume()
        connection.transport.set_protocol(to_backend)  # type: ignore[arg-type]  # by its methods
        waiting, has_ended = client.hand_over(to_client)
        to_client.write(self._granted(head) + rest)
        to_backend.write(waiting)
        if has_ended:
            to_client.eof_received()
        return True

    def _granted(self, head: ResponseHead) -> bytes:
        """Return the 101 for the client: the fields that change the protocol are written anew."""
        lines = head.lines + upgrade_lines(head.upgrade)
        if not head.has_request_id:
            lines += b"x-request-id: %b\r\n" % self.exchange.request_id
        return b"%b%b\r\n" % (STATUS_LINES[101], lines)

    def is_answered(self) -> bool:
        """Tell whether the answer has a latency worth counting; how long a tunnel lasts is none."""
        return self._client is None and super().is_answered()

    def ends_by_close(self) -> bool:
        """A tunnel has no length that a close could pretend to."""
        return False

    def moved(self) -> None:
        """Note that bytes have moved: the tunnel may be idle for its whole limit again."""
        self.look_s = monotonic_s() + self._idle_s

    def look(self, now_s: float) -> None:
        """End a tunnel that has been idle for its limit; before it is one, wait as for any answer."""
        if self._client is None:
            super().look(now_s)
        else:
            self.fail(Outcome.TIMEOUT, f"nothing came through the tunnel in {self._idle_s:g} s")

    def half_closed(self) -> None:
        """One side has sent its last byte: the other one may not be silent for long."""
        self._idle_s = min(self._idle_s, HALF_CLOSED_S)
        self.moved()

    def fail(self, outcome: Outcome, error: str, fault: Fault | None = None) -> None:
        """End the call, or the tunnel, because of a limit or a stop."""
        if self._client is None:
            super().fail(outcome, error, fault)
        else:
            self.end(outcome, error)

    def lost(self, end: TunnelEnd, exc: Exception | None) -> None:
        """One end has closed: end the tunnel, and tell the client's connection of its own end."""
        is_client = end is self._client
        if exc is None:
            self.end(Outcome.OK, None)
        else:
            self.end(Outcome.CANCELLED if is_client else Outcome.RESET, f"connection lost: {exc}")
        if is_client:
            self.exchange.client.connection_lost(exc)

    def end(self, outcome: Outcome, error: str | None) -> None:
        """End the tunnel; where it ended well, both sides get what was written to them first."""
        backend = self._backend
        if self.is_over or backend is None:
            return
        self.exchange.worker.cells[self.exchange.context.cells.tunnels] -= 1
        self._backend = None
        if outcome is Outcome.OK:
            backend.close()
        else:
            backend.transport.abort()
        self.exchange.client.keep_alive = False
        self._over(outcome, error)  # which closes the client's side


class TunnelEnd:
    """One end of a tunnel: what it reads goes to the other end, as fast as that one takes it.

    An `asyncio.Protocol` by its methods: it inherits nothing, so that it can be compiled. The
    transports' own limits (64 KiB, then reading pauses) bound what waits in between.

    Attributes:
        other: the other end; None once this one has closed, so that no cycle is left.
        has_ended: its peer has sent its last byte.
    """

    __slots__ = ("_leg", "has_ended", "other", "transport")

    def __init__(self, leg: TunnelLeg, transport: asyncio.Transport) -> None:
        self._leg = leg
        self.transport = transport
        self.other: TunnelEnd | None = None
        self.has_ended = False

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        other = self.other
        if other is not None:
            self._leg.moved()
            other.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; a tunnel both of whose sides have ended is over.

        TLS knows no half-closed connection here, so there the end of one side is the end.
        """
        other = self.other
        self.has_ended = True
        if other is not None and not other.transport.is_closing():
            if other.has_ended or not other.transport.can_write_eof():
                self._leg.end(Outcome.OK, None)
            else:
                other.transport.write_eof()
                self._leg.half_closed()
        return self.transport.can_write_eof()

    def pause_writing(self) -> None:
        """This end's peer reads slowly: stop reading the other one."""
        other = self.other
        if other is not None and not other.has_ended:
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This end's peer has caught up."""
        other = self.other
        if other is not None and not other.has_ended:
            self._leg.moved()
            other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This end is closed, and with it the tunnel."""
        self.other = None
        self._leg.lost(self, exc)

    # What the leg and the other end call.

    def write(self, data: bytes) -> None:
        """Write to this end's peer."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Close once the peer has taken what was written, or has not for `FLUSH_S` seconds."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(FLUSH_S, self.transport.abort)
