"""Upgrade: WebSockets through the proxy, and what must not get through with them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from proxy.state.control_page import Part
from proxy.state.kill import Scope, kill
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, read_answer, until
from tests.support.deadline import PATIENCE_S
from tests.support.raw_server import raw_server
from tests.support.upstreams import Upstream, echo

MIB = 2**20
ASK = (
    b"GET /chat HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
)
GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def _websockets(
    handler: Callable[[ServerConnection], Awaitable[None]] = _echo,
    refusal: HTTPStatus | None = None,
) -> AsyncIterator[int]:
    """Run a WebSocket server; give its port."""

    def refuse(connection: ServerConnection, _request: Request) -> Response | None:
        return None if refusal is None else connection.respond(refusal, "no\n")

    async with serve(
        handler, "127.0.0.1", 0, process_request=refuse, max_size=None, compression=None
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def _client(plane: Plane) -> connect:
    url = f"ws://127.0.0.1:{plane.port}/chat?room=1"
    return connect(url, max_size=None, compression=None, proxy=None, open_timeout=PATIENCE_S)


async def _head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)


def _is_open(plane: Plane) -> int:
    return plane.count("tunnels_open", "iris")


async def _tunnel(plane: Plane) -> Streams:
    """Open a tunnel with bare sockets."""
    reader, writer = await plane.connect()
    writer.write(ASK + b"\r\n")
    assert (await _head(reader)).startswith(b"HTTP/1.1 101 ")
    return reader, writer


class Backend:
    """A backend that grants every upgrade and hands the test the bare streams."""

    def __init__(self, answer: bytes = GRANTED) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.streams: asyncio.Queue[Streams] = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer and wait for the end of the test."""
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        self.streams.put_nowait((reader, writer))
        await self.over.wait()


async def test_text_and_large_binary_messages_pass_both_ways(tmp_path: Path) -> None:
    """With a WebSocket library at both ends; the tunnel is counted while it is open."""
    messages: list[str | bytes] = ["héllo", b"\x00\xff" * (2 * MIB), "", b"x" * 70_000]
    async with _websockets() as port, dataplane(tmp_path, primary=port) as plane:
        async with _client(plane) as client:
            for message in messages:
                await client.send(message)
                assert await client.recv() == message
            assert _is_open(plane) == 1
            assert plane.worker.pools["primary"].in_flight == 1
        await until(lambda: plane.count("served", "iris", Outcome.OK), "the end to be counted")
        assert _is_open(plane) == 0
        assert plane.worker.pools["primary"].statistics().idle == 0
        assert plane.count("latency_sum_us", "iris", "primary") == 0


async def test_the_backend_is_asked_for_the_protocol_and_told_who_asks(tmp_path: Path) -> None:
    """Hop-by-hop fields are rebuilt, end-to-end ones pass, both in the request and in the 101."""
    backend = Backend(
        b"HTTP/1.1 101 Go on\r\nConnection: Upgrade, x-hop\r\nUpgrade: WebSocket\r\nx-hop: 1\r\n"
        b"Sec-WebSocket-Accept: abc\r\nkeep-alive: timeout=1\r\n\r\nat once"
    )
    extra = b"sec-websocket-key: k\r\nte: trailers\r\nhttp2-settings: AAA\r\nupgrade: h2c\r\n\r\n"
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await plane.connect()
        writer.write(ASK + extra)
        granted = (await _head(reader)).lower()
        assert await asyncio.wait_for(reader.readexactly(7), PATIENCE_S) == b"at once"
        writer.close()
    asked = backend.heads[0].lower().split(b"\r\n")
    assert b"connection: upgrade" in asked
    assert b"upgrade: websocket" in asked
    assert b"sec-websocket-key: k" in asked
    assert b"x-forwarded-for: 127.0.0.1" in asked
    assert not [line for line in asked if line.startswith((b"te:", b"http2", b"content-", b"tr"))
                and not line.startswith(b"traceparent")]  # fmt: skip
    assert granted.startswith(b"http/1.1 101 switching protocols\r\n")
    assert b"\r\nconnection: upgrade\r\n" in granted
    assert b"\r\nupgrade: websocket\r\n" in granted
    assert b"\r\nsec-websocket-accept: abc\r\n" in granted
    assert b"x-hop" not in granted
    assert b"keep-alive" not in granted


async def test_a_tunnel_goes_to_the_primary_and_leaves_no_pair(tmp_path: Path) -> None:
    """Even at a canary weight of 100%, with everything mirrored, or with everything killed."""
    options = Options(weight_bp={"v2": 10_000}, replicate_bp=10_000)
    async with (
        _websockets() as port,
        Upstream(echo) as v2,
        dataplane(tmp_path, primary=port, candidates={"v2": v2.port}, options=options) as plane,
    ):
        for _ in range(2):
            async with _client(plane) as client:
                await client.send("x")
                assert await client.recv() == "x"
            plane.change(lambda state: kill(state, Scope(), Part.DEFAULT, "test"))
        await until(lambda: plane.count("served", "iris", Outcome.OK) == 2, "both to end")
        assert v2.requests == []
        assert plane.count("pairs_decided", "iris", "v2") == 0
        assert plane.count("canary", "iris", "v2") == 0


async def test_many_tunnels_at_once(tmp_path: Path) -> None:
    """Each gets its own bytes back."""
    async with _websockets() as port, dataplane(tmp_path, primary=port) as plane:

        async def talk(number: int) -> None:
            async with _client(plane) as client:
                for turn in range(5):
                    await client.send(f"{number}/{turn}" * 500)
                    assert await client.recv() == f"{number}/{turn}" * 500

        await asyncio.gather(*(talk(number) for number in range(40)))
        await until(lambda: plane.count("served", "iris", Outcome.OK) == 40, "all to end")
        assert _is_open(plane) == 0


@pytest.mark.parametrize("from_client", [True, False])
async def test_a_slow_reader_holds_the_sender_back(tmp_path: Path, from_client: bool) -> None:
    """What lies in the proxy is bounded; once the reader goes on, everything arrives."""
    backend = Backend()
    size = 24 * MIB
    async with (
        raw_server(backend, limit=4096) as port,
        dataplane(tmp_path, primary=port) as plane,
    ):
        near = await asyncio.open_connection("127.0.0.1", plane.port, limit=4096)
        near[1].write(ASK + b"\r\n")
        await _head(near[0])
        far = await backend.streams.get()
        (_, source), (sink, _) = (near, far) if from_client else (far, near)
        source.write(bytes(size))
        sending = asyncio.get_running_loop().create_task(source.drain())
        await until(lambda: _stands_still(source), "the sender to be held back")
        assert not sending.done()
        (connection,) = plane.connections
        leg = next(iter(plane.worker.pools["primary"].legs()))
        for transport in (connection.transport, leg._backend.transport):  # type: ignore[attr-defined]
            assert transport.get_write_buffer_size() < MIB
        for _ in range(size // MIB):
            await asyncio.wait_for(sink.readexactly(MIB), PATIENCE_S)
        await sending
        near[1].close()


_seen: dict[int, tuple[int, float]] = {}


def _stands_still(writer: asyncio.StreamWriter) -> bool:
    """Tell whether nothing has left the writer's buffer for 0.1 s."""
    left, now_s = writer.transport.get_write_buffer_size(), monotonic_s()
    before, since_s = _seen.get(id(writer), (-1, 0.0))
    if before != left:
        _seen[id(writer)] = left, now_s
        return False
    return left > 0 and now_s - since_s > 0.1


@pytest.mark.parametrize("status", [HTTPStatus.FORBIDDEN, HTTPStatus.UPGRADE_REQUIRED])
async def test_a_refused_upgrade_is_an_ordinary_answer(tmp_path: Path, status: HTTPStatus) -> None:
    """The client gets it whole, and the next request on its connection is served."""
    async with _websockets(refusal=status) as port, dataplane(tmp_path, primary=port) as plane:
        with pytest.raises(InvalidStatus) as caught:
            async with _client(plane):
                pass
        assert caught.value.response.status_code == status
        assert caught.value.response.body == b"no\n"
        assert plane.count("served", "iris", Outcome.HTTP_ERROR) == 1


async def test_what_follows_a_refused_upgrade_is_checked_as_a_request(tmp_path: Path) -> None:
    """It reaches the backend after its answer only, with our fields, or not at all."""
    hidden = b"GET /hidden HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 6.6.6.6\r\n\r\n"
    early: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            with pytest.raises(TimeoutError):
                early.append(await asyncio.wait_for(reader.read(100), 0.05))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")

    async with raw_server(refuse) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await plane.connect()
        writer.write(ASK + b"\r\n" + hidden + b"BAD\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 200
        assert (await read_answer(reader))[0] == 400
        writer.close()
    assert early == []
    assert plane.count("received") == 3


async def test_what_the_client_sends_early_is_tunnelled_after_the_101(tmp_path: Path) -> None:
    """In one read with the request or behind it; the backend sees none of it before its 101."""
    early: list[bytes] = []
    got = asyncio.get_running_loop().create_future()

    async def grant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            early.append(await asyncio.wait_for(reader.read(100), 0.05))
        writer.write(GRANTED)
        got.set_result(await reader.readexactly(10))

    async with raw_server(grant) as port, dataplane(tmp_path, primary=port) as plane:
        _, writer = await plane.connect()
        writer.write(ASK + b"\r\nfirst")
        await asyncio.sleep(0.01)
        writer.write(b"-last")
        assert await asyncio.wait_for(got, PATIENCE_S) == b"first-last"
        writer.close()
    assert early == []


async def test_an_endless_early_stream_is_bounded(tmp_path: Path) -> None:
    """A client that talks before the 101 is not read beyond one read or two."""
    backend = Backend(b"")
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        _, writer = await plane.connect()
        writer.write(ASK + b"\r\n" + bytes(24 * MIB))
        await until(lambda: _stands_still(writer), "the client to be held back")
        (connection,) = plane.connections
        assert len(connection._rest) < MIB
        writer.transport.abort()
        (_, far) = await backend.streams.get()
        far.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket, h2c\r\n\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
    ],
)
async def test_a_101_for_another_protocol_is_a_malformed_answer(
    tmp_path: Path, answer: bytes
) -> None:
    """502, and the connection to the backend is closed."""
    async with raw_server(Backend(answer)) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await plane.connect()
        writer.write(ASK + b"\r\n")
        assert (await read_answer(reader))[0] == 502
        writer.close()
        assert _is_open(plane) == 0


@pytest.mark.parametrize(
    "body", [b"content-length: 4\r\n\r\nbody", b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"]
)
async def test_an_upgrade_with_a_body_is_refused(tmp_path: Path, body: bytes) -> None:
    """RFC 9110 section 7.8 would have the body read in the old protocol first."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(ASK + body)
        status, fields, _ = await read_answer(reader)
        assert (status, fields[b"connection"]) == (400, b"close")
        writer.close()
        assert up.requests == []


_UPGRADE_H2C = b" / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "upgrades"),
    [
        (b"GET" + _UPGRADE_H2C + b"\r\n", ("websocket",)),
        (b"POST" + _UPGRADE_H2C + b"content-length: 1\r\n\r\nx", ("websocket",)),
        (ASK.replace(b", Upgrade", b"") + b"\r\n", ("websocket",)),
        (ASK.replace(b"/1.1", b"/1.0") + b"\r\n", ("websocket",)),
        (ASK.replace(b"upgrade: websocket\r\n", b"") + b"\r\n", ("websocket",)),
        (ASK + b"\r\n", ()),
    ],
    ids=["h2c", "h2c with body", "not in Connection", "HTTP/1.0", "no name", "turned off"],
)
async def test_other_upgrades_are_ordinary_requests(
    tmp_path: Path, request_bytes: bytes, upgrades: tuple[str, ...]
) -> None:
    """The field is dropped and the request served."""
    options = Options(upgrades=upgrades)
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port, options=options) as plane:
        reader, writer = await plane.connect()
        writer.write(request_bytes)
        assert (await read_answer(reader))[0] == 200
        writer.close()
    assert {b"upgrade", b"connection"}.isdisjoint(up.requests[0].names)


async def test_a_half_closed_side_still_gets_the_rest(tmp_path: Path) -> None:
    """The end of one direction is passed on; the other one goes on until it ends, too."""
    backend = Backend()
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await _tunnel(plane)
        far_reader, far_writer = await backend.streams.get()
        writer.write(b"question")
        writer.write_eof()
        assert await asyncio.wait_for(far_reader.read(), PATIENCE_S) == b"question"
        far_writer.write(b"answer")
        far_writer.write_eof()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"answer"
        await until(lambda: plane.count("served", "iris", Outcome.OK), "the tunnel to end")
        writer.close()


async def test_a_client_that_half_closed_before_the_101_is_tunnelled(tmp_path: Path) -> None:
    """Its end reaches the backend behind what it had sent."""
    backend = Backend()
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await plane.connect()
        writer.write(ASK + b"\r\nearly")
        writer.write_eof()
        far_reader, far_writer = await backend.streams.get()
        assert await asyncio.wait_for(far_reader.read(), PATIENCE_S) == b"early"
        far_writer.write(b"late")
        far_writer.write_eof()
        assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).endswith(b"\r\n\r\nlate")
        writer.close()


@pytest.mark.parametrize("resets", [True, False])
async def test_a_backend_sees_at_once_that_the_client_died(tmp_path: Path, resets: bool) -> None:
    """Whether it closed or reset its connection; a tunnel may be idle for an hour."""
    backend = Backend()
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        _, writer = await _tunnel(plane)
        far_reader, far_writer = await backend.streams.get()
        if resets:
            sock = writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert await asyncio.wait_for(far_reader.read(), PATIENCE_S) == b""
        far_writer.close()
        outcome = Outcome.CANCELLED if resets else Outcome.OK
        await until(lambda: plane.count("served", "iris", outcome), "the tunnel to end")
        assert _is_open(plane) == 0


async def test_a_client_sees_that_the_backend_died(tmp_path: Path) -> None:
    """The tunnel ends, and counts as a reset of the backend."""
    backend = Backend()
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await _tunnel(plane)
        _, far_writer = await backend.streams.get()
        sock = far_writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far_writer.transport.abort()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        await until(lambda: plane.count("served", "iris", Outcome.RESET), "the tunnel to end")
        writer.close()


async def test_a_websocket_client_sees_that_the_backend_died(tmp_path: Path) -> None:
    """Its library reports a connection that closed without a word."""

    async def die(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with _websockets(die) as port, dataplane(tmp_path, primary=port) as plane:
        client = await _client(plane)
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_an_idle_tunnel_is_ended(tmp_path: Path) -> None:
    """Bytes keep it alive, longer than the backend's time-out; silence does not."""
    options = Options(timeout_s=10.0, limits={"tunnel_idle_s": 600.0})
    backend = Backend()
    async with (
        raw_server(backend) as port,
        dataplane(tmp_path, primary=port, options=options) as plane,
    ):
        reader, writer = await _tunnel(plane)
        _, far_writer = await backend.streams.get()
        for _ in range(5):
            plane.age("primary", 40.0)
            far_writer.write(b".")
            assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b"."
        plane.age("primary", 600.0)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert plane.count("served", "iris", Outcome.TIMEOUT) == 1
        writer.close()


async def test_a_stop_ends_tunnels(tmp_path: Path) -> None:
    """The last part of the stop cancels what is left, on both sides."""
    backend = Backend()
    async with raw_server(backend) as port, dataplane(tmp_path, primary=port) as plane:
        reader, writer = await _tunnel(plane)
        far_reader, _ = await backend.streams.get()
        for connection in plane.connections:
            connection.shutdown()
        assert _is_open(plane) == 1
        await plane.worker.stop(0.0)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        assert await asyncio.wait_for(far_reader.read(), PATIENCE_S) == b""
        assert plane.count("served", "iris", Outcome.CANCELLED) == 1
        writer.close()


async def test_a_full_pool_refuses_the_upgrade(tmp_path: Path) -> None:
    """A tunnel takes one of the backend's places."""
    options = Options(primary_in_flight=1)
    backend = Backend()
    async with (
        raw_server(backend) as port,
        dataplane(tmp_path, primary=port, options=options) as plane,
    ):
        _, writer = await _tunnel(plane)
        reader, second = await plane.connect()
        second.write(ASK + b"\r\n")
        assert (await read_answer(reader))[0] == 503
        writer.close()
        second.close()
