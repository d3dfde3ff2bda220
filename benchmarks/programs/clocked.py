"""A candidate that tells how many requests it got and when the last one came (`/clock`).

It is a measuring instrument: it goes before those whom it measures, where the system lets it. How long
a request waits in its socket, because all processors are busy, is not the kill switch's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

import uvloop

from benchmarks.programs.serving import Answering, Count, whole

CLOCK = "/clock"
_NICENESS = -20


class Clocked(Answering):
    """Answers as every upstream does, and notes the time (the monotonic clock of the machine)."""

    def data_received(self, data: bytes) -> None:
        """Note the time for the request whose end is in `data`, before it is parsed."""
        self._now_ns = time.monotonic_ns()
        super().data_received(data)

    def respond(self, url: bytes, body: bytes) -> None:
        """Answer; the question for the clock is not counted."""
        if url == CLOCK.encode():
            self.count.requests -= 1
            said = {"requests": self.count.requests, "last_ns": self.count.last_ns}
            self.transport.write(whole(json.dumps(said).encode()))
            return
        self.count.last_ns = self._now_ns
        super().respond(url, body)


async def _serve(port: int) -> None:
    """Serve until SIGTERM ends the process."""
    count = Count()
    server = await asyncio.get_running_loop().create_server(
        lambda: Clocked(count), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    uvloop.run(_serve(json.loads(sys.argv[1])["port"]))
