"""The access log: what a line says, and that nobody waits for its reader."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Log
from proxy.dataplane.access_log import MAX_BUFFERED_BYTES, AccessLog, open_access_log
from proxy.log import MAX_LINE_BYTES
from proxy.wire.path_mask import PathMask
from tests.support.dataplane import (
    Options,
    Plane,
    dataplane,
    read_answer,
    request_bytes,
    until,
)
from tests.support.upstreams import Request, Upstream, answer, echo, unused_port

ALL = Log(10_000, None)
MASK = PathMask(("token",))


class Pipe:
    """A pipe to log to; `lines` is what its reader has got."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._data = b""

    def lines(self) -> list[dict[str, Any]]:
        """Read what there is, and return all lines so far."""
        with suppress(BlockingIOError):
            while piece := os.read(self.reader, 1 << 16):
                self._data += piece
        return [json.loads(line) for line in self._data.splitlines()]

    def close(self) -> None:
        """Close both ends."""
        for descriptor in (self.reader, self.writer):
            with suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that nobody reads unless the test does."""
    made = Pipe()
    yield made
    made.close()


async def _lines(pipe: Pipe, count: int) -> list[dict[str, Any]]:
    return await until(lambda: ((f := pipe.lines()) and len(f) >= count and f) or None, "the lines")


def _log_to(plane: Plane, pipe: Pipe, log: Log = ALL) -> AccessLog:
    made = AccessLog(log, "worker 0", pipe.writer, MASK)
    plane.worker.access_log = made
    return made


async def test_a_line_tells_the_request_and_no_secret(tmp_path: Path, pipe: Pipe) -> None:
    """Neither query, nor header, nor body."""
    trace = b"traceparent: 00-%b-b7ad6b7169203331-01\r\n" % (b"c" * 32)
    extra = trace + b"x-request-id: mine\r\nauthorization: hunter2\r\n"
    async with (
        Upstream(echo) as up,
        Upstream(answer(b"{}")) as candidate,
        dataplane(tmp_path, primary=up.port, candidates={"v2": candidate.port}) as plane,
    ):
        _log_to(plane, pipe)
        await plane.request(b"POST", b"/a/b?q=hunter2", body=b"hunter2", extra=extra)
        [line] = await _lines(pipe, 1)
    assert "hunter2" not in json.dumps(line)
    assert line.pop("duration_ms") >= line.pop("ttfb_ms") > 0
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info", "process": "worker 0", "event": "request", "client": "127.0.0.1",
        "method": "POST", "path": "/a/b", "status": 200, "outcome": "ok", "reason": None,
        "route": "iris", "served_by": "primary", "rescued": False, "request_bytes": 7,
        "response_bytes": 7, "request_id": "mine", "trace_id": "c" * 32,
    }  # fmt: skip


async def test_failures_say_what_the_client_was_told(tmp_path: Path, pipe: Pipe) -> None:
    """A rescue, a dead primary, a full one, and requests that no backend saw."""
    dead = unused_port()
    canary = Options(weight_bp={"v2": 10_000})
    async with (
        Upstream(answer(b"{}")) as up,
        dataplane(tmp_path, primary=up.port, candidates={"v2": dead}, options=canary) as plane,
    ):
        _log_to(plane, pipe)
        await plane.request(b"POST", b"/", body=b"1")
        [line] = await _lines(pipe, 1)
        assert (line["status"], line["served_by"], line["rescued"]) == (200, "primary", True)
    async with dataplane(tmp_path, primary=dead) as plane:
        _log_to(plane, pipe)
        await plane.request(b"POST", b"/", body=b"1")
        assert (await _lines(pipe, 2))[1]["status"] == 502
        assert pipe.lines()[1]["outcome"] == "connect_error"
        reader, writer = await plane.connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        line = (await _lines(pipe, 3))[2]
        assert (line["status"], line["outcome"], line["reason"]) == (400, "rejected", "bad_request")
        assert (line["method"], line["client"]) == (None, "127.0.0.1")
    options = Options(primary_in_flight=0)
    async with dataplane(tmp_path, primary=dead, options=options) as plane:
        _log_to(plane, pipe)
        assert (await plane.request(b"POST", b"/", body=b"1"))[0] == 503
        line = (await _lines(pipe, 4))[3]
        assert (line["status"], line["outcome"], line["served_by"]) == (503, "shed", None)


async def test_a_request_refused_half_way_is_one_line_with_its_reason(
    tmp_path: Path, pipe: Pipe
) -> None:
    """Its exchange had begun."""
    async with Upstream(echo) as up, dataplane(tmp_path, primary=up.port) as plane:
        _log_to(plane, pipe)
        reader, writer = await plane.connect()
        writer.write(b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")
        await asyncio.sleep(0)
        await until(lambda: up.raw, "the head upstream")
        writer.write(b"zzzzzzzzz\r\n")
        await reader.read()
        writer.close()
        [line] = await _lines(pipe, 1)
    assert (line["status"], line["reason"], line["path"]) == (400, "bad_request", "/x")
    assert line["outcome"] == "cancelled"


async def test_only_slow_requests_are_logged_where_nothing_is_sampled(
    tmp_path: Path, pipe: Pipe
) -> None:
    """And they always are."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        _log_to(plane, pipe, Log(0, 3600.0))
        await plane.request(b"POST", b"/", body=b"fast")
        _log_to(plane, pipe, Log(0, 0.000001))
        await plane.request(b"POST", b"/", body=b"slow")
        [line] = await _lines(pipe, 1)
    assert line["request_bytes"] == 4


async def test_a_reader_that_stops_costs_lines_and_no_time(tmp_path: Path, pipe: Pipe) -> None:
    """The buffer fills, the rest is counted; a reader that is back gets whole lines."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        log = _log_to(plane, pipe)
        await plane.request(b"POST", b"/", body=b"1")
        head = (await _lines(pipe, 1))[0]
        fields = {key: value for key, value in head.items() if key not in ("ts", "level")}
        for _ in range(2 * MAX_BUFFERED_BYTES // 400):
            log._add(fields | {"pad": "x" * 600}, 0)
        log.flush()
        now = log.statistics()
        assert now.dropped > 0
        assert 0 < now.buffered_bytes <= MAX_BUFFERED_BYTES
        await until(lambda: plane.count("access_log_dropped") == now.dropped, "the tick")
        assert (await plane.request(b"POST", b"/", body=b"1"))[0] == 200
        total = now.written + now.buffered_bytes // MAX_LINE_BYTES
        lines = await _lines(pipe, total)
        assert all(line["event"] == "request" for line in lines)
        await until(lambda: pipe.lines() and not log.statistics().buffered_bytes, "the rest")
        written = log.statistics().written
        assert len(pipe.lines()) == written
        await until(lambda: plane.count("access_log_lines") == written, "the tick")


async def test_a_reader_that_has_gone_is_no_failure(tmp_path: Path, pipe: Pipe) -> None:
    """Lines are given up and counted."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        _log_to(plane, pipe)
        os.close(pipe.reader)
        assert (await plane.request(b"POST", b"/", body=b"1"))[0] == 200
        await until(lambda: plane.count("access_log_dropped") == 1, "the drop")


def test_a_share_of_requests_is_logged(pipe: Pipe) -> None:
    """By chance, so that no pattern of the traffic can hide."""
    log = AccessLog(Log(2_500, None), "worker 0", pipe.writer, MASK)
    assert 2_000 < sum(log._is_sampled() for _ in range(10_000)) < 3_000


def test_off_is_no_log_at_all() -> None:
    """A request looks at one attribute."""
    assert open_access_log(Log(), "worker 0", MASK) is None
    assert open_access_log(Log(1, None), "worker 0", MASK) is not None
    assert open_access_log(Log(0, 1.0), "worker 0", MASK) is not None


async def test_each_line_names_the_client_of_its_own_request(tmp_path: Path, pipe: Pipe) -> None:
    """A trusted proxy sends many clients' requests on one connection; copies end after the next."""
    gate = asyncio.Event()

    async def later(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(request, writer)

    async with (
        Upstream(echo) as up,
        Upstream(later) as candidate,
        dataplane(
            tmp_path,
            primary=up.port,
            candidates={"v2": candidate.port},
            options=Options(trusted_proxies=("127.0.0.1",)),
        ) as plane,
    ):
        _log_to(plane, pipe)
        reader, writer = await plane.connect()
        for number in (1, 2):
            extra = b"x-request-id: r%d\r\nx-forwarded-for: 192.0.2.%d\r\n" % (number, number)
            writer.write(request_bytes(b"POST", b"/", b"x", extra))
            await read_answer(reader)
        gate.set()
        lines = await _lines(pipe, 2)
        assert {x["request_id"]: x["client"] for x in lines} == {
            "r1": "192.0.2.1",
            "r2": "192.0.2.2",
        }
        large = b"POST / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.3\r\n"
        writer.write(large + b"content-length: 999999999999\r\n\r\n")
        assert (await read_answer(reader))[0] == 413
        assert (await _lines(pipe, 3))[2]["client"] == "192.0.2.3"
        writer.close()
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"GET", b"/", b"", b"x-forwarded-for: 192.0.2.4\r\n"))
        await read_answer(reader)
        await _lines(pipe, 4)  # its copy has ended, too
        writer.write(b"GET / HTTP/1.1\r\nx-forwarded-for: 192.0.2.5\r\n\r\n")
        assert (await read_answer(reader))[0] == 400
        assert (await _lines(pipe, 5))[4][
            "client"
        ] == "127.0.0.1"  # what is refused is not believed
        writer.close()
