"""How long a client may take, and how many there may be.

Every connection is looked at once per second: it is asked where it is (`Stage`), and ended when it
has been there for too long without getting on. A request pays one attribute for it (`_has_read`),
not a timer; a deadline is late by at most two sweeps. A sweep is spread over its second, a few of
the connections at a time: all of a thousand at once would hold a user's request up for 2 ms, and fifty
of them, twenty times a second, were a tenth of users' p99 still. The first part after a standstill of
the loop is left out: what clients have sent meanwhile is read first.

Which stage a connection is in, and how it ends, is the connection's to know.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from proxy.config.resolved import Limits
from proxy.dataplane.standstill import Standstill
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


class Stage(Enum):
    """Where a client connection is."""

    NEW = "nothing was ever read"
    HEAD = "a head has begun"
    BODY = "a body is coming"
    SERVING = "the backend's turn: its own deadlines hold"
    IDLE = "between two requests"
    FLUSHING = "closing, with bytes that the client does not read"
    LINGERING = "closing, until the client has noticed"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a connection may stay in a stage, and how many connections a worker takes.

    Attributes:
        head_s: for a whole head, from its first byte or from the connection's beginning.
        body_idle_s: between two pieces of a body, or for all of one that the decision waits for.
        keep_alive_s: between two requests.
        flush_s: without a byte of the last answer taken; nginx gives 60 s.
        linger_s: for the client to close its side after ours; nginx's `lingering_timeout`.
        sweep_s: between two looks.
        max_connections: above it the connections that wait for nothing make room, else 503.
    """

    head_s: float
    body_idle_s: float
    keep_alive_s: float
    max_connections: int
    flush_s: float = 30.0
    linger_s: float = 5.0
    sweep_s: float = 1.0

    def allowed_s(self, stage: Stage) -> float:
        """Return how long a connection may be stuck in `stage`."""
        return {
            Stage.NEW: self.head_s,
            Stage.HEAD: self.head_s,
            Stage.BODY: self.body_idle_s,
            Stage.IDLE: self.keep_alive_s,
            Stage.FLUSHING: self.flush_s,
            Stage.LINGERING: self.linger_s,
        }.get(stage, float("inf"))


def deadlines_of(limits: Limits) -> Deadlines:
    """Return what the operator allows; short deadlines are looked at more often than each second."""
    shortest_s = min(limits.head_timeout_s, limits.body_timeout_s, limits.keep_alive_s)
    return Deadlines(
        head_s=limits.head_timeout_s,
        body_idle_s=limits.body_timeout_s,
        keep_alive_s=limits.keep_alive_s,
        max_connections=limits.connections,
        sweep_s=min(1.0, shortest_s / 4),
    )


#: Of the file descriptors, what clients may take; the rest is for backends, journal and pages.
_CLIENTS_SHARE: Final = 0.75
#: How many connections make room at once, as a share: so a flood costs few walks over all.
_ROOM_SHARE: Final = 1 / 16
#: How long nobody looks for room again after there was none.
_FULL_S: Final = 0.1
#: In how many parts a sweep is made at least, how many connections a part should have, and how long
#: a part lasts at least, however many there are.
_MIN_PARTS: Final = 20
_AT_ONCE: Final = 4
_PART_S: Final = 0.004


class Client(Protocol):
    """What the sweep asks of a connection."""

    def stage(self) -> tuple[Stage, object]:
        """Return the stage, with something that is equal as long as the connection is stuck."""

    def expire(self, stage: Stage) -> None:
        """End a connection that has been in `stage` for too long."""

    def exchange_under_way(self) -> Exchange | None:
        """Return what the connection waits for, if it waits for an answer."""

    def drop(self) -> None:
        """End at once, without a word."""

    def give_up(self) -> None:
        """Abort the request under way, if there is one, and close once what was written is sent."""


@dataclass(frozen=True, slots=True)
class ClientsStatistics:
    """A snapshot: connections by stage at the last sweep, and those ended by a deadline or a cap."""

    by_stage: dict[Stage, int]
    expired: int
    dropped: int
    refused: int


class Clients:
    """The open client connections of one worker, oldest first, and since when each is stuck.

    Attributes:
        deadlines: may be replaced at any time; the next sweep is when the old ones said.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._stuck: dict[Client, tuple[Stage, object, float]] = {}
        self._dropped: set[Client] = set()
        self._full_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._standstill = Standstill()
        #: Whom the sweep under way looks at, and which part of them is next.
        self._round: tuple[Client, ...] = ()
        self._part, self._parts = 0, _MIN_PARTS
        self._expired_count = self._dropped_count = self._refused_count = 0

    def statistics(self) -> ClientsStatistics:
        """Return a snapshot."""
        by_stage = Counter(stage for stage, _, _ in self._stuck.values())
        counts = self._expired_count, self._dropped_count, self._refused_count
        return ClientsStatistics(dict(by_stage), *counts)

    def ended(self) -> tuple[int, int, int]:
        """Return how many were ended by a deadline, dropped to make room, and refused, ever."""
        return self._expired_count, self._dropped_count, self._refused_count

    def opened(self, client: Client) -> bool:
        """Watch a new connection; False when there are too many and it must be refused."""
        now_s = monotonic_s()
        is_full = len(self._stuck) - len(self._dropped) >= self._limit()
        is_refused = is_full and not self._make_room(now_s)
        self._refused_count += is_refused
        self._stuck[client] = (Stage.NEW, None, now_s)
        if self._timer is None:
            self._arm()
        return not is_refused

    def closed(self, client: Client) -> None:
        """Forget a connection."""
        self._stuck.pop(client, None)
        self._dropped.discard(client)
        if not self._stuck and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def exchanges(self) -> list[Exchange]:
        """Return the exchange under way of every connection that has one."""
        found = (client.exchange_under_way() for client in self._stuck)
        return [exchange for exchange in found if exchange is not None]

    def give_up(self) -> None:
        """Abort every request that is still under way: the worker ends, and its books with it."""
        for client in tuple(self._stuck):
            client.give_up()

    def sweep(self, now_s: float) -> None:
        """Look at every connection at once.

        Args:
            now_s: monotonic seconds.
        """
        self._look(tuple(self._stuck), now_s)

    def _look(self, clients: Sequence[Client], now_s: float) -> None:
        """End those of `clients` that have been stuck for longer than they may."""
        for client in clients:
            seen = self._stuck.get(client)
            if seen is None:  # it has closed since the sweep began
                continue
            old_stage, old_mark, since_s = seen
            stage, mark = client.stage()
            if stage is not old_stage or mark != old_mark:
                self._stuck[client] = stage, mark, now_s
            elif now_s - since_s >= self.deadlines.allowed_s(stage):
                self._expired_count += 1
                client.expire(stage)

    def _limit(self) -> int:
        """Return how many connections there may be; the file descriptors may be fewer."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.deadlines.max_connections
        if files == resource.RLIM_INFINITY:
            return wanted
        return min(wanted, int(files * _CLIENTS_SHARE))

    def _make_room(self, now_s: float) -> bool:
        """Drop some connections that keep nobody waiting: unfinished heads first, then idle ones.

        nginx does the same when its `worker_connections` run out.
        """
        if now_s < self._full_until_s:
            return False
        self.sweep(now_s)
        stages = [(c, stage) for c, (stage, _, _) in self._stuck.items() if c not in self._dropped]
        spare = [c for c, stage in stages if stage in (Stage.NEW, Stage.HEAD)]
        spare += [c for c, stage in stages if stage is Stage.IDLE]
        del spare[max(1, int(len(stages) * _ROOM_SHARE)) :]
        for client in spare:
            self._dropped.add(client)
            client.drop()
        self._dropped_count += len(spare)
        if not spare:
            self._full_until_s = now_s + _FULL_S
        return bool(spare)

    def _arm(self) -> None:
        part_s = self.deadlines.sweep_s / self._parts
        self._standstill.due_s = monotonic_s() + part_s
        self._timer = asyncio.get_running_loop().call_later(part_s, self._tick)

    def _tick(self) -> None:
        """Look at the next part of the connections; after the last one begin anew."""
        if self._standstill.tick(monotonic_s(), 0.0):
            self._arm()
            return
        if self._part == 0:
            self._round = tuple(self._stuck)
            most = int(self.deadlines.sweep_s / _PART_S)
            self._parts = max(_MIN_PARTS, min(len(self._round) // _AT_ONCE, most))
        self._arm()
        self._look(self._round[self._part :: self._parts], monotonic_s())
        self._part = (self._part + 1) % self._parts
