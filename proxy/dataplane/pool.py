"""Who gets which connection: the pool of one backend, its idle connections and its deadlines.

A pool hands out idle connections, newest first, and opens new ones. A leg carries its own deadline
(`Leg.deadline_s`), and the worker's tick looks at all legs under way: one store per leg instead of
a timer, some microseconds per look, and nothing is kept of a leg that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.config.resolved import Address, Backend
from proxy.dataplane.connection import UpstreamConnection
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

Spawn = Callable[[Coroutine[Any, Any, None]], None]


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
        self._legs: set[Leg] = set()
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
        return list(self._legs)

    def enter(self, leg: Leg, now_s: float) -> None:
        """Count a leg in, watch its deadline, and give it a connection now or soon."""
        self.in_flight += 1
        leg.deadline_s = now_s + self.backend.timeout_s
        self._legs.add(leg)
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
        self._legs.discard(leg)

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
        """End the legs past their deadline."""
        for leg in [leg for leg in self._legs if leg.deadline_s <= now_s]:
            leg.fail(Outcome.TIMEOUT, f"no whole answer in {leg.deadline_s - leg.begun_s:g} s")

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
