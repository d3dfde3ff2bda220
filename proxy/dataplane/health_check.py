"""Active health checks: `GET path` on a connection of its own; what counts is the status.

Each worker checks for itself, as each forwards for itself: no process has to be alive for another
to know which endpoints answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Address, HealthCheck
from proxy.dataplane.dial import awake_for
from proxy.wire.response_head import read_response_head

if TYPE_CHECKING:
    from proxy.dataplane.dial import Dialer
    from proxy.dataplane.member import Member

#: An answer's head that is larger is no answer to a health check.
_MAX_HEAD_BYTES: Final = 16 * 1024
_FIRST_FAILING_STATUS: Final = 400


async def has_passed(dialer: Dialer, member: Member, health: HealthCheck) -> bool:
    """Ask once; True for an answer from 200 to 399 within the time."""
    endpoint = member.endpoint
    host = str(Address(endpoint.host, endpoint.port)) if endpoint.host else "localhost"
    request = (
        f"GET {health.path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: understudy-health\r\n"
        "accept: */*\r\nconnection: close\r\n\r\n"
    ).encode()
    check: _Check | None = None
    try:
        async with awake_for(health.timeout_s):
            check = await dialer.open(member, lambda: _Check(request))
            status = await check.status
    except (OSError, TimeoutError):
        return False
    finally:
        if check is not None:
            check.close()
    return 200 <= status < _FIRST_FAILING_STATUS


class _Check(asyncio.Protocol):
    """One check; `status` becomes the answer's status, 0 for what is no answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._read = b""
        self._transport: asyncio.WriteTransport | None = None
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's inherit from nothing
        self._transport.write(self._request)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """Read the head; interim answers are passed over."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = read_response_head(self._read[:end])
            if isinstance(head, str):
                self._tell(0)
                return
            if head.status >= 200:
                self._tell(head.status)
                return
            self._read = self._read[end + 4 :]
        if len(self._read) > _MAX_HEAD_BYTES:
            self._tell(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """An end before the answer is no answer."""
        self._tell(0)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _tell(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)
