"""Requests with side effects: what the guard excludes reaches one backend, once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Guard
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Options, dataplane, until
from tests.support.ledgers import check_ledger
from tests.support.raw_server import silent_listener
from tests.support.upstreams import Upstream, answer, echo, hang, raw_answer, reset, unused_port

CANARY = {"v2": 10_000}


async def test_a_method_that_is_not_in_the_guard_is_served_and_never_copied(tmp_path: Path) -> None:
    """No mirror, no replicate, no pair, nothing decided; other requests are mirrored as ever."""
    async with (
        Upstream(answer(b"done")) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(replicate_bp=10_000),
        ) as plane,
    ):
        for method in (b"DELETE", b"PUT", b"PATCH", b"OPTIONS"):
            assert (await plane.request(method, b"/", body=b"x"))[0] == 200
        assert plane.count("mirror_decided", "iris", "v2") == 0
        assert len(primary.requests) == 4
        await plane.request(b"POST", b"/", body=b"x")
        lines = await plane.pairs(1)
        check_ledger(plane)
    assert [line["method"] for line in lines] == ["POST"]
    assert [request.method for request in candidate.requests] == [b"POST"]


async def test_a_guard_by_header_and_path_lets_through_what_it_names(tmp_path: Path) -> None:
    """All of it must hold."""
    guard = Guard(("POST",), {"x-dry-run": "1"}, ("/infer",))
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(guard=guard),
        ) as plane,
    ):
        await plane.request(b"POST", b"/infer/a", body=b"1")
        await plane.request(b"POST", b"/inferior", body=b"2", extra=b"x-dry-run: 1\r\n")
        await plane.request(b"POST", b"/infer/a", body=b"3", extra=b"x-dry-run: 0\r\n")
        await plane.request(b"POST", b"/infer/a", body=b"4", extra=b"x-dry-run: 1\r\n")
        await plane.pairs(1)
        check_ledger(plane)
    assert [request.body for request in candidate.requests] == [b"4"]


async def test_what_a_candidate_serves_outside_the_guard_has_a_pair_of_one_side(
    tmp_path: Path,
) -> None:
    """The primary gets no copy; the record says that it was not sent."""
    async with (
        Upstream(echo) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, replicate_bp=10_000),
        ) as plane,
    ):
        assert (await plane.request(b"DELETE", b"/"))[2] == b"new"
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert primary.requests == []
    assert (line["served_by"], line["candidate_status"]) == ("candidate", "ok")
    assert line["primary_status"] == "not_sent"


@pytest.mark.parametrize(
    ("behaviour", "status", "outcome"),
    [(reset, None, "reset"), (hang, 504, "timeout"), (raw_answer(close=True), 502, "reset")],
)
async def test_a_canary_that_may_have_acted_is_not_asked_again(
    tmp_path: Path, behaviour: Any, status: int | None, outcome: str
) -> None:
    """Sent and failed: the user is told so; the primary never hears of it."""
    async with (
        Upstream(echo) as primary,
        Upstream(behaviour) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, timeout_s=0.2 if behaviour is hang else 5.0),
        ) as plane,
    ):
        if status is None:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await plane.request(b"DELETE", b"/", body=b"x")
        else:
            assert (await plane.request(b"DELETE", b"/", body=b"x"))[0] == status
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("rescued", "iris", "v2") == 0
        assert plane.count("served", "iris", outcome) == 1
        assert primary.requests == []
        assert len(candidate.requests) == 1
    assert (line["candidate_status"], line["rescued"]) == (outcome, False)


async def test_a_canary_that_was_never_reached_leaves_the_primary_free_to_act(
    tmp_path: Path,
) -> None:
    """Refused, not accepted in time, or full: nothing was sent, so the primary is asked, once."""
    with silent_listener() as silent:
        for number, port in enumerate((unused_port(), silent)):
            async with (
                Upstream(echo) as primary,
                dataplane(
                    tmp_path / str(number),
                    primary=primary.port,
                    candidates={"v2": port},
                    options=Options(weight_bp=CANARY, deadlines={"v2": {"connect_timeout_s": 0.5}}),
                ) as plane,
            ):
                assert (await plane.request(b"DELETE", b"/", body=b"x"))[2] == b"x"
                (line,) = await plane.pairs(1)
                check_ledger(plane)
                assert len(primary.requests) == 1
            assert (line["rescued"], line["candidate_status"]) == (True, "connect_error")


async def test_a_full_candidate_leaves_the_primary_free_to_act(tmp_path: Path) -> None:
    """Over its cap nothing is sent to it."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp=CANARY, max_in_flight=1),
        ) as plane,
    ):
        _, stuck = await plane.connect()
        stuck.write(b"DELETE /stuck HTTP/1.1\r\nhost: a\r\n\r\n")
        await until(lambda: candidate.requests, "the candidate to be full")
        assert (await plane.request(b"DELETE", b"/", body=b"x"))[2] == b"x"
        stuck.close()
        await plane.pairs(2)
        check_ledger(plane)
        assert [request.target for request in primary.requests] == [b"/"]
        assert plane.count("leg", "iris", "v2", Outcome.SHED) == 1
