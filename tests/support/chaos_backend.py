"""A backend that does, by chance, whatever backends do; what it says in a whole 200 is always right.

async with chaos_backend("v1", random.Random(seed)) as port:
    ...
expected_answer("v1", request_id, body)  # what a whole 200 has as its body
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import orjson

from tests.support.raw_server import raw_server

#: What an answer is like, and how often of a hundred.
WEIGHTS = {
    "whole": 46, "closes_after": 6, "delayed": 8, "chunked": 8, "events": 5, "until_close": 3,
    "interim": 3, "error": 4, "cut": 3, "cut_chunks": 3, "shut": 2, "reset": 2, "hang": 1,
    "garbage": 2, "crumbs": 1, "switches": 1, "extra": 1, "early": 3,
    "http10": 2,
}  # fmt: skip


def expected_answer(name: str, request_id: bytes, body: bytes) -> bytes:
    """Return the answer of a backend to a request; the name of the model in it does not matter."""
    try:
        found = orjson.loads(body)
        found.pop("model", None)
        body = orjson.dumps(found)
    except (ValueError, AttributeError):
        pass
    digest = hashlib.sha256(request_id + body).hexdigest()
    size = 1 if int(digest[0], 16) else int(digest[1:4], 16)  # one in 16 is up to 260 KB
    size *= 1 if int(digest[5], 16) else 16  # and one in 256 up to 4 MB
    return b'{"by": "%b", "y": "%b"}' % (name.encode(), digest.encode() * size)


@asynccontextmanager
async def chaos_backend(name: str, chance: random.Random) -> AsyncIterator[int]:
    """Run one until the block ends; give its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # uvloop's, where one writes to what is closed; the others, where a body is read as a request
        with suppress(RuntimeError, ValueError, asyncio.LimitOverrunError):
            while await _answer_one(name, chance, reader, writer):
                pass

    async with raw_server(handle) as port:
        yield port


async def _answer_one(
    name: str, chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer the next request; return whether the connection goes on."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    fields = dict(line.lower().partition(b": ")[::2] for line in lines)
    if fields.get(b"upgrade"):
        return await _tunnel(chance, reader, writer)
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind == "early":
        return await _early(chance, reader, writer, fields)
    if first.startswith(b"GET ") and chance.random() < 0.5:  # it ignores the body of a GET
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        return True
    if chance.random() < 0.1:
        await asyncio.sleep(chance.random() * 0.1)  # the request waits unread
    body = await _body(reader, fields)
    answer = expected_answer(name, fields.get(b"x-request-id", b""), body)
    if first.startswith(b"HEAD "):
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n" % len(answer))
        return True
    return await _Answer(chance, writer, answer).send(kind)


async def _early(
    chance: random.Random,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    fields: dict[bytes, bytes],
) -> bool:
    """Answer, or end, before the request is whole.

    It goes on only where the rest is still to come, which a proxy can see. Were all of the body here, and taken
    for a request, its answer might come after the next request, and nobody could tell it from its answer.
    """
    what = chance.choice(["answers", "answers and goes on", "resets", "shuts"])
    if what == "answers and goes on" and await _took_body(reader, fields):
        what = "answers"
    if what == "resets":
        await reader.read(chance.randint(1, 100_000))
        writer.transport.abort()
    elif what == "shuts":
        writer.write_eof()
    else:
        # "and goes on": what follows of the body is the next request to it
        going = b"connection: close\r\n" if what == "answers" else b""
        writer.write(b"HTTP/1.1 503 X\r\n%bcontent-length: 2\r\n\r\nno" % going)
        if what != "answers":
            return True
    await asyncio.sleep(chance.random() * 0.02)
    return False


async def _took_body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> bool:
    """Take the body of a request if all of it has come; return whether it had."""
    try:
        await asyncio.wait_for(_body(reader, fields), 0.001)
    except TimeoutError:
        return False
    return True


async def _body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> bytes:
    if b"chunked" not in fields.get(b"transfer-encoding", b""):
        return await reader.readexactly(int(fields.get(b"content-length", b"0")))
    body = b""
    while size := int(await reader.readuntil(b"\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


async def _tunnel(
    chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    if chance.random() < 0.3:
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n")
        return chance.random() < 0.5
    writer.write(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    while data := await reader.read(4096):
        writer.write(data)
        if chance.random() < 0.1:
            break
    return False


class _Answer:
    """One answer on its way."""

    def __init__(self, chance: random.Random, writer: asyncio.StreamWriter, body: bytes) -> None:
        self._chance = chance
        self._writer = writer
        self._body = body

    async def send(self, kind: str) -> bool:
        """Send it; return whether the connection goes on."""
        goes_on = await getattr(self, f"_{kind}")()
        return bool(goes_on)

    async def _pause(self, longest_s: float) -> None:
        await asyncio.sleep(self._chance.random() * longest_s)

    def _head(self, *, status: int = 200, extra: bytes = b"") -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        self._writer.write(head % (status, extra, len(self._body)))

    async def _whole(self) -> bool:
        self._head()
        self._writer.write(self._body)
        await self._writer.drain()
        return True

    async def _closes_after(self) -> bool:
        await self._whole()
        await self._pause(0.005)
        return False

    async def _delayed(self) -> bool:
        await self._pause(0.05)
        self._head()
        await self._pause(0.01)
        return await self._whole_body_in_two()

    async def _whole_body_in_two(self) -> bool:
        at = self._chance.randrange(len(self._body))
        self._writer.write(self._body[:at])
        await self._pause(0.01)
        self._writer.write(self._body[at:])
        await self._writer.drain()
        return True

    async def _chunks(self, content_type: bytes) -> None:
        self._writer.write(
            b"HTTP/1.1 200 X\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
            % content_type
        )
        size = max(self._chance.randint(1, 40_000), len(self._body) // 20)
        for at in range(0, len(self._body), size):
            piece = self._body[at : at + size]
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._writer.drain()
            await self._pause(0.005)

    async def _chunked(self) -> bool:
        await self._chunks(b"application/json")
        self._writer.write(b"0\r\n\r\n")
        return True

    async def _events(self) -> bool:
        await self._chunks(b"text/event-stream")
        self._writer.write(b"0\r\nx-trailer: 1\r\n\r\n")
        return True

    async def _until_close(self) -> bool:
        self._writer.write(b"HTTP/1.1 200 X\r\n\r\n" + self._body)
        await self._writer.drain()
        self._writer.write_eof()
        await self._pause(0.01)
        return False

    async def _http10(self) -> bool:
        self._writer.write(b"HTTP/1.0 200 X\r\n\r\n" + self._body)
        await self._writer.drain()
        self._writer.write_eof()
        await self._pause(0.01)
        return False

    async def _interim(self) -> bool:
        for _ in range(self._chance.randint(1, 5)):
            self._writer.write(b"HTTP/1.1 103 X\r\nlink: </a>\r\n\r\n")
            await self._pause(0.002)
        return await self._whole()

    async def _error(self) -> bool:
        self._head(status=self._chance.choice([400, 404, 429, 500, 502, 503]))
        self._writer.write(self._body)
        return True

    async def _cut(self) -> bool:
        self._head()
        self._writer.write(self._body[: self._chance.randrange(len(self._body))])
        await self._writer.drain()
        return False

    async def _cut_chunks(self) -> bool:
        await self._chunks(b"text/event-stream")
        return False

    async def _shut(self) -> bool:
        self._writer.write_eof()
        return False

    async def _reset(self) -> bool:
        self._writer.transport.abort()
        return False

    async def _hang(self) -> bool:
        await asyncio.sleep(2)
        return False

    async def _garbage(self) -> bool:
        self._writer.write(self._chance.randbytes(self._chance.randint(1, 2000)))
        await self._pause(0.01)
        return False

    async def _crumbs(self) -> bool:
        self._head()
        for at in range(len(self._body)):
            self._writer.write(self._body[at : at + 1])
            await asyncio.sleep(0.001)
        return True

    async def _switches(self) -> bool:
        self._writer.write(b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello")
        await self._pause(0.01)
        return False

    async def _extra(self) -> bool:
        """Send an answer that nobody asked for behind a short one, in the same write.

        Sent later it might come after the next request, and nobody could tell it from its answer.
        """
        if len(self._body) > 10_000:
            return await self._whole()
        wrong = b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nwrong"
        head = b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n" % len(self._body)
        self._writer.write(head + self._body + wrong)
        await self._pause(0.02)
        return True
