"""Streams that end too early: cut by the backend, or given up by the client."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, Plane, dataplane, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server, silent_listener
from tests.support.streams import CHUNKED, EVENTS, LAST, UNTIL_CLOSE, chunk
from tests.support.upstreams import Behaviour, Request, Upstream, answer, hang

KIB = 1024
ASK = request_bytes(b"POST", b"/", b"x", b"")
CANARY = {"v2": 10_000}
#: Whoever is released in a test is, long before that.
NEVER = Options(timeout_s=600.0)
NOT_CONNECTED = Options(timeout_s=600.0, deadlines={"primary": {"connect_timeout_s": 600.0}})


def _cut(how: str, head: bytes = EVENTS + CHUNKED) -> Behaviour:
    """Send a head and an event, then end so."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        event = b"data: 1\n\n"
        writer.write(head + (chunk(event) if head.endswith(CHUNKED) else event))
        await writer.drain()
        await asyncio.sleep(0.02)
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif how == "close":
            writer.close()
        elif how == "garbage":
            writer.write(b"\r\nnot a chunk\r\n")
        else:
            await asyncio.Event().wait()

    return behave


async def _see_cut(plane: Plane, ask: bytes = ASK) -> bytes:
    """Return what the client got of an answer that is cut; fail if it ends cleanly."""
    reader, writer = await plane.connect()
    with closing(writer):
        writer.write(ask)
        got = await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), PATIENCE_S)
        try:
            got += await asyncio.wait_for(reader.read(), PATIENCE_S)
        except ConnectionResetError:
            return got
    assert not got.endswith(LAST)
    assert b"chunked" in got  # without chunks, the end of the connection is a clean end
    return got


@pytest.mark.parametrize("role", ["primary", "candidate"])
@pytest.mark.parametrize(
    ("how", "status"),
    [("reset", "reset"), ("close", "reset"), ("garbage", "reset"), ("stall", "timeout")],
)
async def test_a_cut_stream_is_cut_for_the_user_and_recorded_as_cut(
    tmp_path: Path, role: str, how: str, status: str
) -> None:
    """On the serving leg, be it the primary's or a canary's: there is no way back."""
    cut = _cut(how)
    serves = role == "candidate"
    async with (
        Upstream(answer(b"whole") if serves else cut) as primary,
        Upstream(cut if serves else answer(b"whole")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(
                weight_bp=CANARY if serves else {},
                deadlines={"v2" if serves else "primary": _idle(how)},
            ),
        ) as plane,
    ):
        await _see_cut(plane)
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("served", "iris", status) == 1
    other = "primary" if serves else "candidate"
    assert (line[f"{role}_status"], line[f"{role}_stream_complete"]) == (status, False)
    assert (line[f"{role}_body"], line[f"{role}_http_status"]) == ("data: 1\n\n", 200)
    assert (line[f"{other}_status"], line[f"{other}_body"]) == ("ok", "whole")


def _idle(how: str) -> dict[str, float]:
    """Return deadlines that end a stall; who is only slow to notice another cut must not run into one."""
    return {"idle_timeout_s": 0.15 if how == "stall" else 600.0}


@pytest.mark.parametrize(
    ("how", "status"),
    [("reset", "reset"), ("close", "reset"), ("garbage", "reset"), ("stall", "timeout")],
)
async def test_a_copy_that_is_cut_is_recorded_and_not_noticed(
    tmp_path: Path, how: str, status: str
) -> None:
    """What came of it so far is kept."""
    async with (
        Upstream(answer(b"whole")) as primary,
        Upstream(_cut(how)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"v2": _idle(how)}),
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"whole"
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["candidate_status"], line["candidate_stream_complete"]) == (status, False)
    assert line["candidate_body"] == "data: 1\n\n"


@pytest.mark.parametrize("head", [EVENTS + CHUNKED, EVENTS + UNTIL_CLOSE])
async def test_an_old_client_sees_a_reset_and_no_clean_end(tmp_path: Path, head: bytes) -> None:
    """HTTP/1.0 has no chunks: the end of the connection would be the end of the answer."""
    async with (
        Upstream(_cut("stall", head)) as primary,
        dataplane(
            tmp_path, primary=primary.port, options=Options(deadlines={"primary": _idle("stall")})
        ) as plane,
    ):
        got = await _see_cut(plane, b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
    assert b"chunked" not in got


class _Patient:
    """A backend that streams until told to stop, and notes that its connection has ended."""

    def __init__(self, *events: bytes, reads: bool = True) -> None:
        self.has_begun = asyncio.Event()
        self.is_released = False
        self._events = events
        self._reads = reads

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self._events:
            writer.write(EVENTS + CHUNKED + b"".join(map(chunk, self._events)))
        self.has_begun.set()
        if not self._reads:
            await asyncio.Event().wait()
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.is_released = True


def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()


def _vanish(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _half_close_then_leave(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    asyncio.get_running_loop().call_soon(writer.close)


LEAVES = [_leave, _vanish, _half_close_then_leave]


async def _released(patient: _Patient, what: str) -> None:
    await until(lambda: patient.is_released, f"the backend to be released: {what}")


async def test_the_copy_of_a_stream_ends_with_its_user(tmp_path: Path) -> None:
    """Nobody needs the rest of it; the candidate is told by the end of its connection, and not charged."""
    primary, candidate = _Patient(b"data: 1\n\n"), _Patient(b"data: c\n\n")
    async with (
        raw_server(primary) as port,
        raw_server(candidate) as candidate_port,
        dataplane(
            tmp_path, primary=port, candidates={"v2": candidate_port}, options=NEVER
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(ASK)
        await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), PATIENCE_S)
        await candidate.has_begun.wait()
        writer.transport.abort()
        await _released(candidate, "the copy")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["candidate_status"], line["candidate_body"]) == ("cancelled", "data: c\n\n")


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("events", [(), (b"data: 1\n\n",)])
async def test_a_client_that_leaves_releases_the_backend_at_once(
    tmp_path: Path, leave: Callable[[asyncio.StreamWriter], None], events: tuple[bytes, ...]
) -> None:
    """Before the first byte and in the middle of a stream that is silent just then."""
    patient = _Patient(*events)
    async with (
        raw_server(patient) as port,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path, primary=port, candidates={"v2": candidate.port}, options=NEVER
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(ASK)
        await patient.has_begun.wait()
        if events:
            await asyncio.wait_for(reader.readuntil(events[-1]), PATIENCE_S)
        leave(writer)
        await _released(patient, str(leave))
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("served", "iris", Outcome.CANCELLED) == 1
    assert line["primary_status"] == "cancelled"
    assert line["primary_body"] == ("data: 1\n\n" if events else None)
    assert (line["candidate_status"], line["candidate_body"]) == ("ok", "c")


async def test_a_client_that_leaves_while_its_answer_waits_for_it_is_noticed(
    tmp_path: Path,
) -> None:
    """It has stopped reading, and the backend is held back; the record has what was streamed."""
    patient = _Patient(*[b"data: %b\n\n" % bytes(64 * KIB)] * 200)
    async with (
        raw_server(patient) as port,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path, primary=port, candidates={"v2": candidate.port}, options=NEVER
        ) as plane,
    ):
        reader, writer = await plane.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no other way
        writer.write(ASK)
        await until(lambda: _is_answer_held(plane), "the answer to be held back")
        writer.transport.abort()
        await _released(patient, "answer held")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        del reader
    assert (line["primary_status"], line["primary_body_state"]) == ("cancelled", "truncated")
    assert line["primary_stream_complete"] is False


def _is_answer_held(plane: Plane) -> bool:
    return any(connection._write_paused for connection in plane.connections)


def _is_client_held(plane: Plane) -> bool:
    return any(connection._is_read_paused for connection in plane.connections)


@pytest.mark.parametrize("leave", [_leave, _vanish])
async def test_a_client_that_leaves_while_its_request_is_coming_is_noticed(
    tmp_path: Path, leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    """Its request can never be whole: nothing is mirrored."""
    patient = _Patient()
    async with (
        raw_server(patient) as port,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path, primary=port, candidates={"v2": candidate.port}, options=NEVER
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome")
        await patient.has_begun.wait()
        leave(writer)
        await _released(patient, str(leave))
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "not_sent")


@pytest.mark.parametrize("resets", [False, True])
async def test_a_client_that_leaves_while_it_is_not_read_is_noticed(
    tmp_path: Path, resets: bool
) -> None:
    """The backend does not read the upload, so we do not read the client, nor its end."""
    patient = _Patient(reads=False)
    async with (
        raw_server(patient, limit=KIB) as port,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path, primary=port, candidates={"v2": candidate.port}, options=NEVER
        ) as plane,
    ):
        with socket.create_connection(("127.0.0.1", plane.port)) as sock:
            sock.setblocking(False)
            sock.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % 2**26)
            await patient.has_begun.wait()
            await until(lambda: _upload(sock, plane), "the client to be held")
            if resets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: not plane.worker.pools["primary"].in_flight, "the leg to end")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "shed")


def _upload(sock: socket.socket, plane: Plane) -> bool:
    """Send a little more, unless the proxy has stopped reading."""
    if not _is_client_held(plane):
        with suppress(BlockingIOError):
            for _ in range(8):
                sock.send(bytes(8 * KIB))
    return _is_client_held(plane)


@pytest.mark.parametrize("leave", LEAVES)
async def test_a_client_that_leaves_before_there_is_a_connection_is_counted_at_once(
    tmp_path: Path, leave: Callable[[asyncio.StreamWriter], None]
) -> None:
    """The backend takes its time to accept; the user is not waited for."""
    with silent_listener() as port:
        async with (
            Upstream(answer(b"c")) as candidate,
            dataplane(
                tmp_path, primary=port, candidates={"v2": candidate.port}, options=NOT_CONNECTED
            ) as plane,
        ):
            _, writer = await plane.connect()
            writer.write(ASK)
            await until(lambda: plane.count("routed", "iris"), "the request")
            leave(writer)
            await until(lambda: plane.count("served", "iris", Outcome.CANCELLED), "its end")
            (line,) = await plane.pairs(1)
            check_ledger(plane)
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "ok")


async def test_a_client_that_leaves_behind_a_pipeline_is_noticed(tmp_path: Path) -> None:
    """What it sent ahead is not read yet, and so its end is not either."""
    patient = _Patient()
    async with (
        raw_server(patient) as port,
        dataplane(tmp_path, primary=port, options=NEVER) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(ASK)
        await patient.has_begun.wait()
        writer.write(ASK * 10)
        await until(lambda: _is_client_held(plane), "the client to be held")
        writer.close()
        await _released(patient, "pipeline")


async def test_a_half_closed_client_gets_the_whole_stream(tmp_path: Path) -> None:
    """It is asked in the middle of the answer whether it is there, and reads nothing of that."""
    go = asyncio.Event()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        writer.write(EVENTS + CHUNKED + chunk(b"data: 1\n\n"))
        await go.wait()
        writer.write(chunk(b"data: 2\n\n") + LAST)

    async with Upstream(behave) as primary, dataplane(tmp_path, primary=primary.port) as plane:
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(ASK)
            got = await asyncio.wait_for(reader.readuntil(b"data: 1\n\n\r\n"), PATIENCE_S)
            writer.write_eof()
            probe = await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
            go.set()
            rest = probe + await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert b"transfer-encoding: chunked" in got
    assert rest == b"09\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_copies_go_on_when_the_client_has_gone(tmp_path: Path) -> None:
    """The candidate is asked already; its answer is worth recording."""
    go = asyncio.Event()

    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await answer(b"late")(request, writer)

    async with (
        Upstream(hang) as primary,
        Upstream(late) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(ASK)
        await until(lambda: primary.requests and candidate.requests, "both legs")
        writer.transport.abort()
        await until(lambda: not plane.worker.pools["primary"].in_flight, "the primary's release")
        go.set()
        line: dict[str, Any] = (await plane.pairs(1))[0]
    assert (line["primary_status"], line["candidate_body"]) == ("cancelled", "late")
