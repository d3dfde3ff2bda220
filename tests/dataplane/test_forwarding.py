"""What users see: the primary's answer, unchanged, whatever is mirrored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.dataplane import Options, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.upstreams import (
    Request,
    Upstream,
    answer,
    echo,
    hang,
    raw_answer,
    reset,
    unused_port,
)

MIB = 2**20


async def test_the_answer_of_the_primary_reaches_the_client_unchanged(tmp_path: Path) -> None:
    """Status, end-to-end fields and body are the primary's."""
    behaviour = answer(b'{"y": 1}', status=418, extra=b"x-model: 7\r\nset-cookie: a=b\r\n")
    async with Upstream(behaviour) as up, dataplane(tmp_path, primary=up.port) as plane:
        status, fields, body = await plane.request(b"POST", b"/p?q=1", body=b"hello")
    assert (status, body) == (418, b'{"y": 1}')
    assert fields[b"x-model"] == b"7"
    assert fields[b"set-cookie"] == b"a=b"
    assert up.requests[0].target == b"/p?q=1"
    assert up.requests[0].body == b"hello"
    assert up.requests[0].fields[b"host"] == b"test"


async def test_hop_by_hop_and_private_fields_are_not_forwarded(tmp_path: Path) -> None:
    """Connection and what it names, proxy credentials and x-understudy-* stop here."""
    extra = (
        b"connection: keep-alive, x-secret\r\nx-secret: 1\r\nproxy-authorization: x\r\n"
        b"x-understudy-mirror: 1\r\nte: trailers\r\nx-forwarded-for: 6.6.6.6\r\nx-kept: 2\r\n"
    )
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        await plane.request(b"POST", b"/", body=b"x", extra=extra)
    names = up.requests[0].names
    for name in (b"connection", b"x-secret", b"proxy-authorization", b"te"):
        assert name not in names
    assert not [name for name in names if name.startswith(b"x-understudy")]
    assert up.requests[0].fields[b"x-forwarded-for"] == b"127.0.0.1"
    assert up.requests[0].fields[b"x-kept"] == b"2"


async def test_request_id_and_traceparent_are_kept_or_made(tmp_path: Path) -> None:
    """Ours where the client sent none; the client's id, and a child of its trace, otherwise."""
    trace = b"0af7651916cd43dd8448eb211c80319c"
    extra = b"x-request-id: mine-1\r\ntraceparent: 00-%b-b7ad6b7169203331-01\r\n" % trace
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        _, made, _ = await plane.request(b"POST", b"/", body=b"x")
        _, kept, _ = await plane.request(b"POST", b"/", body=b"x", extra=extra)
    assert kept[b"x-request-id"] == b"mine-1"
    assert made[b"x-request-id"] == up.requests[0].fields[b"x-request-id"]
    parent = up.requests[1].fields[b"traceparent"]
    assert parent.startswith(b"00-" + trace)
    assert b"b7ad6b7169203331" not in parent


async def test_a_large_body_streams_before_it_is_whole(tmp_path: Path) -> None:
    """The primary has the first part while the client still holds the rest back."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (3 * MIB))
        writer.write(b"a" * MIB)
        await until(lambda: up.raw and len(up.raw[0]) > MIB, "the first part upstream")
        writer.write(b"b" * 2 * MIB)
        status, _, body = await read_answer(reader)
        writer.close()
    assert status == 200
    assert body == b"a" * MIB + b"b" * 2 * MIB


async def test_chunked_requests_and_answers_pass(tmp_path: Path) -> None:
    """Chunks are re-framed both ways; trailers are dropped."""
    chunked = raw_answer(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n",
    )
    async with Upstream(chunked) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwiki\r\n"
        )
        await until(lambda: up.raw, "a connection")
        writer.write(b"5;ext=1\r\npedia\r\n0\r\nauthorization: evil\r\n\r\n")
        status, fields, body = await read_answer(reader)
        writer.close()
    assert (status, body) == (200, b"abcde")
    assert b"x-trailer" not in fields
    assert up.requests[0].body == b"wikipedia"
    assert b"authorization" not in up.requests[0].names


async def test_an_answer_until_close_reaches_old_and_new_clients(tmp_path: Path) -> None:
    """HTTP/1.1 gets chunks, HTTP/1.0 gets bytes until the connection closes."""
    ended = raw_answer(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)
    async with Upstream(ended) as up, dataplane(tmp_path, primary=up.port) as plane:
        _, new, new_body = await plane.request(b"POST", b"/", body=b"x")
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.0\r\ncontent-length: 1\r\n\r\nx")
        _, old, old_body = await read_answer(reader)
        writer.close()
    assert new[b"transfer-encoding"] == b"chunked"
    assert b"transfer-encoding" not in old
    assert new_body == old_body == b"all of it"


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Ten requests in one write come back as ten answers in the same order."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        bodies = [b"body-%d" % number for number in range(10)]
        writer.write(b"".join(request_bytes(b"POST", b"/", body, b"") for body in bodies))
        answers = [await read_answer(reader) for _ in bodies]
        writer.close()
    assert [body for _, _, body in answers] == bodies


async def test_connections_are_kept_alive_on_both_sides(tmp_path: Path) -> None:
    """Many requests of one client use one connection upstream."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        for _ in range(5):
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            assert (await read_answer(reader))[0] == 200
        assert len(up.raw) == 1
        writer.close()


async def test_head_and_bodiless_answers_keep_the_connection_usable(tmp_path: Path) -> None:
    """HEAD's declared length brings no body, and the next request still works."""
    async with Upstream(answer(b"12345")) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        status, fields, _ = await read_answer(reader, b"HEAD")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        _, _, body = await read_answer(reader)
        writer.close()
    assert (status, fields[b"content-length"], body) == (200, b"5", b"12345")


async def test_expect_continue_is_answered_here(tmp_path: Path) -> None:
    """A client that waits for 100 gets it and then its answer."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).startswith(
            b"HTTP/1.1 100"
        )
        writer.write(b"ok")
        assert (await read_answer(reader))[2] == b"ok"
        writer.close()
    assert b"expect" not in up.requests[0].names


async def test_a_half_closed_client_gets_its_answer(tmp_path: Path) -> None:
    """Closing the sending side after the request is not leaving."""
    slow = raw_answer(b"HTTP/1.1 200 OK\r\n", b"content-length: 2\r\n\r\nok", pause_s=0.05)
    async with Upstream(slow) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        writer.write_eof()
        assert (await read_answer(reader))[2] == b"ok"
        assert await reader.read() == b""
        writer.close()


async def test_a_failing_primary_becomes_a_gateway_error(tmp_path: Path) -> None:
    """Refused is 502, silent is 504, broken before the answer is 502; each says why."""
    async with dataplane(tmp_path / "a", primary=unused_port()) as plane:
        status, fields, body = await plane.request(b"POST", b"/", body=b"x")
        assert status == 502
        assert b"connection_refused" in fields[b"proxy-status"]
        assert b"error" in body
    options = Options(timeout_s=0.1)
    async with (
        Upstream(hang) as up,
        dataplane(tmp_path / "b", primary=up.port, options=options) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 504
        assert plane.count("served", "iris", "timeout") == 1


async def test_an_answer_that_breaks_in_the_middle_is_cut_for_the_client_too(
    tmp_path: Path,
) -> None:
    """The client must see that the answer is not whole: never a clean end."""
    async with Upstream(reset) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 1000" in head
        try:
            rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        except ConnectionResetError:
            rest = b""
        assert len(rest) < 1000
        writer.close()
        await until(lambda: plane.count("served", "iris", "reset") == 1, "the outcome")


async def test_slow_readers_hold_the_backend_back(tmp_path: Path) -> None:
    """An answer of 64 MiB to a client that does not read does not pile up in memory."""
    total = 64 * MIB

    async def flood(request: object, writer: asyncio.StreamWriter) -> None:
        del request
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        piece = b"z" * MIB
        for _ in range(total // MIB):
            writer.write(piece)
            await writer.drain()
            sent.append(MIB)

    sent: list[int] = []
    async with Upstream(flood) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await until(lambda: len(sent) > 2, "the flood to begin")
        before = -1
        while before != len(sent):  # until backpressure has reached the backend
            before = len(sent)
            await asyncio.sleep(0.2)
        assert sum(sent) < total
        _, _, body = await read_answer(reader)
        assert len(body) == total
        writer.close()


async def test_a_whole_chunked_request_may_come_with_an_expectation(tmp_path: Path) -> None:
    """In one read with its body: there is nothing left to say 100 for."""
    async with Upstream(echo) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        reader, writer = await plane.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        first = await asyncio.wait_for(reader.readuntil(b"hello"), PATIENCE_S)
        assert first.startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_half_closed_client_gets_both_of_two_pipelined_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The second request is under way while nothing more is read; no callback fails."""
    gate = asyncio.Event()

    async def second_waits(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.body == b"2":
            await gate.wait()
        await echo(request, writer)

    async with (
        Upstream(second_waits) as primary,
        dataplane(tmp_path, primary=primary.port) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"1", b""))
        writer.write(request_bytes(b"POST", b"/", b"2", b""))
        writer.write_eof()
        assert (await read_answer(reader))[2] == b"1"
        await until(lambda: len(primary.requests) == 2, "the second request")
        gate.set()
        assert (await read_answer(reader))[2] == b"2"
        assert await reader.read() == b""
        writer.close()
    assert "Exception" not in caplog.text
