"""Deadlines of each phase, whose time it was that ran out, and what the user is told."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from proxy.dataplane.proxy_status import Fault, connect_fault
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server, silent_listener
from tests.support.streams import CHUNKED, EVENTS, LAST, chunk
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
CANARY = {"v2": 10_000}
ASK = request_bytes(b"POST", b"/", b"x", b"")
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class _Steps:
    """A backend that sends the next piece when the test says so, while time passes as it says."""

    def __init__(self, pieces: list[bytes], head: bytes = EVENTS) -> None:
        self._go: asyncio.Queue[bytes] = asyncio.Queue()
        self._head = head + CHUNKED
        self.pieces = [chunk(piece) for piece in pieces]

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Send the head at once, then what `send` gives."""
        del request
        writer.write(self._head)
        while piece := await self._go.get():
            writer.write(piece)

    async def send(self, piece: bytes, reader: asyncio.StreamReader) -> None:
        """Send a piece; return when the user has it."""
        self._go.put_nowait(piece)
        assert await asyncio.wait_for(reader.readexactly(len(piece)), PATIENCE_S) == piece


def _events(count: int) -> list[bytes]:
    return [b"data: %d\n\n" % number for number in range(count)]


async def _stepwise(
    tmp_path: Path, steps: _Steps, pause_s: float, **deadlines: float
) -> tuple[bool, dict[str, Any]]:
    """Ask a primary that pauses so after its head and each piece; return whether it was whole, and the line."""
    async with (
        Upstream(steps) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"primary": deadlines}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        is_whole = True
        with closing(writer):
            writer.write(ASK)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            try:
                for piece in [*steps.pieces, LAST]:
                    plane.age("primary", pause_s)  # a look that sees what has come
                    plane.age("primary", pause_s)
                    await steps.send(piece, reader)
            except (ConnectionResetError, asyncio.IncompleteReadError):
                is_whole = False
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        return is_whole, line


async def _primary(
    tmp_path: Path, behaviour: Behaviour, **deadlines: float
) -> tuple[int | None, dict[bytes, bytes], dict[str, Any]]:
    """Ask a primary that behaves so; return (status or None when cut, fields, line)."""
    async with (
        Upstream(behaviour) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"primary": deadlines}),
        ) as plane,
    ):
        status: int | None = None
        fields: dict[bytes, bytes] = {}
        try:
            status, fields, _ = await plane.request(b"POST", b"/", body=b"x")
        except (ConnectionResetError, asyncio.IncompleteReadError, ValueError):
            status = None
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        return status, fields, line


async def test_a_head_that_does_not_come_in_time_is_a_504(tmp_path: Path) -> None:
    """Long before the whole call's deadline, which nobody here would wait for."""
    began_s = monotonic_s()
    status, fields, line = await _primary(
        tmp_path, hang, first_byte_timeout_s=0.15, timeout_s=600.0
    )
    assert monotonic_s() - began_s >= 0.15
    assert (status, line["primary_status"]) == (504, "timeout")
    assert fields[b"proxy-status"] == b"understudy; error=connection_read_timeout"
    assert line["primary_error"] == "no answer in 0.15 s"


async def test_a_head_in_time_gives_the_body_its_own_time(tmp_path: Path) -> None:
    """The first byte's deadline ends with the first byte."""
    slow = _Steps([b"{", b"}"], JSON)
    is_whole, line = await _stepwise(
        tmp_path, slow, 20.0, first_byte_timeout_s=10.0, idle_timeout_s=100.0, timeout_s=1e3
    )
    assert (is_whole, line["primary_status"], line["primary_body"]) == (True, "ok", "{}")


async def test_a_pause_is_allowed_as_often_as_it_is_short(tmp_path: Path) -> None:
    """Ten pauses of 80 s are no pause of 100 s."""
    steps = _Steps(_events(10))
    is_whole, line = await _stepwise(
        tmp_path, steps, 40.0, idle_timeout_s=100.0, stream_timeout_s=1e4
    )
    assert (is_whole, line["primary_status"], line["primary_chunks"]) == (True, "ok", 10)


async def test_a_stream_may_take_longer_than_any_other_answer(tmp_path: Path) -> None:
    """Of an event stream, `timeout` holds for the head."""
    deadlines = {"timeout_s": 100.0, "stream_timeout_s": 1e3}
    is_whole, line = await _stepwise(tmp_path / "a", _Steps(_events(10)), 15.0, **deadlines)
    assert (is_whole, line["primary_status"]) == (True, "ok")
    is_whole, line = await _stepwise(tmp_path / "b", _Steps(_events(10), JSON), 15.0, **deadlines)
    assert (is_whole, line["primary_status"]) == (False, "timeout")
    assert line["primary_error"] == "no whole answer in 100 s"


async def test_a_stream_that_takes_too_long_is_cut(tmp_path: Path) -> None:
    """`stream_timeout` is the whole call of a stream, however busy it is."""
    is_whole, line = await _stepwise(tmp_path, _Steps(_events(100)), 15.0, stream_timeout_s=300.0)
    assert (is_whole, line["primary_status"]) == (False, "timeout")
    assert line["primary_error"] == "no whole answer in 300 s"
    assert line["primary_body"].startswith("data: 0\n\n")


# Whose time it was.


async def _flood(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer with more than all buffers between here and the user hold."""
    del request
    body = bytes(64 * KIB)
    writer.write(JSON + b"content-length: %d\r\n\r\n" % (64 * MIB))
    for _ in range(1024):
        writer.write(body)
        await writer.drain()


def _held(plane: Plane) -> bool:
    return any(connection._write_paused for connection in plane.connections)


async def test_a_client_that_reads_slowly_does_not_use_up_the_backends_pause(
    tmp_path: Path,
) -> None:
    """The clock of idle stands still while we do not read the backend."""
    async with (
        Upstream(_flood) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            options=Options(deadlines={"primary": {"idle_timeout_s": 20.0, "timeout_s": 1e3}}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # no other way
            writer.write(ASK)
            await until(lambda: _held(plane), "the answer to be held back")
            for _ in range(3):
                plane.age("primary", 100.0)
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            status, _, body = await read_answer(reader)
    assert (status, len(body)) == (200, 64 * MIB)


@pytest.mark.parametrize("role", ["primary", "candidate"])
async def test_a_call_that_a_slow_reader_uses_up_is_cancelled(tmp_path: Path, role: str) -> None:
    """It is cut at its deadline like any other, and not counted against the backend."""
    serves = role == "candidate"
    async with (
        Upstream(answer(b"p") if serves else _flood) as primary,
        Upstream(_flood if serves else answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY if serves else {}, timeout_s=600.0),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # no other way
            writer.write(ASK)
            await until(lambda: _held(plane), "the answer to be held back")
            plane.age("v2" if serves else "primary", 600.0)
            (line,) = await plane.pairs(1)
            check_ledger(plane)
            assert plane.count("served", "iris", Outcome.CANCELLED) == 1
            assert plane.count("rescued", "iris", "v2") == 0
    assert line[f"{role}_status"] == "cancelled"
    assert line[f"{role}_error"] == "the client reads too slowly: no whole answer in 600 s"


async def test_a_short_pause_of_the_client_is_no_excuse_for_the_backend(tmp_path: Path) -> None:
    """It held the answer back for a moment; then the backend hung for the rest of the time."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        writer.write(JSON + b"content-length: %d\r\n\r\n" % (64 * MIB))
        writer.write(bytes(16 * MIB))
        await asyncio.Event().wait()

    async with (
        Upstream(behave) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(deadlines={"primary": {"timeout_s": 600.0}}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]  # no other way
            writer.write(ASK)
            await until(lambda: _held(plane), "the answer to be held back")
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            await asyncio.wait_for(reader.readexactly(16 * MIB), PATIENCE_S)
            plane.age("primary", 600.0)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
        (line,) = await plane.pairs(1)
    assert line["primary_status"] == "timeout"


async def test_a_slow_upload_does_not_use_up_the_time_for_the_first_byte(tmp_path: Path) -> None:
    """That runs from the moment at which the backend has all of the request."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            options=Options(
                deadlines={"primary": {"first_byte_timeout_s": 20.0, "timeout_s": 1e3}}
            ),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n")
            for number in range(8):
                so_far = b"\n" + b"x" * number
                await until(lambda: primary.raw and primary.raw[0].endswith(so_far), "a piece")  # noqa: B023 - awaited at once
                plane.age("primary", 30.0)
                writer.write(b"x")
            assert (await read_answer(reader))[::2] == (200, b"x" * 8)


async def test_an_upload_that_stops_is_not_charged_to_the_canary(tmp_path: Path) -> None:
    """408 for the client; `cancelled` for the candidate, and nothing to rescue."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, timeout_s=0.2),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nsome")
            status, fields, _ = await read_answer(reader)
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (status, fields[b"proxy-status"]) == (408, b"understudy; error=http_request_error")
    assert (line["candidate_status"], line["rescued"]) == ("cancelled", False)
    assert primary.requests == []


async def test_an_upload_that_the_backend_does_not_read_is_the_backends_fault(
    tmp_path: Path,
) -> None:
    """504, though the request is not whole: we hold the client back because of it."""

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await reader.read(1)
        await asyncio.Event().wait()

    async with (
        raw_server(stuck, limit=KIB) as port,
        dataplane(tmp_path, primary=port, options=Options(timeout_s=600.0)) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(request_bytes(b"POST", b"/", bytes(32 * MIB), b""))
            (leg,) = await until(plane.worker.pools["primary"].legs, "the call")
            await until(leg.is_held_up, "it to be held up")
            plane.age("primary", 600.0)
            status, fields, _ = await read_answer(reader)
    assert status == 504
    assert fields[b"proxy-status"] == b"understudy; error=connection_write_timeout"


# Rescues.


@asynccontextmanager
async def _rescue(
    tmp_path: Path, primary_does: Behaviour, pause_s: float, **deadlines: dict[str, float]
) -> AsyncIterator[tuple[Plane, asyncio.StreamReader]]:
    """Ask a canary that hangs until its user is rescued after `pause_s`; at the end check the books."""
    async with (
        Upstream(primary_does) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, deadlines=deadlines),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(ASK)
            await until(lambda: candidate.requests, "the canary to be asked")
            plane.age("v2", pause_s)
            await until(lambda: _users(primary), "the primary to be asked")
            yield plane, reader
        await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("rescued", "iris", "v2") == 1


def _users(upstream: Upstream) -> list[Request]:
    """Return the requests that are no copies."""
    return [each for each in upstream.requests if b"x-understudy-mirror" not in each.fields]


def _one_of_two(first: Behaviour) -> Behaviour:
    """Answer copies at once, and behave as `first` does for users."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        is_copy = b"x-understudy-mirror" in request.fields
        await (answer(b"copy") if is_copy else first)(request, writer)

    return behave


async def test_a_rescue_gets_what_is_left_and_not_a_deadline_of_its_own(tmp_path: Path) -> None:
    """The primary may take 500 s; the user was promised an answer within 80."""
    async with _rescue(
        tmp_path,
        _one_of_two(hang),
        20.0,
        v2={"first_byte_timeout_s": 20.0, "timeout_s": 80.0},
        primary={"timeout_s": 500.0},
    ) as (plane, reader):
        plane.age("primary", 40.0)
        assert plane.worker.pools["primary"].in_flight == 1
        plane.age("primary", 20.0)
        assert (await read_answer(reader))[0] == 504
        (line,) = await plane.pairs(1)
    assert (line["candidate_status"], line["primary_status"]) == ("timeout", "timeout")
    assert line["candidate_error"] == "no answer in 20 s"


async def test_the_primarys_own_deadline_holds_for_a_rescue_too(tmp_path: Path) -> None:
    """Where it is the shorter one."""
    async with _rescue(
        tmp_path,
        _one_of_two(hang),
        20.0,
        v2={"first_byte_timeout_s": 20.0, "timeout_s": 500.0},
        primary={"timeout_s": 60.0},
    ) as (plane, reader):
        plane.age("primary", 40.0)
        assert plane.worker.pools["primary"].in_flight == 1
        plane.age("primary", 20.0)
        assert (await read_answer(reader))[0] == 504


async def test_a_rescue_with_nothing_left_has_a_tenth(tmp_path: Path) -> None:
    """A primary that is quick saves the user; one that hangs is not waited for."""
    deadlines = {"v2": {"timeout_s": 500.0}, "primary": {"timeout_s": 5e3}}
    async with _rescue(tmp_path / "a", answer(b"saved"), 500.0, **deadlines) as (_, reader):
        assert (await read_answer(reader))[::2] == (200, b"saved")
    async with _rescue(tmp_path / "b", _one_of_two(hang), 500.0, **deadlines) as (plane, reader):
        plane.age("primary", 40.0)
        assert plane.worker.pools["primary"].in_flight == 1
        plane.age("primary", 10.0)
        assert (await read_answer(reader))[0] == 504


async def test_a_rescue_that_streams_has_the_time_of_a_stream(tmp_path: Path) -> None:
    """The first deadline holds for its head."""
    steps = _Steps(_events(12))
    async with _rescue(
        tmp_path, _one_of_two(steps), 20.0, v2={"first_byte_timeout_s": 20.0, "timeout_s": 80.0}
    ) as (plane, reader):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        for piece in [*steps.pieces, LAST]:
            plane.age("primary", 40.0)
            await steps.send(piece, reader)
        (line,) = await plane.pairs(1)
    assert line["primary_status"] == "ok"


# What the user is told.

_BIG_HEAD = b"HTTP/1.1 200 OK\r\n" + b"x-a: %b\r\n" % bytes(b"a" * 1000) * 80


@pytest.mark.parametrize(
    ("behaviour", "status", "told"),
    [
        (raw_answer(close=True), 502, b"connection_terminated"),
        (raw_answer(b"HTTP/1.1 200 O", pause_s=0.02, close=True), 502, b"http_response_incomplete"),
        (raw_answer(b"SMTP ready\r\n\r\n"), 502, b"http_protocol_error"),
        (raw_answer(_BIG_HEAD), 502, b"http_response_header_section_size"),
        (
            raw_answer(JSON + CHUNKED + b"no chunk\r\n"),
            502,
            b"http_response_transfer_coding; received-status=200",
        ),
        (hang, 504, b"http_response_timeout"),
    ],
)
async def test_the_user_is_told_what_went_wrong(
    tmp_path: Path, behaviour: Behaviour, status: int, told: bytes
) -> None:
    """In the words of RFC 9209."""
    answered, fields, _ = await _primary(
        tmp_path, behaviour, timeout_s=0.3 if behaviour is hang else 5.0
    )
    assert (answered, fields[b"proxy-status"]) == (status, b"understudy; error=" + told)


@pytest.mark.parametrize(
    ("accepts", "status", "told"),
    [(False, 502, b"connection_refused"), (True, 504, b"connection_timeout")],
)
async def test_the_user_is_told_why_there_is_no_connection(
    tmp_path: Path, accepts: bool, status: int, told: bytes
) -> None:
    """Refused, or not accepted in time."""
    with ExitStack() as stack:
        port = stack.enter_context(silent_listener()) if accepts else unused_port()
        options = Options(deadlines={"primary": {"connect_timeout_s": 0.2 if accepts else 5.0}})
        async with dataplane(tmp_path, primary=port, options=options) as plane:
            answered, fields, _ = await plane.request(b"POST", b"/", body=b"x")
    assert (answered, fields[b"proxy-status"]) == (status, b"understudy; error=" + told)


async def test_the_user_is_told_that_the_backend_is_full(tmp_path: Path) -> None:
    """The limit is ours: the backend was not asked."""
    async with (
        Upstream(hang) as primary,
        dataplane(tmp_path, primary=primary.port, options=Options(primary_in_flight=1)) as plane,
    ):
        _, writer = await plane.connect()
        with closing(writer):
            writer.write(ASK)
            await until(lambda: primary.requests, "the first request")
            status, fields, _ = await plane.request(b"POST", b"/", body=b"x")
    assert (status, fields[b"proxy-status"]) == (
        503,
        b"understudy; error=connection_limit_reached",
    )


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Fault.DNS_ERROR),
        (OSError(errno.EHOSTUNREACH, "no route"), Fault.UNROUTABLE),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Fault.REFUSED),
    ],
)
def test_the_system_says_why_there_is_no_connection(error: OSError, fault: Fault) -> None:
    """Unknown names and unroutable addresses are not the backend's refusal."""
    assert connect_fault(error) is fault
