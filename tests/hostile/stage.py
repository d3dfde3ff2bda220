"""The stage of the differential tests: a real worker between a raw client and a raw upstream.

Both ends are plain sockets that write given bytes and keep what they read. Nobody on the stage
parses HTTP but the proxy; the upstream asks `grammar` whether it has a whole request to answer.
Many stages play side by side, because most rows end by a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import uvloop

from proxy.dataplane.deadlines import Deadlines
from tests.hostile.grammar import GrammarError, IncompleteError, Message, read_request
from tests.hostile.rows import Row
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.deadline import PATIENCE_S

#: Silence after which a connection that nobody has closed is taken as left open.
#: So that a row that runs into one costs seconds, and not a minute; a good one that the machine stalls
#: for a moment must not.
SHORT = Deadlines(
    head_s=3.0,
    body_idle_s=3.0,
    keep_alive_s=0.3,
    max_connections=8192,
    flush_s=3.0,
    linger_s=0.2,
    sweep_s=0.05,
)
STAGES = 96

T = TypeVar("T")
Reply = Callable[[Message], bytes]


def usual_reply(request: Message) -> bytes:
    """Answer 200 with a body of two bytes."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + (
        b"" if request.method == b"HEAD" else b"ok"
    )


class RawUpstream:
    """A listening socket that keeps every byte and answers each whole request.

    Attributes:
        seen: what each connection brought, in the order of the connections.
        reply: the bytes of the answer.
        closes: end the connection after each answer.
    """

    def __init__(self) -> None:
        self.seen: list[bytearray] = []
        self.reply: Reply = usual_reply
        self.closes = False
        self.port = 0
        self.transports: set[asyncio.Transport] = set()


class _RawConnection(asyncio.Protocol):
    def __init__(self, upstream: RawUpstream) -> None:
        self._upstream = upstream
        self._bytes = bytearray()
        self._at = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP
        self._transport = transport
        self._upstream.transports.add(transport)
        self._upstream.seen.append(self._bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        with suppress(GrammarError, IncompleteError):
            while self._at < len(self._bytes):
                request = read_request(bytes(self._bytes), self._at, skip_blank=False)
                self._at = request.end
                self._transport.write(self._upstream.reply(request))
                if self._upstream.closes:
                    self._transport.close()


@asynccontextmanager
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """Listen on a free port."""
    upstream = RawUpstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _RawConnection(upstream), "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for transport in tuple(upstream.transports):
            transport.abort()
        await until(lambda: not upstream.transports, "the upstream's connections to close")


@dataclass
class Seen:
    """What one row did.

    Attributes:
        upstream: bytes per upstream connection.
        client: what the client read.
        is_closed: the proxy ended the client's connection.
    """

    upstream: list[bytes] = field(default_factory=list)
    client: bytes = b""
    is_closed: bool = False


class Stage:
    """A worker whose primary, and candidate if it has one, are raw upstreams."""

    def __init__(self, plane: Plane, primary: RawUpstream, candidate: RawUpstream) -> None:
        self.plane = plane
        self.primary = primary
        self.candidate = candidate

    async def play(self, pieces: Sequence[bytes]) -> Seen:
        """Send `pieces` on one connection, wait until it has ended, and return what was seen."""
        self.primary.seen.clear()
        seen = Seen()
        reader, writer = await self.plane.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            while data := await asyncio.wait_for(reader.read(65536), PATIENCE_S):
                seen.client += data
            seen.is_closed = True
        except ConnectionError:
            seen.is_closed = True
        except TimeoutError:
            pass
        finally:
            writer.close()
        pools = self.plane.worker.pools.values()
        await until(lambda: all(pool.in_flight == 0 for pool in pools), "the legs to end")
        # One that is opened for a leg that has ended would serve, unseen, the next row.
        await until(lambda: not any(pool.statistics().connecting for pool in pools), "connections")
        for pool in pools:
            pool.close()
        seen.upstream = [bytes(data) for data in self.primary.seen]
        return seen


@asynccontextmanager
async def stage(state_dir: Path, *, has_candidate: bool = False) -> AsyncIterator[Stage]:
    """Set up a worker and its upstreams."""
    async with (
        raw_upstream() as primary,
        raw_upstream() as candidate,
        dataplane(
            state_dir,
            primary=primary.port,
            candidates={"v2": candidate.port} if has_candidate else {},
            options=Options(timeout_s=5.0),
        ) as plane,
    ):
        plane.worker.clients.deadlines = SHORT
        yield Stage(plane, primary, candidate)


def play_all(
    rows: Sequence[Row],
    act: Callable[[Stage, Row], Awaitable[T]],
    folder: Path,
    *,
    has_candidate: bool = False,
) -> dict[str, T]:
    """Play every row on one of many stages, on the workers' own event loop; return what came of it."""
    waiting = list(reversed(rows))
    results: dict[str, T] = {}

    async def one(number: int) -> None:
        async with stage(folder / str(number), has_candidate=has_candidate) as found:
            while waiting:
                row = waiting.pop()
                results[row.id] = await act(found, row)

    async def all_stages() -> None:
        await asyncio.gather(*(one(number) for number in range(STAGES)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_stages())
    return results
