"""Clients that do, by chance, whatever clients do, and check every whole 200 that they get.

clients = ChaosClients(port, random.Random(seed), names=("v1", "v2"))
await clients.run(until_s)
clients.wrong, clients.right
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress

from proxy.telemetry import monotonic_s
from tests.support.chaos_backend import expected_answer
from tests.support.dataplane import read_answer
from tests.support.deadline import PATIENCE_S

#: What a visit is like, and how often of a hundred.
WEIGHTS = {
    "one_by_one": 26, "pipelined": 14, "chunked": 10, "slow": 8, "leaves": 16, "half_closes": 6,
    "http10": 5, "head": 5, "expects": 4, "upgrades": 3, "invalid": 3,
    "stalls": 1, "reads_late": 3, "smuggles": 4,
}  # fmt: skip
INVALID = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
)
#: uvloop raises a RuntimeError where one writes to what is closed.
BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError, RuntimeError)


class ChaosClients:
    """Visitors, one after the other in each of several places.

    Attributes:
        right: whole answers 200 that were right; `statuses` counts all whole ones.
        wrong: whole answers 200 with another body than any of the backends gives.
        bodies: of the requests, by request id.
        stuck: visits that got no answer in time and no end of their connection either.
    """

    def __init__(self, port: int, chance: random.Random, names: tuple[str, ...]) -> None:
        self.right = 0
        self.statuses: Counter[int] = Counter()
        self.wrong: list[tuple[bytes, bytes]] = []
        self.stuck: list[str] = []
        self.bodies: dict[bytes, bytes] = {}
        self._port = port
        self._chance = chance
        self._names = names
        self._number = 0

    async def run(self, until_s: float, *, places: int = 24) -> None:
        """Visit until `until_s`, monotonic seconds."""

        async def visit() -> None:
            while monotonic_s() < until_s:
                kind = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                await self._visit(kind)

        await asyncio.gather(*(visit() for _ in range(places)))

    async def _visit(self, kind: str) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # the worker has stopped
            await asyncio.sleep(0.05)
            return
        try:
            await getattr(self, f"_{kind}")(reader, writer)
        except TimeoutError:
            self.stuck.append(kind)
        except BROKEN:
            pass
        finally:
            if self._chance.random() < 0.1:
                writer.transport.abort()
            writer.close()
            with suppress(*BROKEN):
                await writer.wait_closed()

    # Requests and answers.

    def _body(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randint(0, 60))
        pad = "p" * chance.choice(
            [0, 0, 0, 10, 1000, 30_000, 200_000, 200_000 * chance.choice([1, 1, 15])]
        )
        return b'{"model": "m", "n": %d, "pad": "%b"}' % (chance.getrandbits(30), pad.encode())

    def _id(self) -> bytes:
        self._number += 1
        return b"r%d" % self._number

    def _request(
        self, request_id: bytes, body: bytes | None, *, version: bytes = b"1.1", extra: bytes = b"",
        method: bytes = b"POST",
    ) -> bytes:  # fmt: skip
        self.bodies[request_id] = body or b""
        length = b"" if body is None else b"content-length: %d\r\n" % len(body)
        return (
            b"%b /v2/models/iris HTTP/%b\r\nhost: a\r\nx-request-id: %b\r\nx-user-id: u%d\r\n"
            b"content-type: application/json\r\n%b%b\r\n%b"
            % (
                method,
                version,
                request_id,
                self._chance.getrandbits(20),
                length,
                extra,
                body or b"",
            )
        )

    async def _read(self, reader: asyncio.StreamReader, request_id: bytes, body: bytes) -> bool:
        """Read and check one answer; return whether another may follow."""
        status, fields, answer = await read_answer(reader)
        self.statuses[status] += 1
        if status == 200:
            if answer in [expected_answer(name, request_id, body) for name in self._names]:
                self.right += 1
            else:
                self.wrong.append((request_id, answer[:200]))
        return fields.get(b"connection") != b"close"

    async def _trickle(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Write in a few pieces with pauses."""
        for _ in range(self._chance.randint(1, 4)):
            at = self._chance.randint(0, len(data))
            writer.write(data[:at])
            data = data[at:]
            await asyncio.sleep(self._chance.random() * 0.01)
        writer.write(data)

    # Visits.

    async def _one_by_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._chance.randint(1, 8)):
            request_id, body = self._id(), self._body()
            writer.write(self._request(request_id, body))
            if not await self._read(reader, request_id, body):
                return

    async def _pipelined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = [(self._id(), self._body()) for _ in range(self._chance.randint(2, 6))]
        await self._trickle(writer, b"".join(self._request(*each) for each in sent))
        for each in sent:
            if not await self._read(reader, *each):
                return

    async def _chunked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_id, body = self._id(), self._body()
        size = max(self._chance.choice([1, 7, 100, 5000, 70_000]), len(body) // 50)
        framed = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for at in range(0, len(body), size)
            if (piece := body[at : at + size])
        )
        head = self._request(request_id, None, extra=b"transfer-encoding: chunked\r\n")
        self.bodies[request_id] = body
        await self._trickle(writer, head + framed + b"0\r\n\r\n")
        await self._read(reader, request_id, body)

    async def _slow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_id, body = self._id(), self._body()
        await self._trickle(writer, self._request(request_id, body))
        await asyncio.sleep(self._chance.random() * 0.05)  # and reads late
        await self._read(reader, request_id, body)

    async def _leaves(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance = self._chance
        data = b"".join(
            self._request(self._id(), self._body()) for _ in range(chance.randint(1, 3))
        )
        await self._trickle(writer, data[: chance.randint(1, len(data))])
        await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.5:
            await asyncio.wait_for(reader.read(chance.randint(1, 5000)), PATIENCE_S)
        if chance.random() < 0.5:
            writer.transport.abort()

    async def _half_closes(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        sent = [(self._id(), self._body()) for _ in range(self._chance.randint(1, 3))]
        writer.write(b"".join(self._request(*each) for each in sent))
        writer.write_eof()
        for each in sent:
            if not await self._read(reader, *each):
                return

    async def _http10(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_id, body = self._id(), self._body()
        writer.write(self._request(request_id, body, version=b"1.0"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        wanted = [expected_answer(name, request_id, body) for name in self._names]
        length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
        is_whole = not length or int(length[0][16:]) == len(rest)
        if head[9:12] == b"200" and is_whole and rest not in wanted:
            self.wrong.append((request_id, rest[:200]))

    async def _head(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._chance.randint(1, 3)):
            writer.write(self._request(self._id(), None, method=b"HEAD"))
            status, fields, _ = await read_answer(reader, b"HEAD")
            self.statuses[status] += 1
            if fields.get(b"connection") == b"close":
                return

    async def _expects(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_id, body = self._id(), self._body()
        whole = self._request(request_id, body, extra=b"expect: 100-continue\r\n")
        at = len(whole) - len(body)
        writer.write(whole[:at])
        await asyncio.sleep(self._chance.random() * 0.02)
        writer.write(whole[at:])
        await self._read(reader, request_id, body)

    async def _upgrades(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        extra = b"upgrade: websocket\r\nconnection: upgrade\r\n"
        writer.write(self._request(self._id(), None, method=b"GET", extra=extra))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        if head.startswith(b"HTTP/1.1 101"):
            for _ in range(self._chance.randint(0, 5)):
                writer.write(b"ping")
                if not await asyncio.wait_for(reader.read(100), PATIENCE_S):
                    return

    async def _invalid(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._chance.choice(INVALID))
        await asyncio.wait_for(reader.read(), PATIENCE_S)

    async def _stalls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stop in the middle of a request until it is refused."""
        data = self._request(self._id(), self._body())
        writer.write(data[: self._chance.randint(1, len(data) - 1)])
        await asyncio.wait_for(reader.read(), PATIENCE_S)

    async def _reads_late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Leave the answers unread for a while."""
        sent = [(self._id(), self._body()) for _ in range(self._chance.randint(1, 4))]
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it can be read, too
        writer.write(b"".join(self._request(*each) for each in sent))
        await asyncio.sleep(self._chance.random() * 0.4)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        for each in sent:
            if not await self._read(reader, *each):
                return

    async def _smuggles(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a GET with a body that a backend takes for the next request, if it ignores bodies."""
        request_id = self._id()
        body = b"POST / HTTP/1.1\r\nhost: a\r\nx-request-id: smuggled\r\n\r\n"
        method = self._chance.choice([b"GET", b"GET", b"PUT"])
        writer.write(self._request(request_id, body, method=method))
        await self._read(reader, request_id, body)
