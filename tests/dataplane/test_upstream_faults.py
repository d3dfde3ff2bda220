"""Backends that break the order of things: early, interim, unasked, late and partial answers."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import closing
from pathlib import Path

import pytest

from proxy.config.resolved import Breaker, Split, SplitKind
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.endpoints import at, give_endpoints
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server, slamming_server
from tests.support.upstreams import (
    Behaviour,
    Request,
    Upstream,
    answer,
    echo,
    hang,
    raw_answer,
    unused_port,
)

KIB = 1024
MIB = 1024 * KIB
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def _both(tmp_path: Path, behaviour: Behaviour) -> tuple[list[bytes], list[str]]:
    """Ask a primary and a candidate that behave so three times; return bodies and statuses."""
    async with (
        Upstream(behaviour) as primary,
        Upstream(behaviour) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
        ) as plane,
    ):
        reader, writer = await plane.connect()
        bodies = []
        for _ in range(3):
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            bodies.append((await read_answer(reader))[2])
        writer.close()
        lines = await plane.pairs(3)
        check_ledger(plane)
    assert all(line["primary_body"] == line["candidate_body"] for line in lines)
    return bodies, [line["candidate_status"] for line in lines]


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 5,
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\nx-early: 1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("in_one_piece", [True, False])
async def test_interim_answers_are_passed_over(
    tmp_path: Path, interim: bytes, in_one_piece: bool
) -> None:
    """The final answer is the answer, on the serving and on the mirrored leg."""
    pieces = [interim + _OK] if in_one_piece else [interim, _OK]
    bodies, statuses = await _both(tmp_path, raw_answer(*pieces, pause_s=0.005))
    assert (bodies, statuses) == ([b"ok"] * 3, ["ok"] * 3)


async def test_trailers_of_an_answer_end_it_and_nothing_else(tmp_path: Path) -> None:
    """They are dropped; the connection serves the next request."""
    chunked = (
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2;ext=1\r\nok\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"
    )
    bodies, statuses = await _both(tmp_path, raw_answer(chunked))
    assert (bodies, statuses) == ([b"ok"] * 3, ["ok"] * 3)


async def test_a_backend_that_writes_one_byte_at_a_time_is_understood(tmp_path: Path) -> None:
    """Both legs put the answer together; nothing depends on how it was cut."""
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\nok"
    bytewise = raw_answer(*(whole[at : at + 1] for at in range(len(whole))))
    bodies, statuses = await _both(tmp_path, bytewise)
    assert (bodies, statuses) == ([b"ok"] * 3, ["ok"] * 3)


async def test_compressed_answers_pass_as_they_are(tmp_path: Path) -> None:
    """The user gets the primary's bytes and their encoding; the record keeps both, undecoded."""
    packed = gzip.compress(b'{"y": 1}' * 50)
    async with (
        Upstream(answer(packed, extra=b"content-encoding: gzip\r\n")) as primary,
        Upstream(answer(packed, extra=b"content-encoding: gzip\r\n")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _, fields, body = await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
    assert (fields[b"content-encoding"], body) == (b"gzip", packed)
    assert line["candidate_content_encoding"] == "gzip"
    assert line["candidate_body_encoding"] == "base64"


async def test_an_answer_before_the_request_is_whole_reaches_the_client(tmp_path: Path) -> None:
    """A backend that refuses an upload early is heard; the half-sent request is not mirrored."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        await writer.drain()
        await reader.read()

    async with (
        raw_server(refuse) as port,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=port,
            candidates={"v2": candidate.port},
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nsome")
        status, fields, body = await read_answer(reader)
        assert (status, fields[b"connection"], body) == (413, b"close", b"big")
        assert await reader.read() == b""
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert candidate.requests == []
    assert (line["primary_http_status"], line["candidate_status"]) == (413, "not_sent")
    assert line["candidate_error"] == "not_whole"


async def test_an_early_answer_survives_a_client_that_is_still_sending(tmp_path: Path) -> None:
    """A megabyte is on its way when the 413 comes; a reset must not destroy it (RFC 9112, 9.6)."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        await writer.drain()
        while await reader.read(65536):
            pass
        writer.close()

    async with (
        raw_server(refuse) as port,
        dataplane(tmp_path, primary=port) as plane,
    ):
        for _ in range(10):
            reader, writer = await plane.connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (4 * MIB))
            for _ in range(30):
                writer.write(bytes(64 * KIB))
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            with closing(writer):
                assert (await read_answer(reader))[::2] == (413, b"big")


async def test_a_refused_upload_gets_its_refusal(tmp_path: Path) -> None:
    """A body over the limit is answered 413 by the proxy, and the client can read it."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path, primary=primary.port, options=Options(limits={"request_body_bytes": 100_000})
        ) as plane,
    ):
        for _ in range(10):
            reader, writer = await plane.connect()
            writer.write(request_bytes(b"POST", b"/", bytes(2 * MIB), b""))
            await asyncio.sleep(0.02)
            with closing(writer):
                assert (await read_answer(reader))[0] == 413


async def test_bytes_that_nobody_asked_for_spoil_that_connection_only(tmp_path: Path) -> None:
    """An extra answer after the first is never given to the next user."""

    async def stutter(request: Request, writer: asyncio.StreamWriter) -> None:
        await echo(request, writer)
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")

    async with Upstream(stutter) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        for number in range(5):
            body = b"%d" % number
            assert (await plane.request(b"POST", b"/", body=body))[2] == body
            await asyncio.sleep(0.03)


async def test_a_backend_that_closes_what_it_accepts_is_noticed_at_once(tmp_path: Path) -> None:
    """As a load balancer with nobody behind it does: 502 at once, and not at the deadline."""
    with slamming_server() as port:
        async with (
            Upstream(echo) as primary,
            dataplane(tmp_path / "a", primary=port) as dead,
            dataplane(
                tmp_path / "b",
                primary=primary.port,
                candidates={"v2": port},
                options=Options(copies={"breaker": Breaker(failures=0)}),
            ) as plane,
        ):
            async with asyncio.timeout(PATIENCE_S):  # at the deadline it would be 504
                for _ in range(50):
                    assert (await dead.request(b"POST", b"/", body=b"x"))[0] == 502
                    assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
                lines = await plane.pairs(50)
            check_ledger(plane)
    assert {line["candidate_status"] for line in lines} == {"reset"}


async def test_a_backend_that_greets_before_it_is_asked_is_not_believed(tmp_path: Path) -> None:
    """An answer sent before the request belongs to nobody."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_OK)
        await reader.read(1000)
        writer.close()

    async with (
        raw_server(greet) as port,
        dataplane(tmp_path, primary=port) as plane,
    ):
        for _ in range(5):
            status, _, _ = await plane.request(b"POST", b"/", body=b"x")
            assert status in (200, 502)  # it may come just after the request was sent


async def test_a_connection_left_paused_by_a_slow_reader_notices_its_end(tmp_path: Path) -> None:
    """Pooled while the first client's buffer was full, it is read again: a dead one is dropped."""
    ends: list[asyncio.StreamWriter] = []

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        body = bytes(100 * KIB)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with Upstream(behave) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", plane.port))
            await until(lambda: plane.connections, "the connection")
            for connection in plane.connections:
                own = connection.transport.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.send(request_bytes(b"POST", b"/", b"x", b""))
            pool = plane.worker.pools["primary"]
            await until(lambda: ends and not pool.in_flight, "the answer to end unread")
            ends[0].close()
            await until(lambda: not pool.statistics().idle, "its end to be noticed")
            status, _, _ = await plane.request(b"POST", b"/", body=b"x")
            assert status == 200


async def test_a_stale_pooled_connection_costs_no_user_an_error(tmp_path: Path) -> None:
    """A backend that closes idle connections after each answer, as under a short keep-alive."""

    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        await echo(request, writer)
        await writer.drain()
        writer.close()

    async with Upstream(once) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        reader, writer = await plane.connect()
        for number in range(50):
            body = b"%d" % number
            writer.write(request_bytes(b"POST", b"/", body, b""))
            assert (await read_answer(reader))[::2] == (200, body)
        writer.close()


async def test_one_dead_endpoint_of_two_costs_no_user_an_error(tmp_path: Path) -> None:
    """`endpoints` are tried in turn: nothing was sent, so the next one can be asked."""
    async with Upstream(echo) as alive, dataplane(tmp_path, primary=alive.port) as plane:
        give_endpoints(plane, *at(unused_port(), alive.port))
        statuses = await asyncio.gather(
            *(plane.request(b"POST", b"/", body=b"x") for _ in range(10))
        )
    assert {status for status, _, _ in statuses} == {200}


async def test_pipelined_requests_may_end_in_the_middle_of_one(tmp_path: Path) -> None:
    """The second body comes after the first answer; it must still be read."""
    async with (
        Upstream(echo) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        reader, writer = await plane.connect()
        whole = request_bytes(b"POST", b"/", b"0123456789", b"")
        with closing(writer):
            writer.write(whole + whole[:-5])
            assert (await read_answer(reader))[2] == b"0123456789"
            writer.write(whole[-5:])
            assert (await read_answer(reader))[::2] == (200, b"0123456789")


async def test_a_client_that_pipelines_and_never_reads_is_held_back(tmp_path: Path) -> None:
    """The answers to 500 small requests must not pile up: what is not read is not asked for."""
    async with (
        Upstream(answer(bytes(128 * KIB))) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        _, writer = await plane.connect()
        with closing(writer):
            writer.write(request_bytes(b"POST", b"/", b"x", b"") * 500)
            before = -1
            while before != len(primary.requests):  # until nothing moves any more
                before = len(primary.requests)
                await asyncio.sleep(0.2)
            (connection,) = plane.connections
            assert connection.transport.get_write_buffer_size() < 2 * MIB


async def test_a_storm_of_connections_is_served(tmp_path: Path) -> None:
    """500 clients connect at once; each gets its own answer, and all are counted out."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(max_in_flight=50),
        ) as plane,
    ):

        async def user(number: int) -> bool:
            body = b"%d" % number
            return (await plane.request(b"POST", b"/", body=body))[2] == body

        assert all(await asyncio.gather(*(user(number) for number in range(500))))
        await plane.pairs(500)
        check_ledger(plane)
        await until(lambda: plane.count("connections_open") == 0, "the connections to close")


async def test_users_above_the_primarys_cap_are_told_so(tmp_path: Path) -> None:
    """503 at once for those above `max_in_flight`, recorded as shed; the others are untouched."""
    async with (
        Upstream(hang) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(primary_in_flight=3, timeout_s=600.0),
        ) as plane,
    ):
        users = asyncio.gather(*(plane.request(b"POST", b"/", body=b"x") for _ in range(8)))
        await until(lambda: plane.count("served", "iris", Outcome.SHED) == 5, "five to be told")
        plane.age("primary", 600.0)
        answers = await users
        lines = await plane.pairs(8)
        check_ledger(plane)
        assert plane.count("served", "iris", Outcome.SHED) == 5
    assert sorted(status for status, _, _ in answers) == [503] * 5 + [504] * 3
    shed = [line for line in lines if line["primary_status"] == "shed"]
    assert len(shed) == 5


@pytest.mark.parametrize("expects", [False, True])
async def test_a_json_split_reads_chunked_bodies_too(tmp_path: Path, expects: bool) -> None:
    """The key is found in a body that comes in chunks, with or without 100-continue."""
    options = Options(weight_bp={"v2": 10_000}, split=Split(SplitKind.JSON, "user"))
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        reader, writer = await plane.connect()
        expect = b"expect: 100-continue\r\n" if expects else b""
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\n%btransfer-encoding: chunked\r\n\r\n" % expect)
        if expects:
            interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            assert interim.startswith(b"HTTP/1.1 100")
        for piece in (b'{"us', b'er": "', b'ann"}'):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n")
        assert (await read_answer(reader))[2] == b'{"user": "ann"}'
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        writer.close()
    assert line["served_by"] == "candidate"
    assert candidate.requests[0].body == primary.requests[0].body
