"""Slowloris: many sockets that send the head of a request, about a line a second, and never end it.

A socket that the server closes is opened again, so that their number stays. Every second it prints
how many are open, how many were closed so far, and how many lines it has sent in that second.

What the crowd itself costs is processor time that the others on this machine lack, and none of it
is the proxy's. So there is no event loop: a clock, a socket at a time, two system calls.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

from proxy.telemetry import monotonic_s

_LINE = b"X-Slow: and slower\r\n"
_LINE_S = 1.0
_TOLD_S = 1.0
#: The crowd takes what others leave.
_NICE = 19
_RETRY_S = 0.2


class Crowd:
    """All sockets; they take turns.

    Slow clients are many, not a choir: lines that come together are a burst that none of them makes.
    (Ten at a time, each 10 ms, were felt: a tenth of p99.) Nor do they keep a common beat, which
    would meet the users' own: the gaps between lines are those of a Poisson process.
    """

    def __init__(self, port: int, path: str, sockets: int) -> None:
        self.closed = self.lines = 0
        self._address = ("127.0.0.1", port)
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
        self._open = deque(self._join() for _ in range(sockets))

    def send_line(self) -> None:
        """Send a line on the socket whose turn it is, or open one in place of it."""
        slow = self._open.popleft()
        if _has_sent(slow):
            self.lines += 1
        else:
            slow.close()
            self.closed += 1
            slow = self._join()
        self._open.append(slow)

    def told(self) -> str:
        """Return what is to be printed."""
        lines, self.lines = self.lines, 0
        return json.dumps({"open": len(self._open), "closed": self.closed, "lines": lines})

    def _join(self) -> socket.socket:
        """Open one socket, and send the first lines of the head."""
        while True:
            try:
                slow = socket.create_connection(self._address)
                slow.sendall(self._head)
                return slow
            except OSError:
                time.sleep(_RETRY_S)  # there is no event to wait for: the server takes nobody now


def _has_sent(slow: socket.socket) -> bool:
    """Send a line, unless the server has closed the socket; whatever else it says is not read on."""
    try:
        with suppress(BlockingIOError):
            if not slow.recv(4096, socket.MSG_DONTWAIT):
                return False
        slow.send(_LINE)
    except OSError:
        return False
    return True


def _run(settings: dict[str, Any]) -> None:
    """Open all sockets and keep them busy until SIGTERM ends the process."""
    crowd = Crowd(settings["port"], settings["path"], settings["sockets"])
    gaps = random.Random(settings["sockets"])
    next_s = told_s = monotonic_s()
    print(crowd.told(), flush=True)
    while True:
        # Late lines are not caught up with: they would be a burst.
        now_s = monotonic_s()
        next_s = max(next_s + gaps.expovariate(settings["sockets"] / _LINE_S), now_s)
        if now_s - told_s >= _TOLD_S:
            told_s = now_s
            print(crowd.told(), flush=True)
        time.sleep(next_s - now_s)  # the gap itself, which is the load
        crowd.send_line()


if __name__ == "__main__":
    os.nice(_NICE)
    _run(json.loads(sys.argv[1]))
