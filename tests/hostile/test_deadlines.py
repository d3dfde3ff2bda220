"""Clients that take too long, or come in too great numbers: ended in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import uvloop

from proxy.config.resolved import Split, SplitKind
from proxy.dataplane.deadlines import Clients, Deadlines, Stage, deadlines_of
from proxy.dataplane.standstill import STALL_S
from proxy.telemetry import monotonic_s
from tests.hostile.stage import SHORT
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.resolved_config import small_config
from tests.support.upstreams import Upstream, answer, echo, hang
from tests.support.worker_process import worker_config, worker_process

MIB = 2**20
#: For a client that is where its deadline is to find it; on its way there it has time.
QUICK = replace(SHORT, head_s=0.3, body_idle_s=0.3)
LONG = replace(
    SHORT, head_s=600.0, body_idle_s=600.0, keep_alive_s=600.0, flush_s=600.0, linger_s=600.0
)
HALF_HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
HALF_BODY = HALF_HEAD + b"content-length: 1000\r\n\r\nsome"


@asynccontextmanager
async def quick_plane(
    tmp_path: Path, upstream: Upstream, deadlines: Deadlines = QUICK, timeout_s: float = 5.0
) -> AsyncIterator[Plane]:
    """Run a worker whose clients must be quick."""
    options = Options(timeout_s=timeout_s)
    async with upstream, dataplane(tmp_path, primary=upstream.port, options=options) as plane:
        plane.worker.clients.deadlines = deadlines
        yield plane


async def reaches(plane: Plane, stage: Stage) -> None:
    """Wait until the only client is in a stage."""
    (client,) = await until(lambda: tuple(plane.connections), "the client")
    await until(lambda: client.stage()[0] is stage, f"{client} to come to {stage}")


async def test_a_head_that_drips_is_answered_408(tmp_path: Path) -> None:
    """The deadline is for the whole head: a byte now and then buys no time."""
    async with quick_plane(tmp_path, Upstream(echo), LONG) as plane:
        began_s = monotonic_s()
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(HALF_HEAD)
            await reaches(plane, Stage.HEAD)
            plane.worker.clients.deadlines = QUICK
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(_drip(writer))
                await until(lambda: not plane.connections, "its end")
                dripping.cancel()
            assert monotonic_s() - began_s >= 0.3
            assert (await read_answer(reader))[0] == 408
        assert plane.count("rejected", "timeout") == 1


async def test_a_connection_that_says_nothing_is_closed_in_silence(tmp_path: Path) -> None:
    """A 408 to a question never asked would be taken for the answer to the first one."""
    async with quick_plane(tmp_path, Upstream(echo)) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


@pytest.mark.parametrize(
    "framing",
    [b"content-length: 1000\r\n\r\nsome", b"transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n"],
)
async def test_a_body_that_stops_is_answered_408(tmp_path: Path, framing: bytes) -> None:
    """And the backend that was being sent it is released."""
    async with quick_plane(tmp_path, Upstream(echo), replace(LONG, body_idle_s=0.3)) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(HALF_HEAD + framing)
            assert (await read_answer(reader))[0] == 408
        await until(lambda: not plane.worker.pools["primary"].in_flight, "the leg to end")


async def test_a_body_that_stops_is_the_clients_fault_also_when_the_backend_runs_out_of_time(
    tmp_path: Path,
) -> None:
    """504 would blame a backend that has not been asked yet."""
    async with quick_plane(tmp_path, Upstream(echo), LONG, timeout_s=0.3) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(HALF_BODY)
            assert (await read_answer(reader))[0] == 408


async def _drip(writer: asyncio.StreamWriter, drop: bytes = b"x") -> None:
    """Send a little now and then."""
    with suppress(ConnectionError):
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)


async def test_a_body_that_the_decision_waits_for_must_be_whole_in_time(tmp_path: Path) -> None:
    """No backend's deadline holds yet, so a drip would last for ever."""
    options = Options(split=Split(SplitKind.JSON, "user"), limits={"body_timeout_s": 0.3})
    async with (
        Upstream(echo) as up,
        dataplane(tmp_path, primary=up.port, candidates={"v2": up.port}, options=options) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(HALF_BODY)
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(_drip(writer))
                assert (await read_answer(reader))[0] == 408
                dripping.cancel()
        assert not up.requests


async def test_a_slow_body_that_keeps_coming_is_waited_for(tmp_path: Path) -> None:
    """The deadline of a body is for the gaps in it."""
    up = Upstream(echo)
    async with quick_plane(tmp_path, up, LONG) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(HALF_HEAD + b"content-length: 12\r\n\r\n")
            for number in range(12):
                await until(lambda: up.raw and up.raw[0].endswith(b"\n" + b"x" * number), "a piece")  # noqa: B023 - awaited at once
                plane.worker.clients.sweep(monotonic_s() + 40 * number)
                writer.write(b"x")
            assert (await read_answer(reader))[::2] == (200, b"x" * 12)


async def test_idle_connections_are_closed_and_busy_ones_kept(tmp_path: Path) -> None:
    """Empty lines between requests are no business."""
    async with quick_plane(tmp_path, Upstream(echo), LONG) as plane:
        clients = plane.worker.clients
        reader, writer = await plane.connect()
        with closing(writer):
            for number in range(8):
                writer.write(request_bytes(b"POST", b"/", b"x", b""))
                assert (await read_answer(reader))[0] == 200
                clients.sweep(monotonic_s() + 40 * number)
            clients.deadlines = replace(LONG, keep_alive_s=0.3)
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            assert (await read_answer(reader))[0] == 200
            clients.sweep(monotonic_s())
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(_drip(writer, b"\r\n"))
                await until(lambda: not plane.connections, "its end")
                dripping.cancel()


async def test_a_client_that_never_reads_its_last_answer_is_dropped(tmp_path: Path) -> None:
    """Closing in order waits for the client to read; not for ever."""
    async with quick_plane(tmp_path, Upstream(answer(bytes(60_000))), LONG) as plane:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", plane.port))
            await until(lambda: plane.connections, "the connection")
            (connection,) = plane.connections
            own = connection.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            request = request_bytes(b"POST", b"/", b"x", b"connection: close\r\n")
            await loop.sock_sendall(sock, request)
            await until(lambda: plane.count("served", "iris", "ok"), "the answer to end unread")
            assert connection.stage()[0] is Stage.FLUSHING
            plane.worker.clients.deadlines = replace(LONG, flush_s=0.3)
            await until(lambda: not plane.connections, "the connection to be dropped")


async def test_a_refused_client_that_never_closes_is_dropped(tmp_path: Path) -> None:
    """It has `linger_s` to notice the refusal, however much it still sends."""
    async with quick_plane(tmp_path, Upstream(echo), LONG) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(b"nonsense\r\n\r\n")
            assert (await read_answer(reader))[0] == 400
            plane.worker.clients.deadlines = replace(LONG, linger_s=0.2)
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(_drip(writer, b"more"))
                await until(lambda: not plane.connections, "its end")
                dripping.cancel()


async def test_slowloris_takes_nothing_from_others(tmp_path: Path) -> None:
    """300 sockets that drip: a user is served all the while, and then all 300 are gone."""
    async with quick_plane(
        tmp_path, Upstream(echo), replace(SHORT, head_s=2.5, keep_alive_s=600.0)
    ) as plane:
        slow = await asyncio.gather(*(plane.connect() for _ in range(300)))
        try:
            reader, writer = await plane.connect()
            with closing(writer):
                for number in range(100):
                    for _, dripping in slow[number::100]:
                        dripping.write(HALF_HEAD if number < 50 else b"x")
                    writer.write(request_bytes(b"POST", b"/", b"x", b""))
                    assert (await read_answer(reader))[0] == 200
            await until(lambda: not plane.connections, "all of them to be gone")
        finally:
            for _, dripping in slow:
                dripping.close()
        assert plane.worker.clients.statistics().expired >= 300


@pytest.mark.slow
async def test_a_thousand_slowloris_sockets_are_ended_at_their_deadline(tmp_path: Path) -> None:
    """On a worker process whose config says 3 s: a user is served all the while, and none is left."""
    async with Upstream(echo) as upstream:
        config = worker_config(tmp_path, f"http://127.0.0.1:{upstream.port}")
        limits = replace(config.limits, head_timeout_s=3.0)
        with worker_process(replace(config, limits=limits)) as (_, url):
            port = int(url.rpartition(":")[2])
            slow = [await _dripping(port) for _ in range(1000)]
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with closing(writer):
                    for number in range(100):
                        for _, dripping in slow[number::100]:
                            dripping.write(b"x")
                        writer.write(request_bytes(b"POST", b"/", b"x", b""))
                        assert (await read_answer(reader))[0] == 200
                ends = await asyncio.gather(*(_end_of(reader) for reader, _ in slow))
                assert set(ends) == {b"HTTP/1.1 408 Request Timeout"}
            finally:
                for _, dripping in slow:
                    dripping.close()


async def _dripping(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and begin a head at once: who says nothing would be closed in silence."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HALF_HEAD)
    return reader, writer


async def _end_of(reader: asyncio.StreamReader) -> bytes:
    """Return the first line of what came before the end."""
    return (await asyncio.wait_for(reader.read(), PATIENCE_S)).partition(b"\r\n")[0]


async def test_the_deadlines_of_a_worker_are_those_of_its_config(tmp_path: Path) -> None:
    """Each of the three keys."""
    limits = {"head_timeout_s": 2.0, "body_timeout_s": 2.1, "keep_alive_s": 2.2}
    options = Options(limits=limits)
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port, options=options) as plane:

        async def ends(sent: bytes, status: int) -> None:
            reader, writer = await plane.connect()
            with closing(writer):
                writer.write(sent)
                assert (await read_answer(reader))[0] == status
                assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""

        whole = request_bytes(b"POST", b"/", b"x", b"")
        await asyncio.gather(ends(HALF_HEAD, 408), ends(HALF_BODY, 408), ends(whole, 200))


async def test_the_cap_of_a_worker_is_that_of_its_config(tmp_path: Path) -> None:
    """Of two, the idle one makes room, long before its deadline."""
    options = Options(limits={"connections": 1})
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port, options=options) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            await until(lambda: plane.connections, "the one that there may be")
            assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


async def test_above_the_cap_those_that_keep_nobody_waiting_make_room(tmp_path: Path) -> None:
    """A flood of half heads shuts nobody out; the oldest of them are dropped."""
    deadlines = replace(SHORT, head_s=600.0, max_connections=20)
    async with quick_plane(tmp_path, Upstream(echo), deadlines) as plane:
        slow = [await plane.connect() for _ in range(20)]
        try:
            for _, writer in slow:
                writer.write(HALF_HEAD)
            for _ in range(5):
                assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
            assert await asyncio.wait_for(slow[0][0].read(), PATIENCE_S) == b""
            assert plane.worker.clients.statistics().dropped >= 1
        finally:
            for _, writer in slow:
                writer.close()


async def test_above_the_cap_users_at_work_are_not_disturbed(tmp_path: Path) -> None:
    """Where all are being served, the newcomer is told to come back."""
    deadlines = replace(SHORT, max_connections=5)
    async with quick_plane(tmp_path, Upstream(hang), deadlines) as plane:
        busy = [await plane.connect() for _ in range(5)]
        try:
            for _, writer in busy:
                writer.write(request_bytes(b"POST", b"/", b"x", b""))
            pool = plane.worker.pools["primary"]
            await until(lambda: pool.in_flight == 5, "the five to be at work")
            reader, writer = await plane.connect()
            with closing(writer):
                status, fields, _ = await read_answer(reader)
            assert (status, fields[b"connection"]) == (503, b"close")
            assert pool.in_flight == 5
            assert plane.worker.clients.statistics().refused == 1
        finally:
            for _, writer in busy:
                writer.close()


async def test_errors_to_a_head_request_have_no_body(tmp_path: Path) -> None:
    """RFC 9110 section 9.3.2: it would be read as the next answer."""
    async with quick_plane(tmp_path, Upstream(hang), LONG, timeout_s=0.2) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            for _ in range(2):
                writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await read_answer(reader, b"HEAD"))[0] == 504
            writer.write(b"HEAD / HTTP/1.1\r\nhost: a b\r\n\r\n")
            assert (await read_answer(reader, b"HEAD"))[0] == 400
            assert await reader.read() == b""


@pytest.mark.parametrize(
    ("start", "filler"),
    [
        (HALF_HEAD, b"x-filler: " + b"a" * 86 + b"\r\n"),
        (HALF_HEAD + b"x-filler: ", b"a" * 100),
        (b"GET /", b"a" * 100),
        (b"", b"\r\n" * 50),
        (HALF_HEAD + b"transfer-encoding: chunked\r\n\r\n5;", b"a" * 100),
        (HALF_HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: " + b"a" * 95 + b"\r\n"),
    ],
    ids=["fields", "one field", "target", "empty lines", "chunk extension", "trailers"],
)
def test_an_endless_head_costs_no_memory(tmp_path: Path, start: bytes, filler: bytes) -> None:
    """60 MB of it grow the worker by less than 1 MiB."""
    config = worker_config(tmp_path, "http://127.0.0.1:9")
    with worker_process(config) as (process, url):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        # The first answer comes when the worker is up, and reading fast has filled its buffers.
        for _ in range(20):
            assert b" 502 " in _pour(address, request_bytes(b"POST", b"/", bytes(MIB), b""), b"", 0)
        memory = psutil.Process(process.pid)
        before = memory.memory_info().rss
        _pour(address, start, filler * 600, 60 * MIB)
        assert memory.memory_info().rss - before < MIB


def _pour(address: tuple[str, int], start: bytes, filler: bytes, size: int) -> bytes:
    """Send `start` and `size` bytes of filler, as far as they are taken; return what came back."""
    with socket.create_connection(address, timeout=PATIENCE_S) as sock, suppress(OSError):
        sock.sendall(start)
        sent = 0
        while sent < size:
            sock.sendall(filler)
            sent += len(filler)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while not re.search(rb"^HTTP/1.1 [2-5]", answer, re.MULTILINE):  # a 100 may come before
            piece = sock.recv(65536)
            if not piece:
                break
            answer += piece
        return answer
    return b""


class _Client:
    """A connection that is where the test says."""

    def __init__(self, stage: Stage, mark: object = None) -> None:
        self.now: tuple[Stage, object] = stage, mark
        self.expired: list[Stage] = []

    def stage(self) -> tuple[Stage, object]:
        """Return what the test has set."""
        return self.now

    def exchange_under_way(self) -> None:
        """There is none."""

    def expire(self, stage: Stage) -> None:
        """Keep it."""
        self.expired.append(stage)

    def drop(self) -> None:
        """Never asked for here."""
        raise AssertionError

    give_up = drop


@pytest.mark.parametrize(
    ("stage", "allowed_s"),
    [
        (Stage.NEW, 10),
        (Stage.HEAD, 10),
        (Stage.BODY, 30),
        (Stage.IDLE, 75),
        (Stage.FLUSHING, 30),
        (Stage.LINGERING, 5),
    ],
)
async def test_each_stage_has_its_deadline(stage: Stage, allowed_s: float) -> None:
    """Getting on, or into another stage, starts the clock afresh; serving has none here."""
    clients, stuck, moving, serving = (
        Clients(deadlines_of(small_config(Path()).limits)),
        _Client(stage),
        _Client(stage),
        _Client(Stage.SERVING),
    )
    for client in (stuck, moving, serving):
        assert clients.opened(client)
    now_s = monotonic_s()
    clients.sweep(now_s)
    clients.sweep(now_s + allowed_s - 0.1)
    assert stuck.expired == []
    moving.now = stage, "got on"
    clients.sweep(now_s + allowed_s)
    assert (stuck.expired, moving.expired) == ([stage], [])
    clients.sweep(1e9)
    assert moving.expired == [stage]
    assert serving.expired == []
    for client in (stuck, moving, serving):
        clients.closed(client)
    assert clients.statistics().by_stage == {}


class _Watched(_Client):
    """One that notes when it is looked at, and when the loop has turned since."""

    def __init__(self, looks: list[_Watched | None]) -> None:
        super().__init__(Stage.HEAD)
        self._looks = looks

    def stage(self) -> tuple[Stage, object]:
        """Note it."""
        self._looks.append(self)
        asyncio.get_running_loop().call_soon(self._looks.append, None)
        return super().stage()


async def test_a_crowd_is_looked_at_a_few_at_a_time() -> None:
    """All in one go, or fifty, would hold up a user's request; yet none is left out."""
    looks: list[_Watched | None] = []
    clients = Clients(replace(SHORT, sweep_s=0.5, head_s=600.0, max_connections=1000))
    crowd = [_Watched(looks) for _ in range(500)]
    for client in crowd:
        clients.opened(client)
    await until(lambda: len(set(looks)) == 500 + 1, "all to be looked at")
    turns = "".join("." if look is None else "x" for look in looks).split(".")
    assert max(map(len, turns)) == 4
    for client in crowd:
        clients.closed(client)


def test_a_loop_that_stood_still_blames_no_client() -> None:
    """What they sent meanwhile is read first; who sent nothing is ended after that."""
    clients = Clients(replace(SHORT, sweep_s=0.2, head_s=1.0, max_connections=1000))
    silent, talking = _Client(Stage.HEAD), [_Client(Stage.HEAD) for _ in range(40)]

    async def stand_still() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        bell, ringer = socket.socketpair()

        def sleep() -> None:
            loop.remove_reader(bell)
            theirs.sendall(b"x")
            time.sleep(1.0 + 2 * STALL_S)

        def read() -> None:
            loop.remove_reader(ours)
            for client in talking:
                client.now = Stage.SERVING, None

        for client in (silent, *talking):
            clients.opened(client)
        await until(lambda: clients.statistics().by_stage.get(Stage.HEAD) == 41, "the sweep")
        with ours, theirs, bell, ringer:
            loop.add_reader(ours, read)
            loop.add_reader(bell, sleep)  # what comes while sockets are read is found after timers
            ringer.sendall(b"x")
            await until(lambda: silent.expired, "who sends nothing to be ended")
        assert not any(client.expired for client in talking)
        for client in (silent, *talking):
            clients.closed(client)

    uvloop.run(stand_still())
