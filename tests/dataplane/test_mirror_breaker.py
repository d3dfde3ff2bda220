"""A candidate that does not answer gets no copies for a while, and all of them when it is back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy.config.resolved import Breaker
from proxy.routing.breaker import Breaker as CandidateBreaker, State
from proxy.state.control_page import Part
from proxy.state.kill import Scope, kill, revive
from proxy.state.stats_page import Skip
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Upstream, answer, echo, hang, reset, unused_port

QUICK = Breaker(failures=3, open_for_s=0.1, max_open_for_s=0.4, probes=1)


#: One that opens for good, until the test says that its time is over.
FOR_GOOD = replace(QUICK, open_for_s=1e3, max_open_for_s=4e3)


def breaker_of(plane: Plane) -> CandidateBreaker:
    """Return the breaker of the plane's candidate."""
    (context,) = plane.worker.routes.contexts()
    return context.gates[0].breaker


def gauge(plane: Plane) -> State:
    """Return what the worker shows of its breaker, now rather than at its next tick."""
    plane.worker.gauges.write(monotonic_s())
    return State(plane.count("breaker", "iris", "v2"))


async def ask(plane: Plane, count: int) -> None:
    """Send requests one after the other, each until its pair has been counted."""
    for _ in range(count):
        before = plane.count("pairs_decided", "iris", "v2")
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        await until(lambda: _ended(plane) > before, "the pair")  # noqa: B023 - awaited at once


def _ended(plane: Plane) -> int:
    return sum(plane.count("leg", "iris", "v2", outcome) for outcome in _STATUSES)


_STATUSES = ("ok", "http_error", "timeout", "connect_error", "reset", "cancelled", "shed")


async def test_a_dead_candidate_opens_it_and_a_revived_one_closes_it(tmp_path: Path) -> None:
    """Three refused copies, then none; every skip has a pair; back again after one probe."""
    port = unused_port()
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": port},
            options=Options(copies={"breaker": FOR_GOOD}),
        ) as plane,
    ):
        assert gauge(plane) is State.CLOSED
        await ask(plane, 5)
        assert gauge(plane) is State.OPEN
        assert plane.count("leg", "iris", "v2", "connect_error") == 3
        assert plane.count("mirror_skipped", "iris", "v2", Skip.BREAKER_OPEN) == 2
        candidate = Upstream(answer(b"alive"))
        server = await asyncio.start_server(candidate._serve, "127.0.0.1", port)
        breaker_of(plane)._until_s = 0.0
        await ask(plane, 10)
        assert gauge(plane) is State.CLOSED
        assert plane.count("leg", "iris", "v2", "ok") == 10
        lines = await plane.pairs(15)
        check_ledger(plane)
        server.close()
        for task in tuple(candidate._tasks):
            task.cancel()
    statuses = [line["candidate_status"] for line in lines]
    assert statuses == ["connect_error"] * 3 + ["shed"] * 2 + ["ok"] * 10
    assert {x["candidate_error"] for x in lines if x["candidate_status"] == "shed"} == {
        "breaker_open"
    }


async def test_half_open_lets_one_copy_probe_whatever_the_load(tmp_path: Path) -> None:
    """A hung candidate holds one copy instead of one per request, and it opens for longer."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"breaker": FOR_GOOD, "timeout_s": 600.0}, timeout_s=600.0),
        ) as plane,
    ):
        await asyncio.gather(*(plane.request(b"POST", b"/", body=b"x") for _ in range(3)))
        plane.age("v2", 600.0)
        assert gauge(plane) is State.OPEN
        breaker_of(plane)._until_s = 0.0
        await asyncio.gather(*(plane.request(b"POST", b"/", body=b"x") for _ in range(30)))
        assert gauge(plane) is State.HALF_OPEN
        assert plane.count("mirror_sent", "iris", "v2") == 4
        assert plane.worker.pools["v2"].in_flight == 1
        plane.age("v2", 600.0)
        assert gauge(plane) is State.OPEN
        assert breaker_of(plane).statistics().open_for_s == 2 * FOR_GOOD.open_for_s
        await plane.pairs(33)
        check_ledger(plane)


async def test_errors_are_answers(tmp_path: Path) -> None:
    """500 in time costs nothing and is what the pairs are to show."""
    async with (
        Upstream(echo) as primary,
        Upstream(answer(b"no", status=500)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"breaker": QUICK}),
        ) as plane,
    ):
        await ask(plane, 10)
        assert gauge(plane) is State.CLOSED
        assert plane.count("leg", "iris", "v2", "http_error") == 10


async def test_a_kill_is_no_failure(tmp_path: Path) -> None:
    """Copies that we cancelled say nothing about the candidate."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"breaker": QUICK}),
        ) as plane,
    ):
        await asyncio.gather(*(plane.request(b"POST", b"/", body=b"x") for _ in range(5)))
        await until(lambda: len(candidate.requests) == 5, "the copies")
        plane.change(partial(kill, scope=Scope(), part=Part.MIRROR, note="test"))
        await plane.pairs(5)
        assert gauge(plane) is State.CLOSED
        plane.change(partial(revive, scope=Scope(), part=Part.MIRROR))
        check_ledger(plane)


async def test_live_traffic_passes_no_breaker(tmp_path: Path) -> None:
    """A canary that fails is rescued each time, and its failures are for its guard to count."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=Options(weight_bp={"v2": 10_000}, copies={"breaker": QUICK}),
        ) as plane,
    ):
        await ask(plane, 4)  # a fifth would be the burst of its guard
        assert plane.count("rescued", "iris", "v2") == 4
        assert plane.count("leg", "iris", "v2", "connect_error") == 4
        assert gauge(plane) is State.CLOSED


@pytest.mark.parametrize("failures", [0, 3])
async def test_a_breaker_may_be_off(tmp_path: Path, failures: int) -> None:
    """`failures: 0`: every copy is tried."""
    async with (
        Upstream(echo) as primary,
        Upstream(reset) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"breaker": replace(FOR_GOOD, failures=failures)}),
        ) as plane,
    ):
        await ask(plane, 6)
        assert plane.count("mirror_sent", "iris", "v2") == (6 if failures == 0 else 3)
