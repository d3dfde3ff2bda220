"""One place where a backend answers: its idle connections, its calls under way, its standing."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Endpoint
from proxy.routing.standing import Standing
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.connection import UpstreamConnection
    from proxy.dataplane.leg import Leg

#: A connection idle for longer is looked at before it is used: the backend may have closed it, and
#: the loop not have heard of it. Under load none waits so long, so none pays for the look (2 us).
UNSURE_AFTER_S: Final = 0.1


class Member:
    """One address of one endpoint.

    Attributes:
        endpoint: as the config has it.
        addresses: where it is dialled, in this order; one unless its name stands for two families.
        in_flight: calls under way.
        waiting: those of them that have no connection yet, in the order in which they came, and
            whether an idle one would do.
        connecting: attempts to open a connection, under way.
        connected_s: when the last such attempt succeeded (monotonic).
        part: of the calls that it would get, how many it gets; see `Standing`.
        is_retired: its name no longer stands for it; it gets no more calls.
        is_checking, check_due_s: the active check under way, and when the next one is due.
    """

    __slots__ = (
        "_idle", "addresses", "check_due_s", "connected_s", "connecting", "endpoint", "in_flight",
        "is_checking", "is_retired", "part", "standing", "waiting",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, addresses: tuple[str, ...], standing: Standing) -> None:
        self.endpoint = endpoint
        self.addresses = addresses
        self.standing = standing
        self.in_flight = self.connecting = 0
        self.waiting: dict[Leg, bool] = {}
        self.part = 1.0
        self.is_retired = self.is_checking = False
        self.check_due_s = self.connected_s = 0.0
        self._idle: list[UpstreamConnection] = []

    @property
    def idle_count(self) -> int:
        """Idle connections."""
        return len(self._idle)

    def take(self, now_s: float) -> UpstreamConnection | None:
        """Return the newest idle connection that is still open, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.transport.is_closing():
                continue
            if now_s - connection.idle_since_s > UNSURE_AFTER_S and has_ended(connection):
                connection.transport.abort()
                continue
            return connection
        return None

    def first_waiting(self) -> Leg | None:
        """Return the leg that has waited longest for a connection, which now waits no more."""
        for leg in self.waiting:
            del self.waiting[leg]
            return leg
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can serve another leg, and give it to one that waits.

        An idle one is read, so that its end shows.
        """
        if self.is_retired:
            connection.transport.close()
            return
        connection.resume()
        if self.waiting and not connection.transport.is_closing():
            for leg, may_reuse in self.waiting.items():
                if may_reuse:
                    del self.waiting[leg]
                    leg.attach(connection, is_reused=True)
                    return
        connection.idle_since_s = monotonic_s()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that has closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def prune(self, oldest_s: float) -> None:
        """Close the connections that are idle since before `oldest_s`; oldest come first."""
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.pop(0).transport.close()

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()


def has_ended(connection: UpstreamConnection) -> bool:
    """Tell whether an idle connection has something to read: its end, or bytes that nobody asked for."""
    sock = connection.transport.get_extra_info("socket")
    descriptor = -1 if sock is None else sock.fileno()  # TLS that has ended has none
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
