"""The guard in a worker: a candidate that breaks loses its users at once, and they notice nothing."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Breaker, CanaryGuard, Config
from proxy.dataplane.canary_guard import CanaryGuard as Guard
from proxy.dataplane.leg import NEVER_S
from proxy.dataplane.standstill import STALL_S
from proxy.state.control_page import Part
from proxy.state.kill import Scope, kill, revive, set_weight
from proxy.state.stats_page import LATENCY_BOUNDS_US, Note
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, request_bytes, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
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

V2 = Scope("iris", "v2")
CANARY = {"v2": 10_000}
#: Three bad calls; as slow as 100 ms is too slow.
QUICK = CanaryGuard(failures=3, within_s=30.0, share_bp=5_000, latency_s=0.1)
#: For failures: here no stall of the machine makes a call too slow.
PATIENT = replace(QUICK, latency_s=10.0)


def options(limits: CanaryGuard = PATIENT, **changes: Any) -> Options:
    """Return a plane whose candidate serves everybody, under these limits."""
    return Options(
        weight_bp=CANARY, copies={"guard": limits, "breaker": Breaker(failures=0)}, **changes
    )


def guard_of(plane: Plane) -> Guard:
    """Return the guard of the plane's candidate."""
    return plane.worker.routes.by_name()["iris"].canary_guards[0]


def note(plane: Plane, what: Note) -> int:
    """Return what the guard has left on the stats page."""
    return plane.count("guard_note", "iris", "v2", what)


async def ask(plane: Plane, count: int) -> list[int]:
    """Send requests one after the other; return the statuses."""
    return [(await plane.request(b"POST", b"/", body=b"x"))[0] for _ in range(count)]


async def dead(request: Request, writer: asyncio.StreamWriter) -> None:
    """Close every connection without an answer."""
    del request
    writer.transport.abort()


def leave(writer: asyncio.StreamWriter) -> None:
    """Reset a client connection: its end alone could be a half-closed client's."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def slow(pause_s: float) -> Behaviour:
    """Answer `pause_s` late."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(pause_s)
        await echo(request, writer)

    return behave


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(dead, "reset"), (None, "connect_error"), (raw_answer(b"nonsense\r\n\r\n"), "reset")],
)
async def test_a_broken_candidate_is_out_after_the_declared_failures_and_users_see_none(
    tmp_path: Path, behaviour: Behaviour | None, status: str
) -> None:
    """Three are asked and rescued; the fourth user gets the primary, and the candidate a copy."""
    async with (
        Upstream(echo) as primary,
        Upstream(behaviour or echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port if behaviour else unused_port()},
            options=options(),
        ) as plane,
    ):
        assert await ask(plane, 3) == [200] * 3
        assert guard_of(plane).is_out
        assert not plane.worker.routes.by_name()["iris"].plan.has_canary
        assert await ask(plane, 7) == [200] * 7
        assert plane.count("canary", "iris", "v2") == plane.count("rescued", "iris", "v2") == 3
        assert plane.count("guard_failed", "iris", "v2") == 3
        assert plane.count("guard_ejections", "iris", "v2") == 1
        assert [note(plane, what) for what in (Note.FAILED, Note.SLOW, Note.CALLS)] == [3, 0, 3]
        lines = await plane.pairs(10)
        check_ledger(plane)
    assert [line["rescued"] for line in lines].count(True) == 3
    assert {line["candidate_status"] for line in lines} == {status}


async def test_error_answers_count_from_500_on_and_only_if_the_primary_does_better(
    tmp_path: Path,
) -> None:
    """400 is the client's; 500 that the primary gives as well speaks of the request."""

    async def poisoned(request: Request, writer: asyncio.StreamWriter, *, mine: int) -> None:
        codes = {b"/ok": 200, b"/mine": mine, b"/both": 500, b"/client": 400}
        await answer(b"{}", status=codes[request.target])(request, writer)

    async with (
        Upstream(partial(poisoned, mine=200)) as primary,
        Upstream(partial(poisoned, mine=503)) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options()
        ) as plane,
    ):

        async def one(target: bytes) -> int:
            before = plane.count("pairs_decided", "iris", "v2"), len(plane.lines())
            status = (await plane.request(b"POST", target, body=b"x"))[0]
            await plane.pairs(before[1] + 1)  # the primary's copy has ended, too
            return status

        assert [await one(b"/both") for _ in range(6)] == [500] * 6
        assert [await one(b"/client") for _ in range(6)] == [400] * 6
        assert not guard_of(plane).is_out
        assert [await one(b"/mine") for _ in range(3)] == [200] * 3  # rescued
        assert guard_of(plane).is_out
        assert await one(b"/mine") == 200


async def test_a_hung_candidate_is_out_once_enough_users_wait_and_all_of_them_are_rescued(
    tmp_path: Path,
) -> None:
    """Long before the deadline of a minute, by the primary.

    The latency is twice the stall of a loop that nobody is charged with: all wait before one is late.
    """
    guard = replace(QUICK, latency_s=2 * STALL_S)
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(guard, timeout_s=600.0),
        ) as plane,
    ):
        users = [plane.request(b"POST", b"/", body=b"x") for _ in range(8)]
        found = [status for status, _, _ in await asyncio.gather(*users)]
        assert found == [200] * 8
        assert plane.count("rescued", "iris", "v2") == 8
        assert [note(plane, what) for what in (Note.FAILED, Note.SLOW, Note.CALLS)] == [0, 3, 3]
        assert not plane.worker.routes.by_name()["iris"].plan.has_canary
        lines = await plane.pairs(8)
        check_ledger(plane)
        (member,) = plane.worker.pools["v2"]._members
        assert member.standing.failures == 0  # nothing was longer than what the backend is allowed
    by_guard = [line for line in lines if "guard" in (line["candidate_error"] or "")]
    assert len(by_guard) == 8
    assert {line["candidate_status"] for line in by_guard} == {"timeout"}


async def test_answers_that_come_too_late_are_a_burst_as_well(tmp_path: Path) -> None:
    """One after the other, each 150 ms late, so that none waits with others."""
    async with (
        Upstream(echo) as primary,
        Upstream(slow(0.15)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(QUICK),
        ) as plane,
    ):
        asked = 0
        while not guard_of(plane).is_out:  # a call in which our own loop stalls does not count
            assert await ask(plane, 1) == [200]
            asked += 1
            assert asked < 20
        assert note(plane, Note.SLOW) == 3
        assert plane.count("guard_failed", "iris", "v2") == 0
        assert await ask(plane, 1) == [200]
        assert plane.count("canary", "iris", "v2") == asked


async def test_without_a_latency_the_primarys_own_says_what_is_too_slow(tmp_path: Path) -> None:
    """Ten times its percentile, at least a second; nothing before it has answered often enough."""
    auto = replace(QUICK, latency_s=None)
    async with (
        Upstream(slow(0.03)) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(auto, mirror_bp={"v2": 0}),
        ) as plane,
    ):
        plane.change(partial(set_weight, scope=V2, weight_bp=0))
        plane.worker.refresh()
        assert guard_of(plane).latency_s == float("inf")
        for _ in range(5):
            await asyncio.gather(*(plane.request(b"POST", b"/", body=b"x") for _ in range(20)))
        plane.worker.gauges.write_observed()
        plane.change(partial(set_weight, scope=V2, weight_bp=10_000))
        plane.worker.refresh()
        # The bucket of 30 ms ends at 50 ms; whoever was stalled meanwhile is in another one.
        latency_s = guard_of(plane).latency_s
        assert latency_s in [max(1.0, bound * 1e-5) for bound in LATENCY_BOUNDS_US]
        assert plane.count("guard_latency_us", "iris", "v2") == int(latency_s * 1e6)


async def test_what_is_none_of_the_candidates_doing_does_not_count(tmp_path: Path) -> None:
    """Clients that leave, or take longer for their upload than the candidate may for its answer."""
    patient = replace(QUICK, latency_s=0.4)

    async def leaves() -> None:
        _, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/gone", b"x", b""))
        await until(lambda: gone.count(b"/gone") == 4, "the requests")
        leave(writer)

    async def uploads() -> bytes:
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx")
        await asyncio.sleep(0.6)
        writer.write(b"y")
        line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.close()
        return line

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        gone.append(request.target)
        await (hang if request.target == b"/gone" else echo)(request, writer)

    gone: list[bytes] = []
    async with (
        Upstream(echo) as primary,
        Upstream(behave) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(patient),
        ) as plane,
    ):
        await asyncio.gather(*(leaves() for _ in range(4)))
        await until(lambda: plane.count("served", "iris", "cancelled") == 4, "their ends")
        lines = await asyncio.gather(*(uploads() for _ in range(4)))
        assert all(b"200" in line for line in lines)
        assert plane.count("guard_failed", "iris", "v2") == 0
        assert plane.count("guard_slow", "iris", "v2") == 0
        assert not guard_of(plane).is_out


@pytest.mark.parametrize("is_hung", [False, True])
async def test_what_our_own_loop_slept_through_is_nobodys_latency(
    tmp_path: Path, *, is_hung: bool
) -> None:
    """As after a SIGSTOP: 0.8 s are over, and the answers, if there are any, come right then."""
    patient = replace(QUICK, latency_s=0.5)
    async with (
        Upstream(echo) as primary,
        Upstream(hang if is_hung else slow(0.02)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(patient),
        ) as plane,
    ):

        async def sleeper() -> None:
            await until(lambda: len(candidate.requests) == 4, "the requests")
            time.sleep(0.8)  # noqa: ASYNC251 - it is the loop that is to stand still
            await asyncio.sleep(0.15)
            assert plane.count("guard_slow", "iris", "v2") == 0

        users = [plane.request(b"POST", b"/", body=b"x") for _ in range(4)]
        found, _ = await asyncio.gather(asyncio.gather(*users), sleeper())
        assert [status for status, _, _ in found] == [200] * 4
        assert guard_of(plane).is_out is is_hung  # 0.5 s later


async def test_calls_that_we_shed_do_not_count(tmp_path: Path) -> None:
    """A candidate that is full is not asked."""
    gate = asyncio.Event()

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(request, writer)

    async with (
        Upstream(echo) as primary,
        Upstream(held) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(max_in_flight=1),
        ) as plane,
    ):
        first = asyncio.create_task(plane.request(b"POST", b"/", body=b"x"))  # noqa: TID251 - awaited below
        await until(lambda: candidate.requests, "the candidate to be full")
        assert await ask(plane, 7) == [200] * 7
        assert plane.count("rescued", "iris", "v2") == 7
        gate.set()
        assert (await first)[0] == 200
        assert plane.count("guard_failed", "iris", "v2") == 0
        assert not guard_of(plane).is_out


async def test_one_user_alone_finds_a_hung_candidate_out(tmp_path: Path) -> None:
    """Its call counts again each 100 ms that it waits: three times, and it is rescued."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(QUICK, timeout_s=600.0),
        ) as plane,
    ):
        begun_s = monotonic_s()
        assert await ask(plane, 1) == [200]
        assert monotonic_s() - begun_s >= 0.3
        assert plane.count("guard_slow", "iris", "v2") == 1
        assert note(plane, Note.SLOW) == 3


async def test_a_kill_lets_nobody_wait_any_more_who_has_waited_too_long(tmp_path: Path) -> None:
    """Whoever gave it: another worker's guard by way of control, or an operator."""
    many = replace(QUICK, failures=100, latency_s=1.0)
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(many, timeout_s=600.0),
        ) as plane,
    ):

        async def killer() -> None:
            await until(lambda: plane.count("guard_slow", "iris", "v2"), "a call that is late")
            (leg,) = plane.worker.pools["v2"].legs()
            leg.look_s = NEVER_S  # and not when it is looked at after another second
            plane.change(partial(kill, scope=V2, part=Part.CANARY, note="n"))

        (status, _, _), _ = await asyncio.gather(plane.request(b"POST", b"/", body=b"x"), killer())
        assert status == 200
        assert not guard_of(plane).is_out


async def test_a_user_whose_request_may_not_be_sent_twice_waits_on(tmp_path: Path) -> None:
    """To give it up would turn a late answer into a 504."""
    once = CanaryGuard(failures=1, latency_s=0.05)
    gate = asyncio.Event()

    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(request, writer)

    async with (
        Upstream(echo) as primary,
        Upstream(late) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options(once)
        ) as plane,
    ):
        user = asyncio.create_task(plane.request(b"PUT", b"/", body=b"order"))  # noqa: TID251 - awaited below
        await until(lambda: guard_of(plane).is_out, "the guard to find it too slow")
        gate.set()
        assert (await user)[::2] == (200, b"order")
        assert len(candidate.requests) == 1


async def test_it_holds_until_a_revive_and_then_counts_anew(tmp_path: Path) -> None:
    """A weight, a kill, a revive of something else: none of them opens it."""
    behaviour: list[Behaviour] = [dead]

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await behaviour[0](request, writer)

    async with (
        Upstream(echo) as primary,
        Upstream(behave) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options()
        ) as plane,
    ):
        await ask(plane, 3)
        behaviour[0] = answer(b"well")
        for change in (
            partial(set_weight, scope=V2, weight_bp=5_000),
            partial(kill, scope=V2, part=Part.DEFAULT, note="n"),
            partial(revive, scope=V2, part=Part.MIRROR),
            partial(set_weight, scope=V2, weight_bp=10_000),
        ):
            plane.change(change)
            await ask(plane, 1)
            assert plane.count("canary", "iris", "v2") == 3
        plane.change(partial(revive, scope=Scope(), part=Part.DEFAULT))
        await ask(plane, 2)
        assert plane.count("canary", "iris", "v2") == 5
        assert note(plane, Note.MARK) == 0
        behaviour[0] = dead
        await ask(plane, 2)
        assert not guard_of(plane).is_out
        await ask(plane, 1)
        assert guard_of(plane).is_out
        assert plane.count("guard_ejections", "iris", "v2") == 2


async def test_the_next_worker_does_not_forget(tmp_path: Path) -> None:
    """Nobody has read the note, and it holds until a revive that comes while no worker lives."""
    async with Upstream(echo) as primary, Upstream(dead) as candidate:
        start: Callable[[], Any] = partial(
            dataplane,
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(),
        )
        async with start() as plane:
            await ask(plane, 3)
        async with start() as plane:
            assert guard_of(plane).is_out
            await ask(plane, 3)
            assert plane.count("canary", "iris", "v2") == 3
            plane.change(partial(revive, scope=V2, part=Part.CANARY))
        async with start() as plane:
            assert not guard_of(plane).is_out
            await ask(plane, 1)
            assert plane.count("canary", "iris", "v2") == 4


async def test_a_new_config_keeps_what_was_found_and_takes_new_limits_over(tmp_path: Path) -> None:
    """Another limit means a new count; nobody comes back by it."""

    def adapt(config: Config, failures: int) -> Config:
        (route,) = config.routes
        (v2,) = route.candidates
        v2 = replace(v2, guard=replace(v2.guard, failures=failures))
        return replace(config, routes=(replace(route, candidates=(v2,)),))

    async with (
        Upstream(echo) as primary,
        Upstream(dead) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options()
        ) as plane,
    ):
        await ask(plane, 2)
        await plane.reload(partial(adapt, failures=4))
        await ask(plane, 2)
        assert not guard_of(plane).is_out
        await ask(plane, 2)
        assert guard_of(plane).is_out
        await plane.reload(partial(adapt, failures=0))
        assert guard_of(plane).is_out
        await ask(plane, 1)
        assert plane.count("canary", "iris", "v2") == 6


async def test_it_may_be_off(tmp_path: Path) -> None:
    """`failures: 0`: every call is rescued, and none ejects."""
    off = CanaryGuard(failures=0, latency_s=0.01)
    async with (
        Upstream(echo) as primary,
        Upstream(dead) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options(off)
        ) as plane,
    ):
        assert await ask(plane, 12) == [200] * 12
        assert plane.count("rescued", "iris", "v2") == 12
        assert not guard_of(plane).is_out
