"""More clients than a worker can serve, and backends that cost next to nothing.

Clients, backends and the test share one process, and the worker is to be the slowest of all: so these are
bare protocols, some 20 us a request, where streams and tasks would take ten times as long.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from tests.support.dataplane import until

_BODY = b'{"inputs": [{"name": "x", "data": [7]}]}'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
    _BODY
)
_REQUEST = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\nx-user-id: u7\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class _Peer(asyncio.Protocol, ABC):
    """One end of a connection whose messages all end with the same body."""

    def __init__(self) -> None:
        self._received = b""
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; a cast, because uvloop's do not inherit from asyncio's."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Act on a whole message."""
        self._received += data
        if self._received.endswith(_BODY):
            message, self._received = self._received, b""
            self.take(message)

    @abstractmethod
    def take(self, message: bytes) -> None:
        """Act on a whole message."""


class _Backend(_Peer):
    def take(self, message: bytes) -> None:
        """Answer with the body that the request had."""
        self.transport.write(_HEAD + _BODY)


@asynccontextmanager
async def quick_backend() -> AsyncIterator[int]:
    """Serve as quickly as can be; yield the port."""
    server = await asyncio.get_running_loop().create_server(_Backend, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Rush:
    """Clients, each with one connection and one request under way until it is over.

    Attributes:
        asked, right: requests, and answers that are 200 with the right body.
    """

    def __init__(self) -> None:
        self.asked = self.right = 0
        self._is_over = False
        self._clients: list[_Client] = []

    def ask(self, client: _Client) -> None:
        """Send the next request of a client, unless it is over."""
        if not self._is_over:
            self.asked += 1
            client.transport.write(_REQUEST)

    async def come(self, address: str, count: int) -> None:
        """Open `count` connections and begin to ask."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, client = await loop.create_connection(lambda: _Client(self), host, int(port))
            self._clients.append(client)
        for client in self._clients:
            self.ask(client)

    async def go(self) -> None:
        """Ask no more, wait for the answers that are under way, and close the connections."""
        self._is_over = True
        await until(lambda: self.right == self.asked, "the last answers")
        for client in self._clients:
            client.transport.close()


class _Client(_Peer):
    def __init__(self, rush: Rush) -> None:
        super().__init__()
        self._rush = rush

    def take(self, message: bytes) -> None:
        """Count a right answer; ask again."""
        self._rush.right += message.startswith(b"HTTP/1.1 200 ")
        self._rush.ask(self)
