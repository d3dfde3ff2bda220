"""The small HTTP client, against real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.demo import client as client_module
from proxy.demo.client import Connection, NoAnswerError
from tests.support.upstreams import unused_port

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    """Serve each connection with `handler`, then close it; give the address."""
    async with asyncio.TaskGroup() as group:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await handler(reader, writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(serve(reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[:2]


async def test_one_connection_serves_many_requests() -> None:
    """Whatever the framing, and in whatever pieces the answer comes."""
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        answers = (
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n",
        )
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
        await reader.read()

    async with serving(handler) as address, Connection(*address) as connection:
        first, second = await connection.ask(REQUEST), await connection.ask(REQUEST)
    assert (first.status, first.body, second.status, second.body) == (200, b"abc", 503, b"de")
    assert connections == 1


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"nonsense\r\n\r\n"]
)
async def test_a_broken_answer_is_told_and_the_next_request_works(answer: bytes) -> None:
    """The connection is thrown away with it."""
    answers = iter([answer, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"])

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(answers))

    async with serving(handler) as address, Connection(*address) as connection:
        with pytest.raises(NoAnswerError):
            await connection.ask(REQUEST)
        assert (await connection.ask(REQUEST)).body == b"ok"


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time that is bounded."""
    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.05)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(handler) as address, Connection(*address) as connection:
        with pytest.raises(NoAnswerError, match=r"no answer within 0\.05 s"):
            await connection.ask(REQUEST)


async def test_a_refused_connection_is_told() -> None:
    """Instead of an OSError that the traffic would have to know."""
    with pytest.raises(NoAnswerError):
        await Connection("127.0.0.1", unused_port()).ask(REQUEST)
