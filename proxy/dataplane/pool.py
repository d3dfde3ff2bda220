"""Who gets which connection: the members of one backend, their standing, and the deadlines of legs.

A call goes to the member with the fewest calls under way, and takes its newest idle connection or a
new one. Where no member stands well, all are asked: a wrong judgement of ours must not be an outage
(Envoy's panic mode).

A leg says when it is to be looked at (`Leg.look_s`), and the worker's tick compares: one store per leg
instead of a timer, some microseconds per look, and nothing is kept of a leg that has ended. What may
take how long is `proxy.dataplane.patience`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proxy.config.resolved import FULL_BP, Backend, Endpoint
from proxy.config.tls_files import upstream_stamps
from proxy.dataplane.connection import UpstreamConnection
from proxy.dataplane.dial import Dialer, awake_for, is_name
from proxy.dataplane.health_check import has_passed
from proxy.dataplane.member import Member
from proxy.dataplane.patience import had_its_time, look_every_s
from proxy.dataplane.proxy_status import Fault, connect_fault
from proxy.routing.standing import Standing
from proxy.state.stats_page import HTTP_ERROR, OK, Outcome
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

Spawn = Callable[[Coroutine[Any, Any, None]], None]

#: The endpoint failed, not the model: the gateways and servers in front of it say so.
GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
#: Connections to one member that are opened at a time. A thousand users who come at once must not
#: overflow its queue of connections (many servers keep 128 or 511): Linux would drop their SYNs,
#: and send them again after a second, which is our deadline. Those over it wait for one of these,
#: or for a connection that has become idle.
MAX_DIALS: Final = 64
#: The answer that makes a call a tunnel.
SWITCHED: Final = 101

logger = logging.getLogger("understudy.backends")


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of one pool.

    Attributes:
        members, serving: places to ask, and those of them that get calls.
        opened, failed: connections opened, and attempts that failed, ever.
        reused: legs that found an idle connection, ever.
        retried: legs begun again on a new connection, ever.
        ejections: of members, ever.
    """

    in_flight: int
    idle: int
    connecting: int
    opened: int
    failed: int
    reused: int
    retried: int
    members: int
    serving: int
    ejections: int


class Pool:
    """The connections of one backend.

    Attributes:
        in_flight: legs under way.
        retried: legs begun again on a new connection, ever.
        is_retired: no config names it any more; it serves the exchanges that began with it.
    """

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop, spawn: Spawn) -> None:
        self.backend = backend
        self.in_flight = self.retried = 0
        self.is_retired = False
        self._stamps = upstream_stamps(backend)
        self._spawn = spawn
        self._dialer = Dialer(backend, loop)
        self._legs: set[Leg] = set()
        self._opened = self._failed = self._reused = self._turn = 0
        self._retired_ejections = 0
        self._names = [endpoint for endpoint in backend.endpoints if is_name(endpoint)]
        self._names_due_s = 0.0
        self._is_looking_up = False
        self._members = [self._member(endpoint) for endpoint in backend.endpoints]
        self._serving = list(self._members)
        self._look_after_s = look_every_s(backend)

    def statistics(self) -> PoolStatistics:
        """Return a snapshot."""
        return PoolStatistics(
            in_flight=self.in_flight,
            idle=sum(member.idle_count for member in self._members),
            connecting=sum(member.connecting for member in self._members),
            opened=self._opened,
            failed=self._failed,
            reused=self._reused,
            retried=self.retried,
            members=len(self._members),
            serving=sum(member.standing.is_serving for member in self._members),
            ejections=self._retired_ejections + sum(m.standing.ejections for m in self._members),
        )

    def is_serving(self, endpoint: Endpoint) -> bool:
        """Tell whether some member of an endpoint gets calls."""
        return any(m.standing.is_serving for m in self._members if m.endpoint == endpoint)

    def is_full(self) -> bool:
        """Tell whether one more leg would pass `max_in_flight`."""
        return self.in_flight >= self.backend.max_in_flight

    def legs(self) -> list[Leg]:
        """Return the legs under way."""
        return list(self._legs)

    def enter(self, leg: Leg, now_s: float, *, is_fresh: bool = False) -> None:
        """Count a leg in, watch its deadline, and give it a connection now or soon.

        Args:
            leg: about to begin.
            now_s: monotonic seconds.
            is_fresh: it must have a new connection, because an idle one has just failed it.
        """
        self.in_flight += 1
        leg.look_s = now_s + self._look_after_s
        self._legs.add(leg)
        serving = self._serving
        member = serving[0] if len(serving) == 1 else self._choose()
        leg.member = member
        member.in_flight += 1
        connection = None if is_fresh else member.take(now_s)
        if connection is not None:
            self._reused += 1
            leg.attach(connection, is_reused=True)
        else:
            member.waiting[leg] = not is_fresh
            self._dial(member)

    def leave(self, leg: Leg) -> None:
        """Count a leg out, and judge its member by it."""
        self.in_flight -= 1
        self._legs.discard(leg)
        member = leg.member
        assert member is not None
        member.in_flight -= 1
        if not leg.sent_s:
            member.waiting.pop(leg, None)
        if leg.status is OK or _is_plain_error(leg):
            if member.standing.failures:
                member.standing.failures = 0
        elif _is_failure(leg):
            self._call_failed(member)

    def expire(self, now_s: float) -> None:
        """Look at the legs that are due; one whose time is up ends."""
        for leg in [leg for leg in self._legs if leg.look_s <= now_s]:
            leg.look(now_s)

    def look(self, now_s: float) -> None:
        """Close what has idled too long, and let members return, be checked and be looked up."""
        oldest_s = now_s - self.backend.keepalive_s
        is_changed = False
        for member in self._members:
            member.prune(oldest_s)
            standing = member.standing
            was_serving = standing.is_serving
            standing.look(now_s)
            member.part = standing.part
            if standing.is_serving is not was_serving:
                logger.warning("backend %s: %s is back", self.backend.name, member.endpoint)
                is_changed = True
            if self.backend.health is not None and now_s >= member.check_due_s:
                self._begin_check(member, now_s)
        if is_changed:
            self._recount()
        if self._names and now_s >= self._names_due_s and not self._is_looking_up:
            self._is_looking_up = True
            self._names_due_s = now_s + self.backend.dns_refresh_s
            self._spawn(self._look_up())

    def still_fits(self, backend: Backend) -> bool:
        """Tell whether a pool of `backend` would be as this one, its certificates included."""
        return backend == self.backend and upstream_stamps(backend) == self._stamps

    def retire(self) -> None:
        """Keep no connection from now on; legs under way, and those of exchanges that wait, go on."""
        self.is_retired = True
        for member in self._members:
            member.is_retired = True
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        for member in self._members:
            member.close()

    # Members.

    def _member(self, endpoint: Endpoint, addresses: tuple[str, ...] = ()) -> Member:
        """Return a new member; without addresses it is dialled by its host's name."""
        standing = Standing(self.backend.ejection, self.backend.health)
        return Member(endpoint, addresses or (endpoint.host,), standing)

    def _choose(self) -> Member:
        """Return the member with the fewest calls for its part; equal ones take turns."""
        serving = self._serving
        count = len(serving)
        self._turn = turn = self._turn + 1
        best = serving[turn % count]
        least = (best.in_flight + 1) / best.part
        for number in range(1, count):
            member = serving[(turn + number) % count]
            load = (member.in_flight + 1) / member.part
            if load < least:
                best, least = member, load
        return best

    def _call_failed(self, member: Member) -> None:
        out = sum(not each.standing.is_serving for each in self._members) + 1
        may_eject = out * FULL_BP <= len(self._members) * self.backend.ejection.max_share_bp
        self._judge(member, lambda now_s: member.standing.call_failed(now_s, may_eject=may_eject))

    def _judge(self, member: Member, judge: Callable[[float], None]) -> None:
        """Let `judge` change a member's standing, and act on the change."""
        before = member.standing.state
        judge(monotonic_s())
        after = member.standing.state
        if after is not before:
            logger.warning("backend %s: %s: %s", self.backend.name, member.endpoint, after.value)
            member.part = member.standing.part
            self._recount()

    def _recount(self) -> None:
        self._serving = [m for m in self._members if m.standing.is_serving] or list(self._members)

    # Connections.

    def _dial(self, member: Member) -> None:
        """Open connections for those who wait; who waited and has ended leaves an attempt to others."""
        while member.connecting < min(len(member.waiting), MAX_DIALS):
            member.connecting += 1
            self._spawn(self._connect(member))

    async def _connect(self, member: Member) -> None:
        """Open a connection for the leg that has waited longest; without one, it idles."""
        connection, error, fault = None, "", Fault.REFUSED
        begun_s = monotonic_s()
        try:
            connection, error, fault = await self._open(member)
        finally:
            member.connecting -= 1
        if connection is None:
            self._connect_failed(member, begun_s, error, fault)
        else:
            member.connected_s = monotonic_s()
            self._give(member, connection)
        self._dial(member)

    def _give(self, member: Member, connection: UpstreamConnection) -> None:
        """Give a new connection, to `member` or in its place to another, to a leg that waits."""
        leg = member.first_waiting()
        if leg is None:
            connection.member.release(connection)
            return
        if connection.member is not member:
            member.in_flight -= 1
            connection.member.in_flight += 1
            leg.member = connection.member
        leg.attach(connection, is_reused=False)

    def _connect_failed(self, member: Member, begun_s: float, error: str, fault: Fault) -> None:
        """Fail the legs that waited for this attempt from its beginning, unless others get through.

        Then they wait on, within their deadlines: one lost packet in a crowd is no outage.
        """
        if member.connected_s > begun_s:
            return
        for leg in [leg for leg in member.waiting if leg.begun_s <= begun_s]:
            leg.fail(Outcome.CONNECT_ERROR, error, fault)

    async def _open(self, member: Member) -> tuple[UpstreamConnection | None, str, Fault]:
        """Return a connection to a member, or else to another one; None, and why there is none.

        Nothing was sent, so where a member cannot be reached the others can be asked.
        """
        error, fault, asked = "", Fault.REFUSED, member
        try:
            async with awake_for(self.backend.connect_timeout_s):
                for each in (member, *(m for m in tuple(self._serving) if m is not member)):
                    asked = each
                    try:
                        made = await self._dialer.open(each, lambda: UpstreamConnection(each))  # noqa: B023 - called before the next turn
                    except OSError as exc:
                        error = f"no connection to {each.endpoint}: {exc.strerror or exc}"
                        fault = connect_fault(exc)
                        self._failed += 1
                        self._call_failed(each)
                    else:
                        self._opened += 1
                        return made, "", fault
        except TimeoutError:
            error = f"no connection to {asked.endpoint} in {self.backend.connect_timeout_s:g} s"
            fault = Fault.CONNECT_TIMEOUT
            self._failed += 1
            self._call_failed(asked)
        return None, error, fault

    # Checks and names.

    def _begin_check(self, member: Member, now_s: float) -> None:
        health = self.backend.health
        assert health is not None
        member.check_due_s = now_s + health.interval_s
        if not member.is_checking:
            member.is_checking = True
            self._spawn(self._check(member))

    async def _check(self, member: Member) -> None:
        assert self.backend.health is not None
        try:
            passed = await has_passed(self._dialer, member, self.backend.health)
        finally:
            member.is_checking = False
        self._judge(member, lambda now_s: member.standing.check_ended(now_s, has_passed=passed))

    async def _look_up(self) -> None:
        """Look the names up; a name that is not found keeps the members that it had."""
        try:
            for endpoint in self._names:
                try:
                    found = await self._dialer.look_up(endpoint)
                except (OSError, TimeoutError) as exc:
                    logger.warning("backend %s: %s: %s", self.backend.name, endpoint, exc)
                else:
                    if not self.is_retired:
                        self._replace_members(endpoint, found)
        finally:
            self._is_looking_up = False

    def _replace_members(self, endpoint: Endpoint, found: list[tuple[str, ...]]) -> None:
        """Keep the members whose address is still there, add new ones, retire the others."""
        old = {m.addresses: m for m in self._members if m.endpoint == endpoint}
        if not found or list(old) == found:
            return
        kept = [m for m in self._members if m.endpoint != endpoint]
        fresh = [old.get(addresses) or self._member(endpoint, addresses) for addresses in found]
        self._members = [*kept, *fresh]
        for addresses, member in old.items():
            if addresses not in found:
                member.is_retired = True
                member.close()
                self._retired_ejections += member.standing.ejections
        self._recount()


def _is_plain_error(leg: Leg) -> bool:
    """Tell whether a leg was answered with an error that does not speak against its member."""
    head = leg.head
    return leg.status is HTTP_ERROR and head is not None and head.status not in GATEWAY_FAILURES


def _is_failure(leg: Leg) -> bool:
    """Tell whether a leg's end speaks against its member; a failed connect is counted there.

    What was closed while it idled does not, nor a tunnel's end, nor a deadline of a copy or a rescue
    that is shorter than what the backend is allowed. Copies count like users' calls: both are sent
    to the same place, and a reset says the same of it.
    """
    status, head = leg.status, leg.head
    if head is not None and head.status == SWITCHED:
        return False
    if status is Outcome.TIMEOUT:
        return had_its_time(leg)
    if status is Outcome.RESET:  # an answer too long for a copy is none for a user
        return not leg.is_stale and leg.fault is not Fault.BODY_SIZE
    return status is HTTP_ERROR
