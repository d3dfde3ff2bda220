"""Whether a client that we do not read is still there.

TCP does not tell a client that has only stopped sending from one that has left, and while we hold a
client back we see neither. So one that has sent its end is probed, once: with an interim 100, which
RFC 9110 section 15.2 makes every client skip, or in the middle of a chunked answer with the first
digit of what follows anyway (`ServingLeg.probe_client`). From a client that has left a probe brings
back a reset, and its legs are released. A client of HTTP/1.0, or one in the middle of an answer of
declared length, can only be told by the next piece of its answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.dataplane.answering import Answering
    from proxy.dataplane.exchange import Exchange

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: How long a half-closed client may wait before it is asked whether it is still there.
PROBE_AFTER_S: Final = 0.05
#: How often a half-closed client that waits is looked at for a reset.
LOOK_EVERY_S: Final = 0.02

#: Linux says of a socket that its peer has sent its end, also while that is not read.
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_CLOSE_WAIT: Final = 8
#: struct linger: on, for 0 s.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def watch(client: Answering, exchange: Exchange) -> None:
    """Ask the client in a while, if it is then still waiting for this exchange's answer."""
    asyncio.get_running_loop().call_later(PROBE_AFTER_S, _probe, client, exchange)


def look_at_unread(client: Answering) -> None:
    """Look for a reset or an end that is not read, because the client is held back."""
    exchange = client.unread_exchange()
    if exchange is None:
        return
    if _is_reset(client):
        client.transport.abort()
    elif not exchange.is_probed and _has_sent_end(client):
        _probe(client, exchange)


def set_reset_on_close(transport: asyncio.Transport) -> None:
    """Make the connection end with a reset, which no client takes for the end of an answer."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _probe(client: Answering, exchange: Exchange) -> None:
    if not client.is_waiting(exchange) or exchange.is_probed:
        return
    exchange.is_probed = True
    if not exchange.has_answered:
        if not exchange.head.is_http10:
            client.transport.write(CONTINUE)
    elif exchange.serving is not None:
        exchange.serving.probe_client()
    _look_for_reset(client, exchange)


def _look_for_reset(client: Answering, exchange: Exchange) -> None:
    """Abort on a reset: the loop does not read this socket, so it shows only when asked for."""
    if client.is_waiting(exchange):
        if _is_reset(client):
            client.transport.abort()
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_EVERY_S, _look_for_reset, client, exchange)


def _is_reset(client: Answering) -> bool:
    sock = client.transport.get_extra_info("socket")
    if sock is None:  # TLS that has ended; the client's connection is about to be told
        return False
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _has_sent_end(client: Answering) -> bool:
    sock = client.transport.get_extra_info("socket")
    if _TCP_INFO is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    state: int = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
    return state == _CLOSE_WAIT
