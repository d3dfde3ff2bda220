"""Accepting connections so that they spread over the workers, which share one listening socket.

The kernel wakes every worker that listens, and whoever comes first takes the connection: of 40 that came
at once to two idle workers, one took 34 to 40. Connections are kept alive, so it would serve them alone
for hours. Here a worker that is ahead of the others (`proxy.routing.shares`) leaves them the next ones:

    accepting ──ahead──► leaving ──queue empty──► watching ──a connection comes──┐
        ▲                   │ ▲                       │                          │
        │     not taken in  │ └───────still ahead─────┴──────────────────────────┤
        └──── `PATIENCE_S` ─┴────────────────not ahead any more──────────────────┘

*Accepting* is uvloop's own server, with a look at the others' loads for each connection; accepting in
Python costs 28 us more for each (45 of an empty server's), changing to and fro once 17 us, and that is
not more often than each `PATIENCE_S`. A server that is closed keeps the listening socket open, since it
has a descriptor of its own, and the connections that it has made.

Nobody is relied on: what others have not taken in `PATIENCE_S` is accepted, and a worker that has not
moved meanwhile is not waited for again until it gives a sign of life. So one that is dead or hung delays
one connection by `PATIENCE_S`, and then no more. One that is alive, and that a busy machine did not run for
so long, misses what comes until its next beat; later ones make up for it.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from proxy.routing.shares import is_level, part_of

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker
    from proxy.state.shares_page import SharesPage

#: How long a connection is left to others. Timers of libuv count whole milliseconds of a clock that is
#: read once per turn: this is one at least, and two mostly.
PATIENCE_S: Final = 0.002
#: How often in a row, as long as others do take some.
MAX_TURNS: Final = 2
#: A worker that is found ahead while it accepts may have so many more: others who are about to be woken
#: for the same connections have not counted theirs yet. Whoever is still ahead at a beat leaves the next.
AHEAD: Final = 1
#: It may be ahead, too, by what it has closed since the last beat over this. Where connections come and
#: go, who has more of them is chance, and to wait for each other cost 20 us for each (of 110).
CHURN: Final = 4
#: How often a worker tells its load when no connection comes. Also when it tries again what failed.
BEAT_S: Final = 0.05
#: tcpi_unacked of struct tcp_info (linux/tcp.h): of a listening socket, the connections in its queue.
_QUEUED_AT: Final = 24
_QUEUED_END: Final = 28

logger = logging.getLogger("understudy.worker")

Factory = Callable[[], asyncio.BaseProtocol]
Make = Callable[[Factory, socket.socket], Coroutine[Any, Any, asyncio.AbstractServer]]


class SharedServer:
    """Accepts a worker's part of the connections; what uvicorn needs of an `asyncio.AbstractServer`.

    It inherits nothing, so that it can be compiled.
    """

    __slots__ = (
        "_accepted_cell", "_ahead", "_allowance", "_beat_timer", "_counted", "_created", "_factory", "_is_watching",
        "_left_at", "_listener", "_loop", "_make", "_open", "_open_cell", "_poll", "_server", "_settled", "_shares",
        "_silent", "_timer", "_turns", "_worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, shares: SharesPage, loop: asyncio.AbstractEventLoop) -> None:
        """Make one that does not listen yet."""
        self._worker, self._shares, self._loop = worker, shares, loop
        layout = worker.stats.layout
        self._open_cell = layout.index("connections_open")
        self._accepted_cell = layout.index("connections")
        self._listener: socket.socket = None  # type: ignore[assignment]  # serve
        self._make: Make = None  # type: ignore[assignment]  # serve
        self._factory: Factory = None  # type: ignore[assignment]  # serve
        self._poll = select.poll()
        #: What accepts now; None: others are to.
        self._server: asyncio.AbstractServer | None = None
        #: Connections created here, and how many of them have never got as far as to be counted as open.
        self._created = self._settled = 0
        #: Connections counted and open at the last beat, and by how many to be ahead is chance.
        self._counted = self._open = self._ahead = 0
        #: How many more to accept before others are looked at again.
        self._allowance = 0
        self._is_watching = False
        #: How many turns in a row connections were left to others, and what these had accepted before.
        self._turns = 0
        self._left_at: list[int] = []
        #: Workers that took nothing of what was left to them, and the signs of life they had given.
        self._silent: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._beat_timer: asyncio.TimerHandle | None = None

    def serve(self, listener: socket.socket, make: Make, factory: Factory) -> SharedServer:
        """Begin to accept.

        Args:
            listener: bound, and shared with the other workers; stays the caller's.
            make: makes a server that accepts from a socket, which it takes over; it awaits nothing.
            factory: makes the protocol of each connection.
        """
        self._listener, self._make, self._factory = listener, make, factory
        self._poll.register(listener, select.POLLIN)
        self._counted = self._worker.cells[self._accepted_cell]
        self._beat()
        self._accept()
        return self

    def close(self) -> None:
        """Stop accepting; connections that are open stay."""
        self._shares.leave()
        for timer in (self._timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._beat_timer = None
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_reader(self._listener.fileno())
        self._end_server()

    async def wait_closed(self) -> None:
        """Return: uvicorn has waited for the connections, and uvloop's servers do the same."""

    # Accepting.

    def _accept(self) -> None:
        """Accept until this worker is ahead."""
        self._turns = 0
        try:
            self._server = _result(self._make(self._protocol, self._listener.dup()))
        except OSError as exc:  # no descriptor is left: it is tried again
            logger.error("cannot accept connections: %s", exc.strerror)  # noqa: TRY400 - no traceback for it
            self._timer = self._loop.call_later(BEAT_S, self._waited)

    def _protocol(self) -> asyncio.BaseProtocol:
        """Make the protocol of a connection that was just accepted, and look whether to go on."""
        self._created += 1
        self._shares.count_accepted()
        load = self._load()
        if load > self._ahead:  # else it is ahead of nobody by more than chance
            self._shares.publish(load)
            self._look_around(load)
        return self._factory()

    def _look_around(self, load: int) -> None:
        """Find out whether to accept the next connection, too."""
        if self._allowance > 0:
            self._allowance -= 1
            return
        others = self._others()
        if is_level(load, others, self._ahead + AHEAD):
            return
        self._allowance = part_of(self._queued(), load, others)
        if self._allowance == 0:
            self._loop.call_soon(self._leave)  # not from within the server's own callback

    def _leave(self) -> None:
        """Leave what comes to others for now."""
        if self._server is not None:
            self._end_server()
            self._wait()

    def _wait(self) -> None:
        """Give others the time to take what waits."""
        self._left_at = [self._shares.accepted(peer) for peer in self._shares.peers]
        self._timer = self._loop.call_later(PATIENCE_S, self._waited)

    def _waited(self) -> None:
        """Accept what others did not, or what comes next if this worker is not ahead any more."""
        self._timer = None
        self._turns += 1
        load = self._publish()
        if not self._poll.poll(0):
            self._turns = 0
            if is_level(load, self._others(), self._ahead):
                self._accept()
            else:
                self._watch()
            return
        self._note_silence(load)
        # The socket was readable, also where its queue cannot be seen.
        waiting = max(1, self._queued())
        part = part_of(waiting, load, self._others())
        if part or self._turns >= MAX_TURNS:
            self._allowance = part or waiting
            self._accept()
        else:
            self._wait()

    def _watch(self) -> None:
        """Wait for the next connection without taking it."""
        self._is_watching = True
        self._loop.add_reader(self._listener.fileno(), self._has_come)

    def _has_come(self) -> None:
        """Take a connection that has come if this worker is not ahead any more, or leave it to others."""
        self._is_watching = False
        self._loop.remove_reader(self._listener.fileno())
        if is_level(self._publish(), self._others(), self._ahead):
            self._accept()
        else:
            self._wait()

    def _end_server(self) -> None:
        """Close the server that accepts, if there is one; its connections stay."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    # Loads.

    def _beat(self) -> None:
        """Tell the others how it stands; leave them the next connections if this worker is ahead."""
        self._beat_timer = self._loop.call_later(BEAT_S, self._beat)
        cells = self._worker.cells
        counted, is_open = cells[self._accepted_cell], cells[self._open_cell]
        closed = counted - self._counted - (is_open - self._open)
        self._counted, self._open, self._ahead = counted, is_open, max(0, closed) // CHURN
        # Handshakes of TLS that have failed are never heard of again; those that last come back as open.
        self._settled = self._created - counted
        self._shares.beat()
        self._allowance = 0
        load = self._publish()
        if self._server is not None and not is_level(load, self._others(), self._ahead):
            self._end_server()
            self._watch()

    def _load(self) -> int:
        """Return how many connections are open, those included that are being set up."""
        cells = self._worker.cells
        young = self._created - cells[self._accepted_cell] - self._settled
        return cells[self._open_cell] + (young if young > 0 else 0)

    def _publish(self) -> int:
        """Return the load; tell the others."""
        load = self._load()
        self._shares.publish(load)
        return load

    def _others(self) -> list[int]:
        """Return the loads of the workers that can be expected to accept connections."""
        shares, loads = self._shares, []
        for peer in shares.peers:
            load = shares.load(peer)
            if load < 0:
                continue
            if self._silent and peer in self._silent:
                if shares.signs(peer) == self._silent[peer]:
                    continue
                del self._silent[peer]
            loads.append(load)
        return loads

    def _note_silence(self, load: int) -> None:
        """Expect nothing more of those with a lower load who took nothing of what was left to them."""
        shares = self._shares
        for peer, accepted in zip(shares.peers, self._left_at, strict=True):
            if shares.accepted(peer) == accepted and 0 <= shares.load(peer) < load:
                self._silent[peer] = shares.signs(peer)

    def _queued(self) -> int:
        """Return how many connections wait in the queue; 1 where that cannot be seen."""
        try:
            found = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED_END)
        except OSError:
            return 1
        return int.from_bytes(found[_QUEUED_AT:], sys.byteorder)


def _result(
    work: Coroutine[Any, Any, asyncio.AbstractServer],
) -> asyncio.AbstractServer:
    """Return the result of a coroutine that awaits nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        server: asyncio.AbstractServer = end.value
        return server
    work.close()
    raise RuntimeError("to listen on a socket that is bound awaits nothing")
