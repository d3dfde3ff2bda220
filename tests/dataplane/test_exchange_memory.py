"""What exchanges keep in memory: bounded, given back, and never at the cost of a user."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from proxy.config.resolved import Bodies, Split, SplitKind
from proxy.dataplane import pairing
from proxy.dataplane.answer import GRANT_BYTES
from proxy.state.stats_page import Outcome, Skip
from tests.support.dataplane import Options, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.streams import CHUNKED, EVENTS, LAST, chunk
from tests.support.upstreams import Request, Upstream, answer, echo, hang, raw_answer

KIB = 1024
MIB = 1024 * KIB


async def test_a_body_too_large_to_mirror_is_not_held_against_the_others(tmp_path: Path) -> None:
    """Once it is not kept any more, its memory is free for the mirrors of other users."""
    limits = {"mirror_body_bytes": 600 * KIB, "memory_bytes": MIB, "record_body_bytes": 10}
    async with (
        Upstream(hang) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits=limits),
        ) as plane,
    ):
        writers = []
        for _ in range(3):
            _, writer = await plane.connect()
            writer.write(request_bytes(b"POST", b"/", bytes(700 * KIB), b""))
            writers.append(writer)
        await until(lambda: len(primary.requests) == 3, "the uploads")
        assert plane.worker.held_bytes == 0
        for writer in writers:
            writer.close()
        lines = await plane.pairs(3)
        check_ledger(plane)
        assert plane.count("mirror_skipped", "iris", "v2", Skip.BODY_TOO_LARGE) == 3
    assert {line["candidate_error"] for line in lines} == {"body_too_large"}


async def test_users_who_are_not_mirrored_cost_no_memory(tmp_path: Path) -> None:
    """A route with candidates keeps nothing of the exchanges that no candidate gets."""
    gate = asyncio.Event()

    async def half(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + bytes(10_000))
        await gate.wait()
        writer.write(bytes(10_000))

    async with (
        Upstream(half) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(mirror_bp={"v2": 0}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", bytes(5_000), b""))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(10_000)
        assert plane.worker.held_bytes == 0
        gate.set()
        await reader.readexactly(10_000)
        writer.close()


async def test_a_stream_is_accounted_for_as_it_grows_and_given_back_at_its_end(
    tmp_path: Path,
) -> None:
    """A kilobyte at a time: never less than what is kept, and no more than that ahead of it."""
    event = chunk(b"data: %b\n\n" % (b"x" * 90))
    go: asyncio.Queue[int] = asyncio.Queue()

    async def stream(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        writer.write(EVENTS + CHUNKED)
        while count := await go.get():
            for _ in range(count):
                writer.write(event)
                await asyncio.sleep(0)
        writer.write(LAST)

    async with (
        Upstream(stream) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        worker = plane.worker
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: len(worker.shadows) == 0, "the copy's answer")
            before, kept = worker.held_bytes, 0
            for count in (1, 3, 20, 50):
                go.put_nowait(count)
                await reader.readexactly(count * len(event))
                kept += count * 98
                assert kept <= worker.held_bytes - before <= kept + GRANT_BYTES
            go.put_nowait(0)
            await reader.readuntil(LAST)
        (line,) = await plane.pairs(1)
        assert worker.held_bytes == 0
    assert line["primary_response_bytes"] == kept


async def test_kept_answers_count_against_the_memory_limit(tmp_path: Path) -> None:
    """Hanging streams fill the budget and no more; records say truncated, users get everything."""
    gate = asyncio.Event()
    size = 30_000

    async def half(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * size) + b"a" * size)
        await gate.wait()
        writer.write(b"b" * size)

    async with (
        Upstream(half) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits={"memory_bytes": 100_000}),
        ) as plane,
    ):
        users = []
        for _ in range(6):
            reader, writer = await plane.connect()
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            await reader.readuntil(b"a" * 100)
            users.append((reader, writer))
        assert plane.worker.held_bytes <= 100_000
        gate.set()
        for reader, writer in users:
            await reader.readuntil(b"b" * 100)
            writer.close()
        lines = await plane.pairs(6)
        check_ledger(plane)
    assert {line["primary_status"] for line in lines} <= {"ok", "cancelled"}
    truncated = [line for line in lines if line["primary_body_state"] == "truncated"]
    assert len(truncated) >= 3
    for line in truncated:  # the start of the answer, never with a hole in it
        assert ("a" * size + "b" * size).startswith(line["primary_body"])


async def test_a_huge_answer_to_a_slow_reader_is_whole_and_bounded_with_mirrors(
    tmp_path: Path,
) -> None:
    """32 MiB from both sides: the user's arrives whole, the record keeps its limit of each."""
    total = 32 * MIB

    async def flood(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total // MIB):
            writer.write(b"z" * MIB)
            await writer.drain()

    async with (
        Upstream(flood) as primary,
        Upstream(flood) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits={"record_body_bytes": 1000}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert plane.worker.held_bytes <= 2001
        assert len(await reader.readexactly(total)) == total
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["primary_status"], line["candidate_status"]) == ("ok", "ok")
    assert line["candidate_response_bytes"] == line["primary_response_bytes"] == total
    assert len(line["candidate_body"]) == len(line["primary_body"]) == 1000


async def test_half_a_request_is_recorded_without_hash_and_body(tmp_path: Path) -> None:
    """A hash of the part that arrived would be taken for that of the request, a body replayed."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(bodies=Bodies.FULL),
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
        await until(lambda: primary.raw, "the primary's leg")
        writer.close()
        (line,) = await plane.pairs(1)
    assert (line["request_sha256"], line["request_body"]) == (None, None)
    assert line["candidate_error"] == "client_gone"


async def test_what_strangers_choose_is_not_remembered_without_bound(tmp_path: Path) -> None:
    """Unique paths of 4 KiB leave next to nothing behind in the worker."""
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        before = sum(map(len, pairing._PIECES.values()))
        for number in range(30):
            await plane.request(b"POST", b"/%d/%b" % (number, b"p" * 4000), body=b"x")
        lines = await plane.pairs(30)
        assert sum(map(len, pairing._PIECES.values())) - before < 30_000
        assert plane.worker.routes._known is not None
        assert sum(len(place[2]) for place in plane.worker.routes._known) < 30_000
    assert len({line["path"] for line in lines}) == 30


async def test_everything_at_once_leaves_nothing_behind(tmp_path: Path) -> None:
    """Good, bad, slow, large, half-sent, abandoned requests with mirrors, canary and replicates.

    The plane's end checks that no byte is held and no leg in flight; the ledger that none is lost.
    """

    async def moody(request: Request, writer: asyncio.StreamWriter) -> None:
        mood = request.body[:1]
        if mood == b"r":
            writer.transport.abort()
        elif mood == b"s":
            await raw_answer(b"HTTP/1.1 200 OK\r\nconte", b"nt-length: 1\r\n\r\n", pause_s=0.01)(
                request, writer
            )
            writer.write(b"1")
        else:
            await echo(request, writer)

    options = Options(
        weight_bp={"v2": 3_000}, replicate_bp=5_000, max_in_flight=8, deadlines={"v3": {"timeout_s": 0.5}},
        limits={"memory_bytes": 200_000, "mirror_body_bytes": 50_000, "record_body_bytes": 5_000},
    )  # fmt: skip
    async with (
        Upstream(echo) as primary,
        Upstream(moody) as candidate,
        Upstream(hang) as other,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port, "v3": other.port},
            options=options,
        ) as plane,
    ):

        async def user(number: int) -> None:
            mood = b"rsel"[number % 4 : number % 4 + 1]
            body = mood * (60_000 if mood == b"l" else 2_000)
            reader, writer = await plane.connect()
            extra = b"x-user-id: u%d\r\n" % number
            whole = request_bytes(b"POST", b"/", body, extra)
            if number % 5 == 0:
                writer.write(whole[: len(whole) // 2])
                await asyncio.sleep(0.01)
            elif number % 7 == 0:
                writer.write(whole + whole + whole[:50])
                await asyncio.sleep(0.01)
            else:
                writer.write(whole)
                status, _, _ = await read_answer(reader)
                assert status == 200
            writer.close()

        for start in range(0, 120, 24):
            await asyncio.gather(*(user(number) for number in range(start, start + 24)))
        await until(
            lambda: not any(pool.in_flight for pool in plane.worker.pools.values()), "the legs"
        )
        assert plane.worker.held_bytes == 0
        decided = sum(plane.count("pairs_decided", "iris", name) for name in ("v2", "v3"))
        await plane.pairs(decided)
        await until(plane.is_flushed, "the journal")
        check_ledger(plane)
        check_ledger(plane, "v3")


async def test_a_stop_cancels_what_is_left_and_records_it(tmp_path: Path) -> None:
    """Users whose backend hangs at the end of a graceful stop are cut, counted and recorded."""
    async with (
        Upstream(hang) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await until(lambda: primary.requests, "the primary's leg")
        await plane.worker.stop(0.0)
        assert (await read_answer(reader))[0] == 502
        (line,) = plane.lines()
        check_ledger(plane)
        assert plane.count("served", "iris", Outcome.CANCELLED) == 1
        writer.close()
    assert line["primary_error"] == "the proxy is shutting down"


async def test_a_stop_closes_the_books_on_a_request_that_is_not_whole(tmp_path: Path) -> None:
    """No leg was begun that could be cancelled: the request waited for the key in its body."""
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(split=Split(SplitKind.JSON, "user")),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234")
        await until(lambda: plane.count("in_flight", "iris") == 1, "the head, and a tick")
        await plane.worker.stop(0.0)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        check_ledger(plane)
        (line,) = plane.lines()
        assert plane.count("served", "iris", Outcome.CANCELLED) == 1
        assert plane.count("in_flight", "iris") == 0
        assert plane.worker.held_bytes == 0
        writer.close()
    assert (line["primary_status"], line["candidate_error"]) == ("not_sent", "client_gone")


@pytest.mark.parametrize("pipelined", [1, 2, 3])
async def test_pipelined_requests_of_a_client_that_leaves_are_all_counted(
    tmp_path: Path, pipelined: int
) -> None:
    """Each whose head was read is one request and one pair; what still waited unread is neither."""
    async with (
        Upstream(hang) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"primary": {"timeout_s": 0.2}}),
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b"") * pipelined)
        await until(lambda: primary.requests, "the first")
        writer.close()
        await until(lambda: not plane.connections, "the client to be gone")
        received = plane.count("received")
        lines = await plane.pairs(received)
        check_ledger(plane)
    assert {line["candidate_status"] for line in lines} <= {"not_sent", "ok"}
    assert len(lines) == received
    assert 1 <= received <= pipelined
