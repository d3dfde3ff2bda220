"""Candidates with every fault, each on a port of its own, in one process.

What they send in bulk (endless, huge and compressed answers) shares 1 Gbit/s, as if it came over a
network card: on one machine an unbounded sender would take the processor away from everybody, and
the figures would be about that.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum

import uvloop

from benchmarks.programs.serving import ANSWER, Answering, Count, chunk, head, whole
from benchmarks.programs.ticker import Ticker

_BLOCK = b"0" * 65_000
_HUGE_BYTES = 10**9
_BOMB_BYTES = 64 << 20
_BYTES_PER_TICK = 125_000
_TICK_NS = 1_000_000
_JSON = "Content-Type: application/json"


class Fault(StrEnum):
    """What a candidate does; the values are what tables say."""

    HEALTHY = "healthy"
    HUNG = "hung"
    REFUSES = "refuses"
    SLOW = "1 byte/s"
    ENDLESS = "endless answer"
    HUGE = "1 GB answer"
    BOMB = "gzip bomb"
    OVERLOADED = "overloaded"


class Bulk:
    """Sends pieces for many connections, one piece each in turn, within the bandwidth."""

    def __init__(self) -> None:
        self._waiting: deque[Sending] = deque()
        self._debt = 0
        self._ticker = Ticker(time.monotonic_ns(), _TICK_NS, self._send)

    def add(self, sending: Sending) -> None:
        """Let a connection take part until its pieces are at their end or it is closed."""
        self._waiting.append(sending)

    def _send(self) -> None:
        self._debt = max(0, self._debt - _BYTES_PER_TICK)
        for _ in range(len(self._waiting)):
            if self._debt >= _BYTES_PER_TICK:
                return
            sending = self._waiting.popleft()
            sent = sending.send_one()
            self._debt += sent
            if not sending.is_over:
                self._waiting.append(sending)


class Sending(Answering):
    """Sends an answer in pieces, none while the reader does not keep up."""

    def __init__(self, count: Count, bulk: Bulk, pieces: Callable[[], Iterator[bytes]]) -> None:
        super().__init__(count)
        self.is_over = False
        self._bulk = bulk
        self._make = pieces
        self._pieces: Iterator[bytes] = iter(())
        self._is_paused = False

    def respond(self, url: bytes, body: bytes) -> None:
        """Start over with the first piece."""
        self._pieces, self.is_over = self._make(), False
        self._bulk.add(self)

    def pause_writing(self) -> None:
        """Wait for the reader."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False

    def connection_lost(self, _error: Exception | None) -> None:
        """Send no more."""
        self.is_over = True

    def send_one(self) -> int:
        """Send the next piece and return its length; 0 when paused or at the end."""
        if self._is_paused or self.is_over:
            return 0
        piece = next(self._pieces, None)
        if piece is None:
            self.is_over = True
            return 0
        self.transport.write(piece)
        return len(piece)


class Hung(Answering):
    """Accepts, reads, and never answers."""

    def respond(self, url: bytes, body: bytes) -> None:
        """Do nothing."""


class Slow(Answering):
    """Sends the head, and then one byte a second."""

    def respond(self, url: bytes, body: bytes) -> None:
        """Send the head."""
        self.transport.write(head(_JSON, "Content-Length: 600"))
        self._send_byte()

    def _send_byte(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b" ")
            asyncio.get_running_loop().call_later(1.0, self._send_byte)


class Desk:
    """Answers whoever has waited longest, `rate_per_s` times a second, whatever comes."""

    def __init__(self, rate_per_s: float) -> None:
        self._waiting: deque[Overloaded] = deque()
        self._ticker = Ticker(time.monotonic_ns(), round(1e9 / rate_per_s), self._answer)

    def queue(self, client: Overloaded) -> None:
        """Let a request wait for its turn."""
        self._waiting.append(client)

    def _answer(self) -> None:
        while self._waiting:
            client = self._waiting.popleft()
            if not client.transport.is_closing():
                client.transport.write(whole(ANSWER))
                return


class Overloaded(Answering):
    """Answers right, when its turn has come."""

    def __init__(self, count: Count, desk: Desk) -> None:
        super().__init__(count)
        self._desk = desk

    def respond(self, url: bytes, body: bytes) -> None:
        """Wait for the turn."""
        self._desk.queue(self)


def _endless() -> Iterator[bytes]:
    yield head(_JSON, "Transfer-Encoding: chunked")
    while True:
        yield chunk(_BLOCK)


def _huge() -> Iterator[bytes]:
    yield head(_JSON, f"Content-Length: {_HUGE_BYTES}")
    for _ in range(_HUGE_BYTES // len(_BLOCK)):
        yield _BLOCK
    yield _BLOCK[: _HUGE_BYTES % len(_BLOCK)]


def _compressed_zeros() -> bytes:
    """Return a gzip file that inflates to a thousand times its length."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(_BOMB_BYTES >> 20)) + packer.flush()


async def _serve(ports: dict[str, int], rate_per_s: float) -> None:
    """Serve every fault until SIGTERM ends the process.

    Args:
        ports: by `Fault`.
        rate_per_s: answers that the overloaded one can give.
    """
    bulk, desk = Bulk(), Desk(rate_per_s)
    bomb = head(_JSON, "Content-Encoding: gzip")[:-2]
    content = _compressed_zeros()
    bomb += b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
    makers: dict[Fault, Callable[[Count], Answering]] = {
        Fault.HEALTHY: Answering,
        Fault.HUNG: Hung,
        Fault.SLOW: Slow,
        Fault.ENDLESS: lambda count: Sending(count, bulk, _endless),
        Fault.HUGE: lambda count: Sending(count, bulk, _huge),
        Fault.BOMB: lambda count: Sending(count, bulk, lambda: iter((bomb,))),
        Fault.OVERLOADED: lambda count: Overloaded(count, desk),
    }
    # Bound and not listening: whoever connects is refused, and nobody else gets the port.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", ports[Fault.REFUSES]))
        for fault, make in makers.items():
            await _listen(ports[fault], make)
        await asyncio.get_running_loop().create_future()


async def _listen(port: int, make: Callable[[Count], Answering]) -> None:
    count = Count()
    await asyncio.get_running_loop().create_server(
        lambda: make(count), "127.0.0.1", port, backlog=4096
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvloop.run(_serve(given["ports"], given["rate_per_s"]))
