"""Candidates that do their worst: each a behaviour on a raw socket, and how its copies must end."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from tests.support.raw_server import raw_server
from tests.support.upstreams import unused_port

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNK = bytes(65536)
GIB = 2**30
#: 50 MB of zeros; whole within the record's limit, and far over what may be inflated.
BOMB = gzip.compress(bytes(50_000_000))


async def _hung(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader, writer
    await asyncio.Event().wait()


async def _resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(OK + b"content-length: 1000\r\n\r\nhalf")
    await writer.drain()


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(OK + b"content-length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n%b\r\n" % CHUNK)
        await writer.drain()


async def _huge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(OK + b"content-length: %d\r\n\r\n" % GIB)
    for _ in range(GIB // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()


async def _bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB)
    await writer.drain()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(bytes(range(256)) * 16 + b"\r\n\r\n")
    await writer.drain()


async def _closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.close()


async def _switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    writer.write(b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello")
    await writer.drain()


async def _interim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader
    while True:
        writer.write(b"HTTP/1.1 103 X\r\nlink: </a>\r\n\r\n" * 100)
        await writer.drain()


#: By name: what it does once a request's head has come, and the status of its records.
BAD: dict[str, tuple[Talk | None, str]] = {
    "hung": (_hung, "timeout"),
    "refusing": (None, "connect_error"),
    "resetting": (_resetting, "reset"),
    "slow": (_slow, "timeout"),
    "endless": (_endless, "reset"),
    "huge": (_huge, "reset"),
    "bomb": (_bomb, "ok"),
    "garbage": (_garbage, "reset"),
    "closing": (_closing, "reset"),
    "switching": (_switching, "reset"),
    "interim": (_interim, "reset"),
}


async def listen(stack: AsyncExitStack, name: str) -> int:
    """Run a bad candidate until the stack is left; return its port."""
    talk = BAD[name][0]
    if talk is None:
        return unused_port()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
            if name != "bomb":
                return

    return await stack.enter_async_context(raw_server(handle, limit=2**20))
