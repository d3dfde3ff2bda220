"""Whether a half-closed client is still there.

TCP does not tell a client that has only stopped sending from one that has left. So one that is
still waiting after `PROBE_AFTER_S` is sent an interim 100, which RFC 9110 section 15.2 makes every
client skip: from one that has left it brings back a reset, and its legs are released.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.dataplane.client import ClientConnection
    from proxy.dataplane.exchange import Exchange

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: How long a half-closed client may wait before it is asked whether it is still there.
PROBE_AFTER_S: Final = 0.05
#: How often a half-closed client that waits is looked at for a reset.
LOOK_EVERY_S: Final = 0.02


def watch(client: ClientConnection, exchange: Exchange) -> None:
    """Ask the client in a while, if it is then still waiting for this exchange's answer."""
    asyncio.get_running_loop().call_later(PROBE_AFTER_S, _probe, client, exchange)


def _probe(client: ClientConnection, exchange: Exchange) -> None:
    if client.is_waiting(exchange) and not exchange.head.is_http10:
        client.transport.write(CONTINUE)
        _look_for_reset(client, exchange)


def _look_for_reset(client: ClientConnection, exchange: Exchange) -> None:
    """Abort on a reset: the loop no longer reads this socket, so it shows only when asked for."""
    if client.is_waiting(exchange):
        sock = client.transport.get_extra_info("socket")
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            client.transport.abort()
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_EVERY_S, _look_for_reset, client, exchange)
