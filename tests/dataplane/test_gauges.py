"""What a worker tells about itself beside what it counts per request."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from tests.support.dataplane import Plane, dataplane, read_answer, request_bytes, until
from tests.support.upstreams import Upstream, answer, unused_port


def _seen(plane: Plane, family: str, *labels: str) -> int:
    """Return how many observations a histogram holds."""
    layout = plane.worker.stats.layout
    return sum(
        plane.worker.cells[cell]
        for found, values, cell in layout.items()
        if found.name == f"{family}_us" and values[:-1] == labels
    )


async def test_bytes_and_first_bytes_are_counted_per_route_and_leg(tmp_path: Path) -> None:
    """Bodies only, as the user sent and got them; every leg with a head has a first byte."""
    async with (
        Upstream(answer(b"x" * 100)) as primary,
        Upstream(answer(b"y" * 7, status=500)) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        for _ in range(3):
            await plane.request(b"POST", b"/", body=b"12345")
        await plane.pairs(3)
        assert plane.count("request_bytes", "iris") == 15
        assert plane.count("response_bytes", "iris") == 300
        for leg in ("primary", "v2"):
            assert _seen(plane, "ttfb", "iris", leg) == _seen(plane, "latency", "iris", leg) == 3
            first_us = plane.count("ttfb_sum_us", "iris", leg)
            assert 0 < first_us <= plane.count("latency_sum_us", "iris", leg)


async def test_a_leg_without_an_answer_has_no_first_byte(tmp_path: Path) -> None:
    """It would look infinitely fast."""
    async with dataplane(tmp_path, primary=unused_port()) as plane:
        assert (await plane.request(b"POST", b"/"))[0] == 502
        assert _seen(plane, "ttfb", "iris", "primary") == 0
        await until(lambda: plane.count("backend_connect_failures", "primary"), "the failure")


async def test_connections_to_backends_are_told(tmp_path: Path) -> None:
    """Opened, used again, idle; within a tick."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        reader, writer = await plane.connect()
        for _ in range(3):
            writer.write(request_bytes(b"POST", b"/", b"1", b""))
            await read_answer(reader)
        await until(lambda: plane.count("backend_connections_reused", "primary") == 2, "the tick")
        ticks = _seen(plane, "loop_lag")
        await until(lambda: _seen(plane, "loop_lag") > ticks + 1, "two more ticks")
        assert plane.count("backend_connections_reused", "primary") == 2
        assert plane.count("backend_connections_opened", "primary") == 1
        assert plane.count("backend_connections_idle", "primary") == 1
        assert plane.count("backend_members", "primary") == 1
        writer.close()


async def test_totals_outlive_the_worker(tmp_path: Path) -> None:
    """Its successor adds to them, though it counts from zero itself; what the last tick missed too."""
    async with Upstream(answer(b"{}")) as up:
        for total in (1, 2):
            async with dataplane(tmp_path, primary=up.port) as plane:
                await plane.request(b"POST", b"/", body=b"1")
            assert plane.count("backend_connections_opened", "primary") == total


async def test_connections_that_are_turned_away_are_told(tmp_path: Path) -> None:
    """By what ended them."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        clients = plane.worker.clients
        clients.deadlines = replace(clients.deadlines, max_connections=0)
        status, _, _ = await plane.request(b"POST", b"/", body=b"1")
        assert status == 503
        await until(lambda: plane.count("connections_refused") == 1, "the tick")


async def test_a_stalled_event_loop_is_seen(tmp_path: Path) -> None:
    """By the tick, which comes late like everything else."""
    async with Upstream(answer(b"{}")) as up, dataplane(tmp_path, primary=up.port) as plane:
        await until(lambda: _seen(plane, "loop_lag") > 1, "two ticks")
        before_us = plane.count("loop_lag_sum_us")
        time.sleep(0.15)  # noqa: ASYNC251 - the stall under test
        await until(lambda: plane.count("loop_lag_sum_us") - before_us > 50_000, "the late tick")
