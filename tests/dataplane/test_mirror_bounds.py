"""The bounds of a candidate's copies: their rate, how long each may take, and what a bomb costs."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pybase64
import pytest

from proxy.pairs.expand import Expander
from proxy.pairs.inflate import BOMB_BYTES
from proxy.state.stats_page import Skip
from proxy.telemetry import monotonic_s
from tests.support.dataplane import Options, dataplane, until
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Behaviour, Request, Upstream, answer, echo, hang, raw_answer


async def test_the_rate_holds_under_load_and_every_skip_is_recorded(tmp_path: Path) -> None:
    """Of 20 copies per second this worker, one of two, may send 10, and 10 at once."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"mirror_rate": 20.0}, workers=2),
        ) as plane,
    ):
        begun_s = monotonic_s()

        def is_enough() -> bool:
            sent = plane.count("mirror_sent", "iris", "v2")
            return sent >= 14 and plane.count("mirror_decided", "iris", "v2") > 40

        async def user() -> None:
            while not is_enough():
                assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200

        await asyncio.gather(*(user() for _ in range(4)))
        took_s = monotonic_s() - begun_s
        decided = plane.count("mirror_decided", "iris", "v2")
        lines = await plane.pairs(decided)
        check_ledger(plane)
        sent = plane.count("mirror_sent", "iris", "v2")
        skipped = plane.count("mirror_skipped", "iris", "v2", Skip.RATE)
    assert sent <= 10 * took_s + 10
    assert sent + skipped == decided
    shed = [line for line in lines if line["candidate_status"] == "shed"]
    assert {line["candidate_error"] for line in shed} == {"rate"}
    assert len(shed) == skipped


async def test_a_copy_has_a_timeout_of_its_own(tmp_path: Path) -> None:
    """Mirrored, the candidate is given up early; serving, it has the backend's time."""
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(copies={"timeout_s": 0.1}, timeout_s=600.0),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert line["candidate_status"] == "timeout"
    assert line["candidate_error"] == "no whole answer in 0.1 s"
    assert line["candidate_latency_us"] >= 100_000


async def test_the_timeout_of_copies_does_not_bind_live_traffic(tmp_path: Path) -> None:
    """A canary that answers after it still serves, and so does its copy at the primary."""
    gate = asyncio.Event()

    async def late(request: object, writer: asyncio.StreamWriter) -> None:
        del request
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")

    async with (
        Upstream(late) as primary,
        Upstream(late) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}, copies={"timeout_s": 0.05}),
        ) as plane,
    ):
        asyncio.get_running_loop().call_later(0.25, gate.set)
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"new"
        (line,) = await plane.pairs(1)
    assert (line["candidate_status"], line["primary_status"]) == ("ok", "ok")


async def _endless(request: Request, writer: asyncio.StreamWriter) -> None:
    del request
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(65536))
        await writer.drain()


async def _huge(request: Request, writer: asyncio.StreamWriter) -> None:
    del request
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize("behaviour", [_endless, _huge])
async def test_an_answer_longer_than_the_bound_ends_the_copy(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    """As soon as it is, or says that it will be; its connection is closed, its start recorded."""
    options = Options(limits={"mirror_response_bytes": 2**20, "record_body_bytes": 1000})
    async with (
        Upstream(echo) as primary,
        Upstream(behaviour) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"x"
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        await until(lambda: not candidate.open_connections, "the connection to be closed")
        (member,) = plane.worker.pools["v2"]._members
        assert member.standing.failures == 0  # users of this backend would have got it all
    assert line["candidate_status"] == "reset"
    said = "the answer has more than 1048576 bytes (limits.mirror_response)"
    assert line["candidate_error"] == said
    assert line["candidate_http_status"] == 200
    assert line["candidate_response_bytes"] < 2 * 2**20
    assert line["candidate_body_state"] == ("truncated" if behaviour is _endless else "full")


async def test_the_bound_of_copies_does_not_bind_users(tmp_path: Path) -> None:
    """The user gets all of it, while the replicate is broken off."""
    big = bytes(3 * 2**20)
    options = Options(limits={"mirror_response_bytes": 2**20}, replicate_bp=10_000)
    async with (
        Upstream(answer(big)) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == big
        lines = await plane.pairs(1)
        check_ledger(plane)
    assert {line["replicate_status"] for line in lines} == {"reset"}


async def test_of_a_gzip_bomb_the_begin_is_recorded(tmp_path: Path) -> None:
    """Its length as it was, and the record says why it cannot be compared; users get theirs whole."""
    bomb = gzip.compress(bytes(64 << 20))
    behaviour = raw_answer(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
        % (len(bomb), bomb)
    )
    async with (
        Upstream(behaviour) as primary,
        Upstream(behaviour) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _, _, body = await plane.request(b"POST", b"/", body=b"{}")
        (line,) = await plane.pairs(1)
        config = plane.worker.config
    assert body == bomb
    for side in ("primary", "candidate"):
        assert pybase64.b64decode(line[f"{side}_body"]) == bomb[:BOMB_BYTES]
        assert (line[f"{side}_body_state"], line[f"{side}_response_bytes"]) == (
            "truncated",
            len(bomb),
        )
    record = Expander(config.routes[0], config.record, "0").expand(dict(line))
    assert record["not_comparable_reason"] == "primary_inflates_too_large"
