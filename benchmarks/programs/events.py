"""A server of server-sent events: each stream gets one every 1/rate seconds, numbered and dated.

Streams are spread evenly over the interval, as those of independent users are; every millisecond
the event loop serves those that are due. An event has a fixed length, and carries its number in
the stream and the time on the machine's monotonic clock at which it was written, so that a reader
on the same machine sees order, loss and delay.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from benchmarks.programs.serving import Answering, Count, chunk, head, whole
from benchmarks.programs.ticker import Ticker

_EVENT = b'data: {"n":%012d,"t":%019d,"choices":[{"index":0,"delta":{"content":"token "}}]}\n\n'
EVENT_BYTES = len(_EVENT % (0, 0))
#: Where the number and the time stand in an event.
NUMBER, TIME = slice(11, 23), slice(28, 47)
#: Whoever asks for this page ends all streams: a proxy may read a copy on when its user has left.
END = "/end"
_TICK_NS = 1_000_000
_CHUNK = chunk(_EVENT % (0, 0)).replace(_EVENT % (0, 0), _EVENT)
_HEAD = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")


def event(number: int, now_ns: int) -> bytes:
    """Return one event."""
    return _EVENT % (number, now_ns)


class Stage:
    """All open streams, by the millisecond of the interval in which they are due."""

    def __init__(self, rate_per_s: float) -> None:
        self._slots: list[dict[Stream, None]] = [{} for _ in range(round(1000 / rate_per_s))]
        self._start_ns = time.monotonic_ns()
        self._ticks = 0
        self._opened = 0
        self._ticker = Ticker(self._start_ns, _TICK_NS, self._send_due)

    def add(self, stream: Stream) -> None:
        """Let a stream take part; the next one gets the next slot."""
        stream.slot = self._opened % len(self._slots)
        self._opened += 1
        self._slots[stream.slot][stream] = None

    def end_all(self) -> None:
        """End every stream as a finished answer ends."""
        for slot in self._slots:
            for stream in slot:
                stream.transport.write(chunk(b""))
            slot.clear()

    def drop(self, stream: Stream) -> None:
        """Let a stream take part no longer."""
        self._slots[stream.slot].pop(stream, None)

    def _send_due(self) -> None:
        """Serve every slot whose millisecond has come, late ones too."""
        now_ns = time.monotonic_ns()
        while self._start_ns + self._ticks * _TICK_NS <= now_ns:
            for stream in self._slots[self._ticks % len(self._slots)]:
                stream.send_next()
            self._ticks += 1


class Stream(Answering):
    """One stream; it ends when the reader leaves."""

    def __init__(self, count: Count, stage: Stage) -> None:
        super().__init__(count)
        self.slot = 0
        self._stage = stage
        self._number = 0

    def respond(self, url: bytes, body: bytes) -> None:
        """Open the stream, or end all that are open."""
        if url == END.encode():
            self._stage.end_all()
            self.transport.write(whole(b"{}"))
        else:
            # A proxy may use the connection again: each answer is a stream with numbers of its own.
            self._number = 0
            self.transport.write(_HEAD)
            self._stage.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """End the stream."""
        self._stage.drop(self)

    def send_next(self) -> None:
        """Write the next event."""
        self.transport.write(_CHUNK % (self._number, time.monotonic_ns()))
        self._number += 1


async def _serve(port: int, rate_per_s: float) -> None:
    """Serve until SIGTERM ends the process."""
    count, stage = Count(), Stage(rate_per_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: Stream(count, stage), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    uvloop.run(_serve(settings["port"], settings["rate_per_s"]))
