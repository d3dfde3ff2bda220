"""What candidates get in place of the user's credentials and model, mirrored and serving."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest

from proxy.config.resolved import Bodies, Protocol, Rewrite
from proxy.state.kill import Scope, set_weight
from proxy.state.stats_page import Kept
from proxy.wire.rewrite import MAX_REWRITTEN_BYTES
from tests.support.dataplane import (
    Options,
    dataplane,
    plane_config,
    read_answer,
    request_bytes,
    until,
)
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Upstream, answer, echo, raw_answer, unused_port

SECRETS = (b"user-token", b"user-session", b"user-key")
CREDENTIALS = (
    b"Authorization: Bearer user-token\r\nCookie: sid=user-session\r\nX_Api_Key: user-key\r\n"
)
OWN = Rewrite({"authorization": "Bearer candidate-key"}, ("cookie", "x-api-key"))
MODEL = Rewrite(model="tiny")
CHAT = b'{ "messages": [{"model": "no"}],  "model" : "iris-large", "n": 1.0 }'
REWRITTEN = CHAT.replace(b"iris-large", b"tiny")


def options(
    rewrite: Rewrite, *, weight_bp: int = 0, protocol: Protocol = Protocol.OPENAI
) -> Options:
    """Return options for one candidate with a rewrite."""
    return Options(
        weight_bp={"v2": weight_bp},
        copies={"rewrite": rewrite},
        protocol=protocol,
        bodies=Bodies.FULL,
    )


def everything(upstream: Upstream) -> bytes:
    """Return every byte that a backend was ever sent."""
    return b"".join(map(bytes, upstream.raw))


@pytest.mark.parametrize("weight_bp", [0, 10_000])
@pytest.mark.parametrize("status", [200, 302])
async def test_the_users_credentials_never_reach_a_candidate(
    tmp_path: Path, weight_bp: int, status: int
) -> None:
    """Mirrored or serving, redirected or not; the primary gets them as they are."""
    redirect = answer(b"x", status=status, extra=b"location: /elsewhere\r\n")
    async with (
        Upstream(echo) as primary,
        Upstream(redirect) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(OWN, weight_bp=weight_bp),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=CHAT, extra=CREDENTIALS)
        lines = await plane.pairs(1)
        check_ledger(plane)
        journal = orjson.dumps(lines)
    assert [request.fields[b"authorization"] for request in candidate.requests] == [
        b"Bearer candidate-key"
    ]
    assert not any(secret in everything(candidate) for secret in SECRETS)
    assert all(secret in everything(primary) for secret in SECRETS)
    assert b"candidate-key" not in everything(primary)
    assert b"candidate-key" not in journal


async def test_a_rescue_sends_the_primary_what_the_user_sent(tmp_path: Path) -> None:
    """Its own credentials and its own model, byte for byte."""
    both = Rewrite(OWN.set_headers, OWN.remove_headers, "tiny")
    async with (
        Upstream(echo) as primary,
        Upstream(raw_answer(close=True)) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(both, weight_bp=10_000),
        ) as plane,
    ):
        _, _, body = await plane.request(b"POST", b"/", body=CHAT, extra=CREDENTIALS)
        (line,) = await plane.pairs(1)
        check_ledger(plane)
    assert body == CHAT
    assert candidate.requests[0].body == REWRITTEN
    assert line["rescued"]
    assert line["request_body"] == CHAT.decode()
    assert all(secret in everything(primary) for secret in SECRETS)


@pytest.mark.parametrize("weight_bp", [0, 10_000])
async def test_the_model_is_replaced_and_nothing_else(tmp_path: Path, weight_bp: int) -> None:
    """The candidate's body is the user's but for the name; the lengths fit; the primary's is whole."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL, weight_bp=weight_bp),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        for _ in range(2):  # on one connection: a wrong length would break the second
            writer.write(request_bytes(b"POST", b"/v1/chat/completions", CHAT, b""))
            _, _, body = await read_answer(reader)
            assert body == (REWRITTEN if weight_bp else CHAT)
        writer.close()
        await plane.pairs(2)
        check_ledger(plane)
    assert [request.body for request in candidate.requests] == [REWRITTEN] * 2
    assert [request.body for request in primary.requests] == [CHAT] * 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_serving_candidate_gets_a_rewritten_body_whole(
    tmp_path: Path, chunked: bool
) -> None:
    """However it arrives: nothing is sent before the name is known, and its length is declared."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL, weight_bp=10_000),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(CHAT)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % framing)
        for start in range(0, len(CHAT), 20):
            piece = CHAT[start : start + 20]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await asyncio.sleep(0.005)
            assert start + 20 >= len(CHAT) or candidate.raw == []
        writer.write(b"0\r\n\r\n" if chunked else b"")
        assert (await read_answer(reader))[2] == REWRITTEN
        writer.close()
        await plane.pairs(1)
        check_ledger(plane)
    assert candidate.requests[0].fields[b"content-length"] == b"%d" % len(REWRITTEN)


async def test_the_primary_is_not_made_to_wait_for_a_candidates_rewrite(tmp_path: Path) -> None:
    """Users whom it serves stream to it as ever."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(CHAT))
        writer.write(CHAT[:10])
        await until(lambda: primary.raw, "the start of the body at the primary")
        writer.write(CHAT[10:])
        assert (await read_answer(reader))[2] == CHAT
        writer.close()
        await plane.pairs(1)
    assert candidate.requests[0].body == REWRITTEN


async def test_a_weight_that_falls_while_the_body_is_awaited_holds(tmp_path: Path) -> None:
    """The decision is made with the whole body: what came meanwhile counts."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL, weight_bp=10_000),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(CHAT))
        writer.write(CHAT[:10])
        await until(lambda: plane.count("routed", "iris"), "the head")
        plane.change(partial(set_weight, scope=Scope("iris", "v2"), weight_bp=0))
        writer.write(CHAT[10:])
        assert (await read_answer(reader))[2] == CHAT
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("canary", "iris", "v2") == 0
    assert line["served_by"] == "primary"


async def test_a_client_that_leaves_while_its_body_is_awaited_is_counted_once(
    tmp_path: Path,
) -> None:
    """Nothing was sent to anybody."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL, weight_bp=10_000),
        ) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
        await until(lambda: plane.count("routed", "iris"), "the head")
        writer.close()
        await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("canary", "iris", "v2") == 1
        assert (primary.raw, candidate.raw) == ([], [])


async def test_a_model_in_the_path_is_replaced_there_and_the_body_streams(tmp_path: Path) -> None:
    """Open Inference names the model in the path alone."""
    body = b'{"model": "iris-large", "inputs": []}'
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options(MODEL, weight_bp=10_000, protocol=Protocol.OPEN_INFERENCE),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        target = b"/v2/models/iris-large/infer?x=1"
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (target, len(body))
        )
        writer.write(body[:10])
        await until(lambda: candidate.raw, "the start of the body at the candidate")
        writer.write(body[10:])
        assert (await read_answer(reader))[2] == body
        writer.close()
        (line,) = await plane.pairs(1)
    assert candidate.requests[0].target == b"/v2/models/tiny/infer?x=1"
    assert primary.requests[0].target == target
    assert line["path"] == "/v2/models/iris-large/infer"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", Kept.NOT_JSON),
        (b'{"x": 1}', Kept.NO_MODEL),
        (b'{"model": "%b"}' % (b"a" * MAX_REWRITTEN_BYTES), Kept.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("weight_bp", [0, 10_000])
async def test_a_body_without_a_place_for_the_name_goes_as_it_is_and_is_counted(
    tmp_path: Path, body: bytes, reason: Kept, weight_bp: int
) -> None:
    """The candidate judges it; the counter says why."""
    wanted = options(MODEL, weight_bp=weight_bp)
    wanted.limits = {"mirror_body_bytes": 2**22}
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=wanted
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=body)
        await plane.request(b"GET", b"/")
        await plane.pairs(2)
        check_ledger(plane)
        counts = {kept: plane.count("model_kept", "iris", "v2", kept) for kept in Kept}
    assert candidate.requests[0].body == body
    assert counts == {kept: int(kept is reason) for kept in Kept}


async def test_an_unreachable_canary_with_a_rewrite_is_rescued_in_the_middle_of_an_upload(
    tmp_path: Path,
) -> None:
    """Headers alone are changed, so the body streams, and the primary gets all of it."""
    async with (
        Upstream(echo) as primary,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": unused_port()},
            options=options(OWN, weight_bp=10_000),
        ) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n0123456789")
        await until(lambda: plane.count("rescued", "iris", "v2"), "the rescue")
        writer.write(b"0123456789")
        assert (await read_answer(reader))[2] == b"01234567890123456789"
        writer.close()
        await plane.pairs(1)
        check_ledger(plane)


def test_the_version_knows_which_headers_are_set_and_not_to_what(tmp_path: Path) -> None:
    """A hash of a key in every record could be guessed at leisure."""

    def version(rewrite: Rewrite) -> str:
        return plane_config(tmp_path, 1, {"v2": 2}, options(rewrite)).version

    one = version(Rewrite({"authorization": "a"}))
    assert one == version(Rewrite({"authorization": "b"}))
    assert one != version(Rewrite({"x-key": "a"}))
    assert one != version(Rewrite())


@pytest.mark.skipif(
    os.environ.get("UNDERSTUDY_COMPILED") == "1", reason="compiled methods cannot be replaced"
)
async def test_a_page_that_changes_under_a_decision_meets_one_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that nobody needed is not kept; what the page says a moment later needs no body either."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=replace(options(MODEL), mirror_bp={"v2": 0}),
        ) as plane,
    ):
        looks, refresh = 0, plane.worker.refresh

        def refresh_and_change() -> None:
            nonlocal looks
            looks += 1
            refresh()
            if looks == 1:
                plane.change(partial(set_weight, scope=Scope("iris", "v2"), weight_bp=10_000))

        monkeypatch.setattr(plane.worker, "refresh", refresh_and_change)
        reader, writer = await plane.connect()
        whole = request_bytes(b"POST", b"/", CHAT, b"")
        writer.write(whole[:-10])
        await until(lambda: primary.raw or candidate.raw, "the first part")
        writer.write(whole[-10:])
        assert (await read_answer(reader))[::2] == (200, CHAT)
        writer.close()
        check_ledger(plane)
        assert plane.count("canary", "iris", "v2") == 0
