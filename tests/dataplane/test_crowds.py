"""Many calls that need a connection at once: few are opened at a time, and none is in vain."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from proxy.config.resolved import Endpoint, UpstreamTls
from proxy.dataplane.pool import MAX_DIALS, Pool
from tests.support.authority import Authority
from tests.support.dataplane import Plane, dataplane, until
from tests.support.endpoints import give_endpoints
from tests.support.raw_server import silent_listener

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

#: What a server does with its nth connection before any TLS: True greets it, False drops it.
Greeting = Callable[[int], Awaitable[bool]]


async def never() -> bool:
    """Leave a connection without a word."""
    await asyncio.Event().wait()
    return False


class Answering(asyncio.Protocol):
    """Answers each read with `ok`, once the gate is open."""

    def __init__(self, gate: asyncio.Event) -> None:
        self._gate = gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _data: bytes) -> None:
        """Answer, later."""
        tasks.add(asyncio.create_task(self._answer()))  # noqa: TID251 - kept in `tasks`

    async def _answer(self) -> None:
        await self._gate.wait()
        self._transport.write(OK)


tasks: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def tls_server(
    context: ssl.SSLContext, greet: Greeting, gate: asyncio.Event
) -> AsyncIterator[int]:
    """Give the port of a server that answers those whom it greets."""
    loop = asyncio.get_running_loop()

    async def welcome(sock: socket.socket, number: int) -> None:
        with sock:
            if await greet(number):
                await loop.connect_accepted_socket(lambda: Answering(gate), sock.dup(), ssl=context)

    async def accept(listener: socket.socket) -> None:
        for number in itertools.count():
            sock, _ = await loop.sock_accept(listener)
            tasks.add(asyncio.create_task(welcome(sock, number)))  # noqa: TID251 - kept in `tasks`

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setblocking(False)
        tasks.add(asyncio.create_task(accept(listener)))  # noqa: TID251 - kept in `tasks`
        try:
            yield listener.getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks.clear()


def over_tls(plane: Plane, port: int, authority: Authority) -> Pool:
    """Let the primary be reached by TLS at this port, some time or other."""
    tls = UpstreamTls(ca=str(authority.ca_file))
    endpoint = Endpoint("127.0.0.1", port, is_tls=True)
    return give_endpoints(plane, endpoint, tls=tls, max_in_flight=1024, connect_timeout_s=600.0)


def ask(plane: Plane, times: int) -> list[asyncio.Task[tuple[int, dict[bytes, bytes], bytes]]]:
    """Send requests at once, each on a connection of its own."""
    return [asyncio.create_task(plane.request(b"POST", b"/", body=b"x")) for _ in range(times)]  # noqa: TID251 - awaited by the test


async def test_few_connections_are_opened_at_a_time(tmp_path: Path) -> None:
    """A crowd does not overflow the backend's queue."""
    with silent_listener() as port:
        async with dataplane(tmp_path, primary=port) as plane:
            pool = over_tls(plane, port, Authority(tmp_path))
            asked = ask(plane, MAX_DIALS + 30)
            await until(lambda: pool.in_flight == len(asked), "the calls")
            assert pool.statistics().connecting == MAX_DIALS
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def test_who_waits_gets_a_connection_that_becomes_idle(tmp_path: Path) -> None:
    """A call does not wait for an attempt that hangs while another call's connection is free."""
    authority, gate = Authority(tmp_path), asyncio.Event()

    async def first_only(number: int) -> bool:
        return number == 0 or await never()

    async with (
        tls_server(authority.server("127.0.0.1"), first_only, gate) as port,
        dataplane(tmp_path, primary=port) as plane,
    ):
        pool = over_tls(plane, port, authority)
        first = ask(plane, 1)
        await until(lambda: pool.statistics().opened == 1, "the first connection")
        second = ask(plane, 1)
        await until(lambda: pool.statistics().connecting == 1, "the attempt that hangs")
        gate.set()
        assert [(await task)[0] for task in first + second] == [200, 200]
        assert (pool.statistics().opened, pool.statistics().reused) == (1, 0)


async def test_one_attempt_that_fails_costs_nobody_an_answer(tmp_path: Path) -> None:
    """While others get through, the one who waited for it waits for the next."""
    authority, gate, is_other_through = Authority(tmp_path), asyncio.Event(), asyncio.Event()

    async def first_fails_late(number: int) -> bool:
        if number == 0:
            await is_other_through.wait()
        return number > 0

    async with (
        tls_server(authority.server("127.0.0.1"), first_fails_late, gate) as port,
        dataplane(tmp_path, primary=port) as plane,
    ):
        pool = over_tls(plane, port, authority)
        asked = ask(plane, 2)
        await until(lambda: pool.statistics().opened == 1, "the other one to get through")
        is_other_through.set()
        await until(lambda: pool.statistics().failed == 1, "the attempt to fail")
        gate.set()
        assert [(await task)[0] for task in asked] == [200, 200]
