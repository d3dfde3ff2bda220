"""A kill that falls in the middle of an exchange: nothing new goes to a candidate from then on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.config.resolved import Split, SplitKind
from proxy.state.control_page import Part
from proxy.state.kill import ALL_PARTS, Scope, kill, revive, set_weight
from proxy.state.stats_page import Skip
from tests.support.dataplane import Options, Plane, dataplane, read_answer, request_bytes, until
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Request, Upstream, answer, echo, raw_answer

_HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"


def _kill(plane: Plane, part: Part = Part.DEFAULT) -> None:
    plane.change(lambda state: kill(state, Scope("iris", "v2"), part, "test"))


async def test_a_kill_while_the_body_arrives_stops_the_mirror(tmp_path: Path) -> None:
    """The head came before the kill, the last byte after it: the candidate is not asked."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(_HEAD + b"01234")
        await until(lambda: primary.raw, "the primary's leg")
        _kill(plane)
        writer.write(b"56789")
        assert (await read_answer(reader))[2] == b"0123456789"
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("mirror_skipped", "iris", "v2", Skip.KILLED) == 1
    assert candidate.requests == []
    assert (line["candidate_status"], line["candidate_error"]) == ("not_sent", "killed")


async def test_a_kill_while_the_split_key_is_awaited_stops_the_canary(tmp_path: Path) -> None:
    """Where the decision waits for the body, it is made under the state of that moment."""
    options = Options(weight_bp={"v2": 10_000}, split=Split(SplitKind.JSON, "user"))
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(_HEAD + b'{"use')
        await until(lambda: plane.count("routed", "iris") == 1, "the head")
        _kill(plane)
        writer.write(b'r":1}')
        assert (await read_answer(reader))[2] == b"old"
        writer.close()
    assert candidate.raw == []


async def test_a_kill_reaches_the_requests_that_wait_in_a_pipeline(tmp_path: Path) -> None:
    """The second of two pipelined requests begins after the kill: no canary, no mirror."""
    gate = asyncio.Event()

    async def held(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await answer(b"new")(request, writer)

    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(held) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/1", b"x", b"") * 2)
        await until(lambda: candidate.requests, "the first at the candidate")
        _kill(plane)
        gate.set()
        assert [(await read_answer(reader))[2] for _ in range(2)] == [b"new", b"old"]
        writer.close()
        assert len(candidate.requests) == 1
        await plane.pairs(1)
        check_ledger(plane)


async def test_a_canary_answer_under_way_is_not_cut_by_a_kill(tmp_path: Path) -> None:
    """The user keeps the answer that has begun; the next request goes to the primary."""
    gate = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nne")
        await gate.wait()
        writer.write(b"w!")

    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(slow) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await reader.readuntil(b"\r\n\r\n")
        _kill(plane)
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"old"
        gate.set()
        assert await reader.readexactly(4) == b"new!"
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        assert (await read_answer(reader))[2] == b"old"
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert (line["served_by"], line["candidate_status"]) == ("candidate", "ok")


async def test_a_kill_of_the_mirror_alone_leaves_the_canary(tmp_path: Path) -> None:
    """Each part of a kill stops its part and no other."""
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _kill(plane, Part.MIRROR)
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"old"
        assert candidate.requests == []
        plane.change(lambda state: set_weight(state, Scope("iris", "v2"), 10_000))
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"new"
        await plane.pairs(1)
        check_ledger(plane)


async def test_a_kill_by_signal_holds_until_the_page_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the disk takes no page, the launcher tells each worker so, again and again."""
    options = Options(weight_bp={"v2": 10_000})
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"{}"))[2] == b"new"
        asked = len(candidate.requests)
        for _ in range(2):
            plane.worker.stop_candidates()
            assert (await plane.request(b"POST", b"/", body=b"{}"))[2] == b"old"
        await asyncio.sleep(0.2)  # some ticks of the worker, which look at the page
        assert (await plane.request(b"POST", b"/", body=b"{}"))[2] == b"old"
        assert len(candidate.requests) == asked
        assert caplog.text.count("killed by signal") == 1
        _kill(plane)
        assert (await plane.request(b"POST", b"/", body=b"{}"))[2] == b"old"
        plane.change(lambda state: revive(state, Scope("iris", "v2"), ALL_PARTS))
        assert (await plane.request(b"POST", b"/", body=b"{}"))[2] == b"new"
        await plane.pairs(2)
        check_ledger(plane)


async def test_a_lost_control_page_is_reported_once_and_taken_up_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing page is no reason to fill the log twenty times a second."""
    async with (
        Upstream(echo) as primary,
        Upstream(raw_answer(b"")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        page = tmp_path / "control.page"
        kept = tmp_path / "kept"
        page.rename(kept)
        await until(lambda: plane.worker.state is None, "the loss to be seen")
        await asyncio.sleep(0.3)  # six ticks
        assert sum("control page" in record.message for record in caplog.records) == 1
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        kept.rename(page)
        await until(lambda: plane.worker.state is not None, "the page to be read again")
