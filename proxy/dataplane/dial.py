"""How connections to backends are opened: addresses, names, TLS, Unix sockets.

TLS is verified by default, offers HTTP/1.1 alone (ALPN), and its handshake is part of the time that
a connection may take. Nothing here decides where a call goes: that is the pool's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proxy.config.resolved import Backend, Endpoint
from proxy.config.tls_files import client_context
from proxy.dataplane.standstill import STALL_S

if TYPE_CHECKING:
    from proxy.dataplane.member import Member

_Protocol = TypeVar("_Protocol")

#: A name server that does not answer must not keep a look-up for ever; resolv.conf(5) gives 5 s.
LOOK_UP_S = 5.0
#: After a standstill of our loop, the time to read what has come during it.
GRACE_S: Final = 0.05


class Dialer:
    """Opens the connections of one backend.

    Raises:
        TlsFileError: the files of its TLS settings cannot be used.
    """

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._server_name = backend.tls.server_name
        speaks_tls = any(endpoint.is_tls for endpoint in backend.endpoints)
        self._tls = client_context(backend.tls) if speaks_tls else None

    async def open(self, member: Member, make: Callable[[], _Protocol]) -> _Protocol:
        """Open a connection to a member of the backend and return its protocol.

        The caller bounds the time. A cancelled call leaves nothing open.

        Raises:
            OSError: nobody listens there, or the certificate is not to be trusted.
        """
        endpoint = member.endpoint
        if endpoint.socket_path:
            _, made = await self._loop.create_unix_connection(make, endpoint.socket_path)  # type: ignore[type-var]  # by methods
            return made
        tls: dict[str, Any] = {}
        if endpoint.is_tls:
            tls = {"ssl": self._tls, "server_hostname": self._server_name or endpoint.host}
        last = len(member.addresses) - 1
        for number, address in enumerate(member.addresses):
            try:
                _, made = await self._loop.create_connection(make, address, endpoint.port, **tls)  # type: ignore[type-var]  # by methods
            except OSError:
                if number == last:
                    raise
            else:
                return made
        raise OSError("no address")

    async def look_up(self, endpoint: Endpoint) -> list[tuple[str, ...]]:
        """Return the members that a host name stands for now, each by its addresses.

        Each IPv4 address is a member; where there is none, each IPv6 address is. One that has both
        gets an IPv6 address as a second choice, for servers on `localhost` that listen on ::1 alone:
        the lowest, because a member is known by its addresses, and name servers change their order.

        Raises:
            OSError: the name is not known.
            TimeoutError: no answer in `LOOK_UP_S`.
        """
        async with awake_for(LOOK_UP_S):
            found = await self._loop.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )
        by_family: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
        for family, _, _, _, where in found:
            addresses = by_family.get(family, [])
            if where[0] not in addresses:
                addresses.append(str(where[0]))
        four, six = by_family[socket.AF_INET], by_family[socket.AF_INET6]
        if not four:
            return [(address,) for address in six]
        return [(address, *sorted(six)[:1]) for address in four]


@asynccontextmanager
async def awake_for(seconds: float) -> AsyncIterator[None]:
    """Bound a time as `asyncio.timeout` does, but not by what our loop slept through.

    A loop that has stood still finds its timers before its sockets. A connection that was made, or an
    answer that came, meanwhile would be given up for being late, and the backend be blamed for it.

    Raises:
        TimeoutError: the time is up, and after a standstill `GRACE_S` more.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def be_due() -> None:
            now_s = loop.time()
            has_stalled = now_s > due_s + STALL_S
            limit.reschedule(now_s + GRACE_S if has_stalled else now_s)

        timer = loop.call_at(due_s, be_due)
        try:
            yield
        finally:
            timer.cancel()


def is_name(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint's host must be looked up."""
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        return not endpoint.socket_path
    return False
