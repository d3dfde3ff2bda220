"""Backends that stream in step with their client, and what either of them saw when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S
from tests.support.upstreams import Behaviour, Request

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"connection: close\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class InStep:
    """A backend that sends the next piece only when the client has seen the last one.

    Attributes:
        sent_s: just before each piece was written.
        seen_s: when the client had all of it.
    """

    def __init__(self, pieces: Sequence[bytes], pauses_s: Sequence[float] = ()) -> None:
        self.pieces = pieces
        self.sent_s: list[float] = []
        self.seen_s: list[float] = []
        self._pauses_s = [*pauses_s, *[0.0] * len(pieces)]
        self._seen = asyncio.Event()

    def behaviour(self, head: bytes, *, is_chunked: bool) -> Behaviour:
        """Return what an `Upstream` is to do: `head`, then the pieces, in step."""

        async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
            del request
            writer.write(head)
            for piece, pause_s in zip(self.pieces, self._pauses_s, strict=False):
                await asyncio.sleep(pause_s)
                self._seen.clear()
                self.sent_s.append(monotonic_s())
                writer.write(chunk(piece) if is_chunked else piece)
                await asyncio.wait_for(self._seen.wait(), PATIENCE_S)
            if is_chunked:
                writer.write(LAST)
            else:
                writer.close()

        return behave

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """Read the chunked answer behind its head; let the backend go on piece by piece."""
        body, until = b"", 0
        for piece in self.pieces:
            until += len(piece)
            while len(body) < until:  # a large piece reaches the client in several chunks
                size = int(await asyncio.wait_for(reader.readline(), PATIENCE_S), 16)
                body += (await asyncio.wait_for(reader.readexactly(size + 2), PATIENCE_S))[:-2]
            self.seen_s.append(monotonic_s())
            self._seen.set()
        assert await asyncio.wait_for(reader.readexactly(len(LAST)), PATIENCE_S) == LAST
        return body

    def gaps_s(self) -> tuple[list[float], list[float]]:
        """Return the least and the most that each gap can have been for whoever stood between."""
        sent_s, seen_s = self.sent_s, self.seen_s
        numbers = range(1, len(sent_s))
        return (
            [sent_s[n] - seen_s[n - 1] for n in numbers],
            [seen_s[n] - sent_s[n - 1] for n in numbers],
        )
