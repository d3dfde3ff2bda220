"""Rescues under bad conditions: the user must get the primary's answer, whole and in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from proxy.state.kill import Scope, set_weight
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server, silent_listener
from tests.support.upstreams import (
    Behaviour,
    Request,
    Upstream,
    answer,
    echo,
    hang,
    raw_answer,
    reset,
    unused_port,
)

KIB = 1024
MIB = 1024 * KIB
CANARY = {"v2": 10_000}


def _is_held(plane: Plane) -> bool:
    """Tell whether the proxy has stopped reading its one client."""
    return any(connection._is_read_paused for connection in plane.connections)


_still: Counter[tuple[int, int]] = Counter()


def _stands_still(plane: Plane, writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client has been held at the same byte for many turns of the loop."""
    if not _is_held(plane):
        _still.clear()
    key = id(writer), writer.transport.get_write_buffer_size()
    _still[key] += 1
    return _still[key] > 50


@asynccontextmanager
async def _stuck_and_reset(gate: asyncio.Event) -> AsyncIterator[int]:
    """Run a backend that reads next to nothing, and resets when the gate opens; give its port."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await gate.wait()
        writer.transport.abort()

    async with raw_server(behave, limit=KIB) as port:
        yield port


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_goes_on_after_the_canary_that_held_it_back_has_died(
    tmp_path: Path, chunked: bool
) -> None:
    """The candidate stops reading, so the client is held; then it resets. The primary gets all."""
    gate = asyncio.Event()
    async with (
        _stuck_and_reset(gate) as port,
        Upstream(echo) as primary,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": port}, options=_large_uploads()
        ) as plane,
    ):
        reader, writer = await plane.connect()
        body = bytes(range(256)) * (96 * KIB)
        if chunked:
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 64 * KIB):
                writer.write(b"%x\r\n%b\r\n" % (64 * KIB, body[start : start + 64 * KIB]))
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(request_bytes(b"POST", b"/", body, b""))
        await until(lambda: _is_held(plane), "the client to be held")
        gate.set()
        status, _, answered = await read_answer(reader)
        writer.close()
        assert (status, answered == body) == (200, True)
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["rescued"], line["candidate_status"]) == (True, "reset")
    assert line["request_bytes"] == len(body)


async def test_a_rescue_by_a_primary_that_does_not_read_holds_the_client(tmp_path: Path) -> None:
    """What the candidate had taken is sent again; the rest of the upload waits at the client."""

    async def never_read(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    gate = asyncio.Event()
    async with (
        _stuck_and_reset(gate) as port,
        raw_server(never_read, limit=KIB) as primary,
        dataplane(
            tmp_path, primary=primary, candidates={"v2": port}, options=_large_uploads()
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", bytes(60 * MIB), b""))
        await until(lambda: _is_held(plane), "the client to be held")
        gate.set()
        await until(lambda: plane.count("rescued", "iris", "v2"), "the rescue")
        await until(lambda: _stands_still(plane, writer), "the client to be held for good")
        assert writer.transport.get_write_buffer_size() > 20 * MIB
        writer.transport.abort()  # of which we hear nothing: its end waits behind what is not read
        plane.age("primary", 600.0)
        await plane.pairs(1)
        check_ledger(plane)


def _large_uploads() -> Options:
    limits = {"mirror_body_bytes": 62 * MIB, "memory_bytes": 128 * MIB}
    return Options(weight_bp=CANARY, limits=limits)


async def test_an_upload_is_rescued_from_a_candidate_that_cannot_be_reached(tmp_path: Path) -> None:
    """The client waits while the candidate is being connected to; then the primary reads it."""
    with ExitStack() as silent:
        port = silent.enter_context(silent_listener())
        async with (
            Upstream(echo) as primary,
            dataplane(
                tmp_path,
                primary=primary.port,
                candidates={"v2": port},
                options=Options(
                    weight_bp=CANARY, timeout_s=20.0, deadlines={"v2": {"connect_timeout_s": 20.0}}
                ),
            ) as plane,
        ):
            reader, writer = await plane.connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\n")
            await until(lambda: plane.count("routed", "iris"), "the head")
            writer.write(b"0123456789")
            await until(lambda: _is_held(plane), "the client to be held")
            writer.write(b"0123456789" * 2)
            silent.close()  # its next SYN, a second later, is refused
            assert (await read_answer(reader))[2] == b"0123456789" * 3
            writer.close()
            (line,) = await plane.pairs(1)
            check_ledger(plane)
    assert (line["rescued"], line["candidate_status"]) == (True, "connect_error")


async def test_an_upload_in_pieces_survives_a_candidate_that_refuses(tmp_path: Path) -> None:
    """The rescue begins while the client is still sending, with nothing paused for ever."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=Options(weight_bp=CANARY),
        ) as plane,
    ):
        for _ in range(5):
            reader, writer = await plane.connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\n")
            for _ in range(3):
                writer.write(b"0123456789")
                await asyncio.sleep(0.002)
            assert (await read_answer(reader))[2] == b"0123456789" * 3
            writer.close()
        await plane.pairs(5)
        check_ledger(plane)


async def test_a_half_closed_client_gets_the_rescue(tmp_path: Path) -> None:
    """It sent its request and its end; the candidate dies; the primary's answer still comes."""
    async with (
        Upstream(answer(b"saved")) as primary,
        Upstream(raw_answer(b"HTTP/1.1 200", pause_s=0.1, close=True)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        writer.write_eof()
        assert (await read_answer(reader))[2] == b"saved"
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_during_the_rescue_is_counted_once(tmp_path: Path) -> None:
    """Both legs end, the record says what each did, and nothing is left behind."""
    async with (
        Upstream(hang) as primary,
        Upstream(raw_answer(close=True)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY),
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await until(lambda: plane.count("rescued", "iris", "v2") and primary.requests, "the rescue")
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("served", "iris", Outcome.CANCELLED) == 1
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "reset")


async def test_the_copy_at_the_primary_does_not_stand_in_the_way_of_its_own_rescue(
    tmp_path: Path,
) -> None:
    """A primary that is full of nothing but this exchange's copy has room for its rescue."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        mirrored = b"x-understudy-mirror" in request.fields
        await (hang if mirrored else answer(b"saved"))(request, writer)

    async with (
        Upstream(behave) as primary,
        Upstream(raw_answer(pause_s=0.1, close=True)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, primary_in_flight=1),
        ) as plane,
    ):
        _, _, body = await plane.request(b"POST", b"/", body=b"x")
        assert body == b"saved"
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["rescued"], line["primary_status"]) == (True, "ok")


async def test_copies_never_take_the_room_that_users_need(tmp_path: Path) -> None:
    """Replicates hang at the primary; users are still served up to its cap, none is refused."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        mirrored = b"x-understudy-mirror" in request.fields
        await asyncio.sleep(0.02)
        await (hang if mirrored else answer(b"ok"))(request, writer)

    async with (
        Upstream(behave) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(replicate_bp=10_000, primary_in_flight=4),
        ) as plane,
    ):
        for _ in range(6):
            users = (plane.request(b"POST", b"/", body=b"x") for _ in range(2))
            assert [status for status, _, _ in await asyncio.gather(*users)] == [200, 200]


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("weight_bp", [0, 10_000])
async def test_answers_without_a_body_leave_whole_pairs(
    tmp_path: Path, status: int, weight_bp: int
) -> None:
    """204 and 304, with a length and without, from both sides, served and mirrored."""
    bare = raw_answer(b"HTTP/1.1 %d X\r\netag: 1\r\n\r\n" % status)
    declared = raw_answer(b"HTTP/1.1 %d X\r\ncontent-length: 7\r\n\r\n" % status)
    async with (
        Upstream(bare) as primary,
        Upstream(declared) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": weight_bp}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        for _ in range(3):  # on one connection: nothing of one answer may run into the next
            writer.write(request_bytes(b"POST", b"/", b"x", b""))
            assert (await read_answer(reader))[0] == status
        writer.close()
        lines = await plane.pairs(3)
        check_ledger(plane)
    assert {(x["primary_status"], x["candidate_status"]) for x in lines} == {("ok", "ok")}
    assert {x["candidate_response_bytes"] for x in lines} == {0}


@pytest.mark.parametrize("weight_bp", [0, 10_000])
async def test_head_requests_are_mirrored_and_recorded(tmp_path: Path, weight_bp: int) -> None:
    """The declared length of an answer to HEAD brings no body on any leg."""
    async with (
        Upstream(answer(b"12345")) as primary,
        Upstream(answer(b"1234567")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": weight_bp}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        for _ in range(3):
            writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
            status, fields, _ = await read_answer(reader, b"HEAD")
            assert (status, fields[b"content-length"]) == (200, b"7" if weight_bp else b"5")
        writer.close()
        lines = await plane.pairs(3)
        check_ledger(plane)
    assert {(x["primary_status"], x["candidate_status"]) for x in lines} == {("ok", "ok")}
    assert {x["method"] for x in lines} == {"HEAD"}


async def test_a_canary_that_streams_and_breaks_is_cut_and_not_rescued(tmp_path: Path) -> None:
    """After the first byte there is no way back: the user sees a broken answer, never a mixed one."""
    broken = raw_answer(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"3\r\nde",
        pause_s=0.02,
        close=True,
    )
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(broken) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await reader.readuntil(b"abc")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), PATIENCE_S)
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("served", "iris", Outcome.RESET) == 1
        assert plane.count("rescued", "iris", "v2") == 0
    assert (line["candidate_status"], line["candidate_stream_complete"]) == ("reset", False)
    assert line["primary_body"] == "old"


async def test_replicates_are_sampled_while_a_canary_serves(tmp_path: Path) -> None:
    """The primary is asked twice beside the candidate: the copy and the replicate."""
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, replicate_bp=10_000),
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"c"
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert len(primary.requests) == 2
    assert (line["primary_body"], line["replicate_body"]) == ("p", "p")
    assert line["served_by"] == "candidate"


@pytest.mark.parametrize("behaviour", [reset, hang, raw_answer(close=True)])
async def test_a_weight_that_moves_under_load_loses_no_answer(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    """0%, 30%, 100%, 0% of the users on a candidate that fails: nothing but right or cut answers."""
    async with (
        Upstream(echo) as primary,
        Upstream(behaviour) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"v2": {"first_byte_timeout_s": 0.2}}),
        ) as plane,
    ):
        failed: list[bytes] = []

        async def user(number: int) -> None:
            for turn in range(10):
                body = b"%d-%d" % (number, turn)
                extra = b"x-user-id: %b\r\n" % body
                try:
                    got = (await plane.request(b"POST", b"/", body=body, extra=extra))[2]
                    assert got == body
                except (ConnectionResetError, asyncio.IncompleteReadError):
                    failed.append(body)

        users = asyncio.gather(*(user(number) for number in range(20)))
        for weight_bp in (3_000, 10_000, 0):
            await asyncio.sleep(0.03)
            plane.change(partial(set_weight, scope=Scope("iris", "v2"), weight_bp=weight_bp))
        await users
        await plane.pairs(200)
        check_ledger(plane)
    assert behaviour is reset or not failed
