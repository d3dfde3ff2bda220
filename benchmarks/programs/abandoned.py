"""A backend that leaves some requests unanswered and tells when their connections ended (`/ends`).

A path with `?leave=stream` begins a stream of events and goes on no more; one with `?leave=silence`
brings nothing at all. It goes before those whom it measures, where the system lets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

import uvloop

from benchmarks.programs.serving import Answering, Count, chunk, head, whole

ENDS = "/ends"
STREAM, SILENCE = "leave=stream", "leave=silence"
_NICENESS = -20
_BEGIN = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked") + chunk(
    b"data: {}\n\n"
)


class Ends:
    """What became of the requests that are left unanswered.

    Attributes:
        asked: how many came.
        times_ns: when their connections ended (the monotonic clock of the machine).
    """

    def __init__(self) -> None:
        self.asked = 0
        self.times_ns: list[int] = []


class Abandoned(Answering):
    """Answers as every upstream does, but for the requests that are to be left."""

    def __init__(self, count: Count, ends: Ends) -> None:
        super().__init__(count)
        self._ends = ends
        self._is_left = False

    def respond(self, url: bytes, body: bytes) -> None:
        """Answer, begin, or do nothing."""
        query = url.partition(b"?")[2].decode()
        if url == ENDS.encode():
            said = {"asked": self._ends.asked, "times_ns": self._ends.times_ns}
            self.transport.write(whole(json.dumps(said).encode()))
        elif query in (STREAM, SILENCE):
            self._ends.asked += 1
            self._is_left = True
            if query == STREAM:
                self.transport.write(_BEGIN)
        else:
            super().respond(url, body)

    def connection_lost(self, _error: Exception | None) -> None:
        """Note when a request's connection has ended."""
        if self._is_left:
            self._ends.times_ns.append(time.monotonic_ns())


async def _serve(port: int) -> None:
    """Serve until SIGTERM ends the process."""
    count, ends = Count(), Ends()
    server = await asyncio.get_running_loop().create_server(
        lambda: Abandoned(count, ends), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    uvloop.run(_serve(json.loads(sys.argv[1])["port"]))
