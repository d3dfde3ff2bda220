"""Who is at the other end of a client connection, and what it has sent, as its socket says."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios


def peer_of(transport: asyncio.Transport) -> tuple[bytes, bytes]:
    """Return (address, scheme); an IPv4 address that IPv6 carries is the IPv4 address."""
    peer = transport.get_extra_info("peername")
    host = str(peer[0]) if isinstance(peer, tuple) else "unknown"
    if host.startswith("::ffff:") and "." in host:
        host = host[len("::ffff:") :]
    scheme = b"https" if transport.get_extra_info("sslcontext") else b"http"
    return host.partition("%")[0].encode(), scheme  # without the zone, which is ours alone


def has_unread(transport: asyncio.Transport) -> bool:
    """Tell whether something waits in the socket that the loop has not read."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    waiting = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder) > 0
