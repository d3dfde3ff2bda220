"""The listening sockets: bound once by the launcher, inherited by everyone else.

They live as long as the launcher, so a worker or control that is being replaced loses no
connection: the kernel queues it for the successor.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from proxy.config.resolved import Address
from proxy.errors import UnderstudyError
from proxy.telemetry import monotonic_s

#: Connections the kernel queues while workers are busy or being replaced; nginx's 511 and
#: uvicorn's 2048 are the precedents.
BACKLOG = 2048
_RETRY_S = 0.05


class LaunchError(UnderstudyError):
    """Understudy cannot start; says what stands in the way and how to mend it."""


def listen(address: Address, key: str, *, patience_s: float = 0.0) -> socket.socket:
    """Return a non-blocking socket that listens on `address`.

    Args:
        address: port 0 takes a free one.
        key: the config key it came from, for the error.
        patience_s: how long to wait for a port that is taken: above 0 only when the processes of
            a launcher that died may still be finishing their requests.

    Raises:
        LaunchError: the address cannot be bound.
    """
    deadline_s = monotonic_s() + patience_s
    while True:
        try:
            return _bind(address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or monotonic_s() >= deadline_s:
                raise LaunchError(_explain(address, key, exc)) from exc
        time.sleep(_RETRY_S)


def bound_address(listener: socket.socket) -> Address:
    """Return where a socket really listens."""
    host, port = listener.getsockname()[:2]
    return Address(host, port)


def _bind(address: Address) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        os.set_blocking(listener.fileno(), False)
    except OSError:
        listener.close()
        raise
    return listener


def _explain(address: Address, key: str, exc: OSError) -> str:
    what = f"cannot listen on {address} (`{key}` in the config)"
    if isinstance(exc, socket.gaierror):
        return f"{what}: no such host: {exc.strerror}"
    mend = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.EACCES: "ports below 1024 need a privilege; choose a higher one",
    }
    return f"{what}: {mend.get(exc.errno or 0, exc.strerror or str(exc))}"
