"""Whom a failed call counts against: an endpoint, a candidate's breaker, or nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from proxy.config.resolved import Breaker, Ejection
from proxy.dataplane.half_closed import set_reset_on_close
from proxy.dataplane.pool import Pool
from proxy.routing.breaker import State
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.endpoints import at, give_endpoints, upstreams
from tests.support.ledgers import check_ledger
from tests.support.raw_server import raw_server
from tests.support.upstreams import Request, Upstream, answer, closes_the_second, echo, hang

AT_ONCE = Ejection(failures=1, first_s=60.0, longest_s=60.0, slow_start_s=0.0)
CANARY = {"v2": 10_000}


async def test_a_stale_connection_is_nobodys_failure(tmp_path: Path) -> None:
    """An endpoint that closes its idle connections is well; a rotation of it ejects none."""
    async with (
        upstreams(closes_the_second(), closes_the_second()) as backends,
        dataplane(tmp_path, primary=backends[0].port) as plane,
    ):
        pool = give_endpoints(plane, *at(*(each.port for each in backends)), ejection=AT_ONCE)
        for _ in range(8):
            assert (await plane.request(b"GET", b"/"))[0] == 200
        statistics = pool.statistics()
        assert statistics.retried > 0
        assert (statistics.ejections, statistics.serving) == (0, 2)


async def test_a_stale_connection_does_not_open_the_breaker(tmp_path: Path) -> None:
    """A copy that met one says nothing about the candidate."""
    breaker = Breaker(failures=1, open_for_s=60.0, max_open_for_s=60.0, probes=1)
    async with (
        Upstream(echo) as primary,
        Upstream(closes_the_second()) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"breaker": breaker}),
        ) as plane,
    ):
        for number in range(1, 5):
            await plane.request(b"POST", b"/", body=b"x")
            await plane.pairs(number)
        assert plane.count("leg", "iris", "v2", Outcome.RESET) == 2
        (context,) = plane.worker.routes.contexts()
        assert context.gates[0].breaker.state is State.CLOSED
        check_ledger(plane)


async def test_an_answer_between_failures_ends_their_row(tmp_path: Path) -> None:
    """404 and 500 are answers: whoever gives them is there."""
    turn = 0

    async def every_other(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        await answer(b"", status=(503, 404, 503, 500)[turn % 4])(request, writer)

    async with (
        upstreams(every_other, echo) as (flaky, well),
        dataplane(tmp_path, primary=flaky.port) as plane,
    ):
        pool = give_endpoints(
            plane, *at(flaky.port, well.port), ejection=replace(AT_ONCE, failures=2)
        )
        for _ in range(16):
            await plane.request(b"GET", b"/")
        assert len(flaky.requests) == 8
        assert pool.statistics().ejections == 0


async def test_how_a_tunnel_ends_is_no_failure(tmp_path: Path) -> None:
    """One that was idle for its limit, or that the backend reset, had been granted before."""
    resets: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def grant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        resets.put_nowait(writer)
        await asyncio.Event().wait()

    async with (
        raw_server(grant) as one,
        raw_server(grant) as other,
        dataplane(tmp_path, primary=one) as plane,
    ):
        pool = give_endpoints(plane, *at(one, other), ejection=AT_ONCE)
        ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        for is_reset in (False, True):
            reader, writer = await plane.connect()
            writer.write(ask)
            await reader.readuntil(b"\r\n\r\n")
            backend = await resets.get()
            if is_reset:
                set_reset_on_close(backend.transport)  # type: ignore[arg-type]  # it reads, too
                backend.transport.abort()
            else:
                plane.age("primary", plane.worker.config.limits.tunnel_idle_s + 1)
            await until(lambda: not pool.in_flight, "the tunnel to end")
            writer.close()
        assert plane.count("served", "iris", Outcome.TIMEOUT) == 1
        assert plane.count("served", "iris", Outcome.RESET) == 1
        assert pool.statistics().ejections == 0


async def test_a_rescue_that_had_no_time_left_does_not_eject_the_primary(tmp_path: Path) -> None:
    """The candidate hung until its deadline: that is not the primary's fault."""

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await echo(request, writer)

    async with (
        upstreams(slow, slow) as primaries,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primaries[0].port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, deadlines={"v2": {"timeout_s": 0.2}}),
        ) as plane,
    ):
        pool = give_endpoints(plane, *at(*(each.port for each in primaries)), ejection=AT_ONCE)
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 504
        (line,) = await plane.pairs(1)
        assert (line["rescued"], line["primary_status"]) == (True, "timeout")
        assert pool.statistics().ejections == 0
        check_ledger(plane)


def _give_candidate(plane: Plane, *ports: int) -> Pool:
    worker = plane.worker
    backend = replace(worker.config.backends["v2"], endpoints=tuple(at(*ports)), ejection=AT_ONCE)
    pool = worker.pools["v2"] = Pool(backend, asyncio.get_running_loop(), worker.spawn)
    for context in worker.routes.contexts():
        context.pools[0] = pool
    return pool


async def test_a_copys_own_deadline_ejects_nobody(tmp_path: Path) -> None:
    """The backend would have had more time; a reset speaks against it, whoever asked."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.body == b"reset":
            writer.transport.abort()
        else:
            await hang(request, writer)

    async with (
        Upstream(echo) as primary,
        upstreams(behave, behave) as candidates,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidates[0].port},
            options=Options(copies={"timeout_s": 4.0}),
        ) as plane,
    ):
        pool = _give_candidate(plane, *(each.port for each in candidates))
        await plane.request(b"POST", b"/", body=b"x")
        await until(lambda: pool.in_flight, "the copy")
        plane.age("v2", 4.0)
        (line,) = await plane.pairs(1)
        assert line["candidate_status"] == "timeout"
        assert pool.statistics().ejections == 0
        await plane.request(b"POST", b"/", body=b"reset")
        await plane.pairs(2)
        assert pool.statistics().ejections == 1
