"""An overloaded worker makes no copies: what is left out, what is counted, and when it begins and ends."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.config.resolved import Config
from proxy.control.ledger import imbalances
from proxy.control.snapshot import Observer
from proxy.dataplane.member import UNSURE_AFTER_S
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.upstreams import Request, Upstream, closes_the_second, echo, unused_port

NAMES = ("iris", "v2")
LIMITS = {"mirror_lag_s": 0.005}


async def balanced(plane: Plane) -> None:
    """Wait until the ledger adds up, with nothing under way."""
    observer = Observer(plane.worker.config)
    try:
        await until(lambda: not imbalances(observer.snapshot(), quiet=True), "the ledger")
    finally:
        observer.close()


def shed(plane: Plane, *, is_shedding: bool = True) -> None:
    """Let the worker shed, for as long as the test wants: what it finds at a tick says the same."""
    overload = plane.worker.shedding.overload
    if is_shedding:
        overload._begin(monotonic_s())
        overload._hold_s = 1e3
    overload.is_shedding = plane.worker.is_shedding = is_shedding


async def test_nothing_is_copied_nor_recorded_and_all_is_counted(tmp_path: Path) -> None:
    """No candidate, no replicate; a record would have to be paid for, too."""
    options = Options(replicate_bp=10_000)
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"1")
        await plane.pairs(1)
        shed(plane)
        for number in range(3):
            body = b"shed %d" % number
            assert (await plane.request(b"POST", b"/", body=body))[::2] == (200, body)
        await balanced(plane)
        shed(plane, is_shedding=False)
        await plane.request(b"POST", b"/", body=b"2")
        lines = await plane.pairs(2)
        await balanced(plane)
        assert [line["seq"] for line in lines] == [1, 2]
        assert [len(each.requests) for each in (primary, candidate)] == [3 + 2 * 2, 2]
        assert plane.count("mirror_decided", *NAMES) == plane.count("pairs_decided", *NAMES) == 5
        assert plane.count("mirror_skipped", *NAMES, "overload") == 3
        assert plane.count("pairs_lost", *NAMES, "overload") == 3
        assert plane.count("mirror_sent", *NAMES) == plane.count("pairs_journaled", *NAMES) == 2


async def test_what_a_candidate_serves_keeps_its_record(tmp_path: Path) -> None:
    """Without its copy to the primary: a pair of one side, which says nothing of the split."""
    options = Options(weight_bp={"v2": 10_000}, replicate_bp=10_000)
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        shed(plane)
        assert (await plane.request(b"POST", b"/", body=b"live"))[2] == b"live"
        (line,) = await plane.pairs(1)
        await balanced(plane)
    assert (line["served_by"], line["candidate_status"]) == ("candidate", "ok")
    assert (line["primary_status"], line["primary_error"]) == ("not_sent", "overload")
    assert "replicate_status" not in line
    assert [len(each.requests) for each in (primary, candidate)] == [0, 1]
    assert plane.count("mirror_decided", *NAMES) == 0


async def test_a_canary_that_fails_is_rescued(tmp_path: Path) -> None:
    """A rescue is no copy."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        shed(plane)
        assert (await plane.request(b"POST", b"/", body=b"live"))[::2] == (200, b"live")
        (line,) = await plane.pairs(1)
        await balanced(plane)
    assert (line["rescued"], line["primary_status"]) == (True, "ok")


async def test_what_met_a_stale_connection_is_sent_again(tmp_path: Path) -> None:
    """It was idle, so the body is kept: no user gets an error because there are no copies."""
    async with (
        Upstream(closes_the_second()) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        pool = plane.worker.pools["primary"]
        shed(plane)
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        idle_from_s = monotonic_s()
        await until(lambda: monotonic_s() - idle_from_s > UNSURE_AFTER_S, "it to be idle")
        shed(plane)
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        assert pool.statistics().retried == 1
        await balanced(plane)
        assert not candidate.requests


async def test_no_body_is_kept_where_connections_are_busy(tmp_path: Path) -> None:
    """Neither on a new one nor on one that was used a moment ago; a calm worker keeps both."""
    gate = asyncio.Event()

    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await echo(request, writer)

    async with (
        Upstream(late) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        worker, kept = plane.worker, []
        pool = worker.pools["primary"]
        reader, writer = await plane.connect()
        for is_shedding in (True, True, False):
            shed(plane, is_shedding=is_shedding)
            primary.requests.clear()
            for member in pool._members:
                for connection in member._idle:
                    connection.idle_since_s = (
                        monotonic_s() + 60.0
                    )  # it is busy, however slow we are
            writer.write(request_bytes(b"POST", b"/", b"0123456789", b""))
            await until(lambda: len(primary.requests) == 1, "the primary to be asked")
            kept.append(worker.held_bytes)
            gate.set()
            assert (await read_answer(reader))[2] == b"0123456789"
            gate.clear()
        writer.close()
        assert pool.statistics().reused == 2
        await balanced(plane)
    assert (kept[:2], kept[2] >= 10) == ([0, 0], True)


async def test_an_overload_that_comes_while_a_body_comes_counts(tmp_path: Path) -> None:
    """The copy would be made now, whenever the request began."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        reader, writer = await plane.connect()
        request = request_bytes(b"POST", b"/", b"0123456789", b"")
        writer.write(request[:-5])
        await until(lambda: plane.count("routed", "iris") == 1, "the head")
        shed(plane)
        writer.write(request[-5:])
        assert (await read_answer(reader))[2] == b"0123456789"
        writer.close()
        assert plane.count("mirror_skipped", *NAMES, "overload") == 1
        await balanced(plane)
        assert (len(primary.requests), len(candidate.requests)) == (1, 0)


def overload(plane: Plane) -> None:
    """Let the worker's looks have seen a queue just now, for long; its next one tells."""
    found, now_s = plane.worker.shedding.overload, monotonic_s()
    while not found.is_shedding:
        now_s += 0.001
        found.look(1.0, 10_000, 0.0, now_s)
    found._hold_s = 1e3


async def test_its_begin_and_its_end_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, by a gauge and by a counter; copies come back by themselves."""
    caplog.set_level(logging.WARNING, "understudy.worker")
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits=LIMITS),
        ) as plane,
    ):
        overload(plane)
        await until(lambda: plane.worker.is_shedding, "the tick")
        assert plane.count("workers_shedding") == plane.count("sheddings") == 1
        for _ in range(3):
            await plane.request(b"POST", b"/", body=b"1")
        assert plane.count("mirror_skipped", *NAMES, "overload") == 3
        plane.worker.shedding.overload._hold_s = 0.1
        await until(lambda: not plane.worker.is_shedding, "its end")
        await plane.request(b"POST", b"/", body=b"1")
        await plane.pairs(1)
        await balanced(plane)
        assert plane.count("workers_shedding") == 0
        assert plane.count("mirror_skipped", *NAMES, "overload") == 3
    begun, ended = (record.getMessage() for record in caplog.records if "overloaded" in record.msg)
    assert begun.startswith("overloaded: requests wait ")
    assert ended.startswith("no longer overloaded: copies are made again after ")


async def test_a_late_look_is_followed_by_others_at_once(tmp_path: Path) -> None:
    """And only then: an idle worker is not woken up for it."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": primary.port},
            options=Options(limits=LIMITS),
        ) as plane,
    ):
        looks: list[float] = []
        look = plane.worker.shedding.overload.look

        class Counted:
            """What it is, with its looks noted."""

            is_shedding = False

            def look(self, late_s: float, requests: int, used_s: float, now_s: float) -> bool:
                looks.append(now_s)
                return look(late_s, requests, used_s, now_s)

        plane.worker.shedding.overload = Counted()  # type: ignore[assignment]
        time.sleep(0.1)  # noqa: ASYNC251 - the stall under test
        await until(lambda: len(looks) > 3, "looks")
        soon = [after - before for before, after in pairwise(looks)]
        assert min(soon) < 0.04
        assert not plane.worker.is_shedding


async def test_a_reload_changes_or_ends_it(tmp_path: Path) -> None:
    """A config that switches it off makes copies at once."""

    def off(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, mirror_lag_s=0.0))

    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits=LIMITS),
        ) as plane,
    ):
        overload(plane)
        await until(lambda: plane.worker.is_shedding, "the tick to tell")
        await plane.reload(off)
        assert not plane.worker.is_shedding
