"""A request that met a stale connection is sent again, on whatever route it came."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from proxy.config.resolved import Guard
from proxy.state.kill import Scope, set_weight
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, dataplane
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server
from tests.support.upstreams import Request, Upstream, closes_the_second, echo


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"PUT", 502)])
async def test_what_is_not_kept_cannot_be_sent_again(
    tmp_path: Path, method: bytes, status: int
) -> None:
    """Of a request that is not mirrored no body is kept; without one there is nothing to keep."""
    body = b"x" if method == b"PUT" else b""
    async with (
        Upstream(closes_the_second()) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(mirror_bp={"v2": 0}),
        ) as plane,
    ):
        assert (await plane.request(method, b"/", body=body))[0] == 200
        assert (await plane.request(method, b"/", body=body))[0] == status
        assert plane.worker.pools["primary"].statistics().retried == (status == 200)


async def test_an_upgrade_is_asked_for_again(tmp_path: Path) -> None:
    """The stale connection closes before it is granted; a new one is asked."""
    asked = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked == 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        writer.write(await reader.readexactly(4))

    async with raw_server(behave) as port, dataplane(tmp_path, primary=port) as plane:
        await plane.request(b"GET", b"/")
        reader, writer = await plane.connect()
        ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        writer.write(ask)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        writer.close()


async def test_the_rescue_of_a_request_that_was_sent_again_has_its_own_retry(
    tmp_path: Path,
) -> None:
    """Stale at the candidate, dead there, and then stale at the primary: the user gets the answer."""
    turn = 0

    async def dies(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        if turn == 1:
            await echo(request, writer)
        else:
            writer.transport.abort()

    async with (
        Upstream(closes_the_second()) as primary,
        Upstream(dies) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(mirror_bp={"v2": 0}),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"x")  # the primary's connection idles
        plane.change(partial(set_weight, scope=Scope("iris", "v2"), weight_bp=10_000))
        await plane.request(b"POST", b"/", body=b"x")
        assert (await plane.request(b"POST", b"/", body=b"saved"))[::2] == (200, b"saved")
        await plane.pairs(2)
        assert plane.count("rescued", "iris", "v2") == 1
        assert plane.count("served", "iris", Outcome.OK) == 3
        check_ledger(plane)


async def test_what_may_not_be_sent_twice_is_not_rescued_after_a_retry(tmp_path: Path) -> None:
    """The retry could not connect; the candidate may have seen the request before."""
    gone = asyncio.Event()

    async def leaves(request: Request, writer: asyncio.StreamWriter) -> None:
        if not gone.is_set():
            gone.set()
            await echo(request, writer)
        else:
            assert candidate._server is not None
            candidate._server.close()
            writer.transport.abort()

    candidate = Upstream(leaves)
    async with (
        Upstream(echo) as primary,
        candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}, guard=Guard(methods=("POST",))),
        ) as plane,
    ):
        statuses = [(await plane.request(b"PUT", b"/", body=b"x"))[0] for _ in range(2)]
        await plane.pairs(2)
        check_ledger(plane)
    assert (statuses, len(primary.requests)) == ([200, 502], 0)
