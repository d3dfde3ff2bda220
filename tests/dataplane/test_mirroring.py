"""What candidates get, what users never notice, and what the journal says about both."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Bodies, RedactRule, Split, SplitKind
from proxy.state.control_page import Part
from proxy.state.kill import Scope, kill, set_weight
from proxy.state.stats_page import LATENCY_BOUNDS_US, Skip
from proxy.wire.trace_context import CANDIDATE, PRIMARY, REPLICATE, leg_span_id
from tests.support.dataplane import Options, dataplane, request_bytes, until
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Upstream, answer, echo, hang, raw_answer, reset, unused_port


async def test_every_exchange_leaves_one_pair_with_both_answers(tmp_path: Path) -> None:
    """Both bodies, both statuses, one request id, numbered without a gap."""
    async with (
        Upstream(answer(b'{"y": 1}')) as primary,
        Upstream(answer(b'{"y": 2}')) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        for number in range(20):
            await plane.request(b"POST", b"/a?b", body=b"%d" % number)
        lines = await plane.pairs(20)
        check_ledger(plane)
    assert [line["seq"] for line in lines] == list(range(1, 21))
    assert len({line["request_id"] for line in lines}) == 20
    line = lines[0]
    assert (line["primary_body"], line["candidate_body"]) == ('{"y": 1}', '{"y": 2}')
    assert (line["primary_status"], line["candidate_status"]) == ("ok", "ok")
    assert (line["served_by"], line["mode"], line["path"]) == ("primary", "shadow", "/a")
    assert line["primary_latency_us"] > 0
    assert line["candidate_body_state"] == "full"


async def test_the_candidate_gets_the_same_request_marked_as_a_mirror(tmp_path: Path) -> None:
    """Same target, body and request id; its own child span; x-understudy-mirror."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        await plane.request(b"POST", b"/x?y=1", body=b"payload", extra=b"x-a: 1\r\n")
        await plane.pairs(1)
    lead, copy = primary.requests[0], candidate.requests[0]
    assert (copy.target, copy.body, copy.fields[b"x-a"]) == (b"/x?y=1", b"payload", b"1")
    assert copy.fields[b"x-request-id"] == lead.fields[b"x-request-id"]
    assert copy.fields[b"x-understudy-mirror"] == b"1"
    assert b"x-understudy-mirror" not in lead.fields
    lead_trace, copy_trace = (r.fields[b"traceparent"].split(b"-") for r in (lead, copy))
    assert lead_trace[1] == copy_trace[1]
    assert lead_trace[2] != copy_trace[2]


async def test_what_the_journal_says_gives_the_ids_that_backends_saw(tmp_path: Path) -> None:
    """So that whoever reads a record can join it to the backends' own traces."""
    trace = b"traceparent: 00-%b-b7ad6b7169203331-01\r\ntracestate: a=1\r\n" % (b"c" * 32)
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(replicate_bp=10_000),
        ) as plane,
    ):
        await plane.request(b"POST", b"/x", body=b"{}", extra=trace)
        await plane.request(b"POST", b"/x", body=b"{}")
        joined, own = sorted(await plane.pairs(2), key=lambda line: line["seq"])
    seen = {
        request.fields[b"traceparent"].decode(): request
        for request in primary.requests + candidate.requests
    }
    for line, flags in ((joined, "01"), (own, "00")):
        for leg in (PRIMARY, REPLICATE, CANDIDATE):
            span = leg_span_id(int(line["span_id"], 16), leg)
            request = seen.pop(f"00-{line['trace_id']}-{span:016x}-{flags}")
            assert request.fields.get(b"tracestate") == (b"a=1" if line is joined else None)
    assert not seen
    assert (joined["parent_span_id"], joined["trace_sampled"]) == ("b7ad6b7169203331", True)
    assert (own["parent_span_id"], own["trace_sampled"]) == (None, False)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (hang, "timeout"),
        (reset, "reset"),
        (None, "connect_error"),
        (answer(b"no", status=500), "http_error"),
        (raw_answer(b"NOT HTTP AT ALL\r\n\r\n"), "reset"),
        (raw_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", close=True), "reset"),
    ],
)
async def test_a_broken_candidate_is_recorded_and_never_noticed(
    tmp_path: Path, behaviour: Any, status: str
) -> None:
    """Users get the primary's answer at once; the record says what the candidate did."""
    async with (
        Upstream(answer(b"good")) as primary,
        Upstream(behaviour or hang) as upstream,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": upstream.port if behaviour else unused_port()},
            options=Options(deadlines={"v2": {"timeout_s": 0.3}} if behaviour is hang else {}),
        ) as plane,
    ):
        answers = [await plane.request(b"POST", b"/", body=b"x") for _ in range(5)]
        lines = await plane.pairs(5)
        check_ledger(plane)
    assert [(code, body) for code, _, body in answers] == [(200, b"good")] * 5
    assert {line["candidate_status"] for line in lines} == {status}
    assert all(line["primary_body"] == "good" for line in lines)


async def test_a_pair_is_written_when_the_primary_fails(tmp_path: Path) -> None:
    """The candidate's answer is kept beside the primary's failure."""
    async with (
        Upstream(answer(b"fine")) as candidate,
        dataplane(tmp_path, primary=unused_port(), candidates={"v2": candidate.port}) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 502
        (line,) = await plane.pairs(1)
    assert (line["primary_status"], line["candidate_status"]) == ("connect_error", "ok")
    assert line["candidate_body"] == "fine"
    assert line["primary_http_status"] is None


async def test_the_mirror_percent_keeps_its_keys(tmp_path: Path) -> None:
    """30% of the users are mirrored, the same on a second run, and all of them at 60%."""
    users = [b"u%d" % number for number in range(200)]

    async def mirrored(folder: Path, share_bp: int) -> set[bytes]:
        async with (
            Upstream(echo) as primary,
            Upstream(echo) as candidate,
            dataplane(
                folder,
                primary=primary.port,
                candidates={"v2": candidate.port},
                options=Options(mirror_bp={"v2": share_bp}),
            ) as plane,
        ):
            for user in users:
                await plane.request(b"POST", b"/", body=user, extra=b"x-user-id: %b\r\n" % user)
            await until(
                lambda: len(candidate.requests) == plane.count("mirror_sent", "iris", "v2"),
                "the mirrors to arrive",
            )
            await plane.pairs(len(candidate.requests))
            check_ledger(plane)
            return {request.body for request in candidate.requests}

    first = await mirrored(tmp_path / "a", 3000)
    assert await mirrored(tmp_path / "b", 3000) == first
    more = await mirrored(tmp_path / "c", 6000)
    assert first < more
    assert 35 <= len(first) <= 85


async def test_a_full_candidate_sheds_the_mirror_not_the_user(tmp_path: Path) -> None:
    """Above max_in_flight the mirror is shed, counted, and recorded as shed."""
    async with (
        Upstream(answer(b"ok")) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(max_in_flight=3, timeout_s=600.0),
        ) as plane,
    ):
        for _ in range(8):
            assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        plane.age("v2", 600.0)
        lines = await plane.pairs(8)
        check_ledger(plane)
        assert plane.count("mirror_skipped", "iris", "v2", Skip.IN_FLIGHT) == 5
    statuses = sorted(line["candidate_status"] for line in lines)
    assert statuses == ["shed"] * 5 + ["timeout"] * 3


async def test_a_body_over_the_mirror_limit_is_served_and_not_mirrored(tmp_path: Path) -> None:
    """The user notices nothing; the record says that the mirror was shed."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits={"mirror_body_bytes": 1000, "record_body_bytes": 100}),
        ) as plane,
    ):
        body = b"a" * 200_000
        assert (await plane.request(b"POST", b"/", body=body))[2] == body
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("mirror_skipped", "iris", "v2", Skip.BODY_TOO_LARGE) == 1
    assert candidate.requests == []
    assert (line["candidate_status"], line["candidate_error"]) == ("shed", "body_too_large")
    assert (line["primary_body"], line["primary_body_state"]) == ("a" * 100, "truncated")
    assert line["primary_response_bytes"] == 200_000


async def test_captured_bodies_are_bounded_by_the_memory_limit(tmp_path: Path) -> None:
    """With the budget taken, the next mirror is skipped for `memory`."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(limits={"memory_bytes": 25_000, "record_body_bytes": 10}),
        ) as plane,
    ):
        for _ in range(4):
            assert (await plane.request(b"POST", b"/", body=b"b" * 10_000))[0] == 200
        assert plane.count("mirror_skipped", "iris", "v2", Skip.MEMORY) == 2
        assert plane.worker.held_bytes <= 25_000


async def test_a_kill_stops_mirrors_at_once_and_cancels_those_under_way(tmp_path: Path) -> None:
    """From the write on no request reaches the candidate; the hanging one is `cancelled`."""
    async with (
        Upstream(echo) as primary,
        Upstream(hang) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"before")
        await until(lambda: candidate.requests, "the first mirror")
        plane.change(lambda state: kill(state, Scope("iris", "v2"), Part.DEFAULT, "test"))
        for _ in range(10):
            assert (await plane.request(b"POST", b"/", body=b"after"))[0] == 200
        (line,) = await plane.pairs(1)
        assert len(candidate.requests) == 1
        check_ledger(plane)
    assert (line["candidate_status"], line["candidate_error"]) == ("cancelled", "killed")


async def test_an_unreadable_control_page_means_primary_only(tmp_path: Path) -> None:
    """A page of garbage stops mirrors and canaries; users are served."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        page = tmp_path / "control.page"
        with page.open("r+b") as file:
            file.write(b"\xff" * page.stat().st_size)
        for _ in range(5):
            assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        assert len(primary.requests) == 5
        assert candidate.requests == []


async def test_a_canary_serves_its_share_and_the_primary_gets_the_copy(tmp_path: Path) -> None:
    """At 100% the candidate answers every user, and pairs keep coming."""
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"old"
        plane.change(lambda state: set_weight(state, Scope("iris", "v2"), 10_000))
        assert (await plane.request(b"POST", b"/", body=b"x"))[2] == b"new"
        _, line = await plane.pairs(2)
        check_ledger(plane)
        assert plane.count("canary", "iris", "v2") == 1
    assert (line["served_by"], line["mode"], line["assign_prob"]) == ("candidate", "canary", 1)
    assert (line["primary_body"], line["candidate_body"]) == ("old", "new")


async def test_a_user_stays_with_the_candidate_while_the_weight_grows(tmp_path: Path) -> None:
    """Raising the weight moves nobody back; killing moves everybody at once."""
    users = [b"u%d" % number for number in range(60)]
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):

        async def on_new() -> set[bytes]:
            found = set()
            for user in users:
                extra = b"x-user-id: %b\r\n" % user
                if (await plane.request(b"POST", b"/", body=b"x", extra=extra))[2] == b"new":
                    found.add(user)
            return found

        before: set[bytes] = set()
        for weight_bp in (1_000, 2_500, 5_000, 10_000):
            plane.change(partial(set_weight, scope=Scope("iris", "v2"), weight_bp=weight_bp))
            now = await on_new()
            assert before <= now
            before = now
        assert before == set(users)
        plane.change(lambda state: kill(state, Scope(), Part.DEFAULT, "test"))
        assert await on_new() == set()


@pytest.mark.parametrize("behaviour", [raw_answer(close=True), hang, None])
async def test_a_failing_canary_is_rescued_by_the_primary(tmp_path: Path, behaviour: Any) -> None:
    """The user sees the primary's answer; the candidate is charged with the failure."""
    async with (
        Upstream(answer(b"saved")) as primary,
        Upstream(behaviour or hang) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port if behaviour else unused_port()},
            options=Options(
                weight_bp={"v2": 10_000}, deadlines={"v2": {"first_byte_timeout_s": 0.3}}
            ),
        ) as plane,
    ):
        status, _, body = await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("rescued", "iris", "v2") == 1
    assert (status, body) == (200, b"saved")
    assert (line["rescued"], line["served_by"]) == (True, "primary")
    assert line["candidate_status"] in ("reset", "timeout", "connect_error")
    assert (line["primary_status"], line["primary_body"]) == ("ok", "saved")


async def test_replicates_ask_the_primary_a_second_time(tmp_path: Path) -> None:
    """With 100% replicates each pair holds two primary answers and the candidate's."""
    async with (
        Upstream(answer(b"p")) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(replicate_bp=10_000),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
    assert len(primary.requests) == 2
    assert (line["replicate_status"], line["replicate_body"]) == ("ok", "p")


async def test_a_client_that_leaves_is_cancelled_and_its_mirror_still_recorded(
    tmp_path: Path,
) -> None:
    """The primary's leg is released at once; the record says cancelled."""
    async with (
        Upstream(hang) as primary,
        Upstream(answer(b"c")) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"x", b""))
        await until(lambda: primary.requests and candidate.requests, "both legs")
        writer.close()
        (line,) = await plane.pairs(1)
        assert plane.worker.pools["primary"].in_flight == 0
        check_ledger(plane)
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "ok")


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_not_mirrored(
    tmp_path: Path,
) -> None:
    """Half a request is never sent to a candidate; the exchange is still recorded."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        _, writer = await plane.connect()
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
        await until(lambda: primary.raw, "the primary's leg")
        writer.close()
        (line,) = await plane.pairs(1)
        check_ledger(plane)
        assert plane.count("mirror_skipped", "iris", "v2", Skip.CLIENT_GONE) == 1
    assert candidate.requests == []
    assert (line["primary_status"], line["candidate_status"]) == ("cancelled", "not_sent")


async def test_a_json_field_can_be_the_split_key(tmp_path: Path) -> None:
    """The decision waits for the body; the same user always gets the same backend."""
    options = Options(weight_bp={"v2": 5_000}, split=Split(SplitKind.JSON, "user.id"))
    async with (
        Upstream(answer(b"old")) as primary,
        Upstream(answer(b"new")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        seen: dict[int, set[bytes]] = {}
        for number in range(60):
            body = b'{"pad": %d, "user": {"id": %d}}' % (number, number % 20)
            answered = (await plane.request(b"POST", b"/", body=body))[2]
            seen.setdefault(number % 20, set()).add(answered)
    assert all(len(answers) == 1 for answers in seen.values())
    assert set.union(*seen.values()) == {b"old", b"new"}


async def test_secrets_are_dropped_before_the_disk(tmp_path: Path) -> None:
    """Redacted paths are in no byte of the state directory; what is not JSON is left out."""
    options = Options(bodies=Bodies.FULL, redact=(RedactRule("patient.ssn"),))
    secret = b'{"patient": {"ssn": "078-05-1120", "age": 5}}'
    async with (
        Upstream(echo) as primary,
        Upstream(answer(b"078-05-1120 is not json")) as candidate,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        assert (await plane.request(b"POST", b"/", body=secret))[2] == secret
        (line,) = await plane.pairs(1)
    assert "078-05-1120" not in str(line)
    assert (line["primary_body_state"], line["candidate_body_state"]) == ("redacted", "redacted")
    assert '"age"' in line["request_body"]


async def test_bodies_none_journals_no_body(tmp_path: Path) -> None:
    """Statuses and times are recorded, contents are not."""
    async with (
        Upstream(answer(b"top secret")) as primary,
        Upstream(answer(b"top secret")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=Options(bodies=Bodies.NONE),
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=b"x")
        (line,) = await plane.pairs(1)
    assert line["primary_body"] is None
    assert line["candidate_body_state"] == "omitted"
    assert line["candidate_response_bytes"] == 10


async def test_many_users_at_once_keep_their_own_answers(tmp_path: Path) -> None:
    """400 requests over 40 connections, two candidates: every body its own, every pair once."""
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as good,
        Upstream(reset) as bad,
        dataplane(
            tmp_path, primary=primary.port, candidates={"v2": good.port, "v3": bad.port}
        ) as plane,
    ):

        async def user(number: int) -> None:
            for turn in range(10):
                body = b"%d-%d" % (number, turn)
                assert (await plane.request(b"POST", b"/", body=body))[2] == body

        await asyncio.gather(*(user(number) for number in range(40)))
        lines = await plane.pairs(800)
        check_ledger(plane)
        check_ledger(plane, "v3")
    assert len({(line["request_id"], line["candidate"]) for line in lines}) == 800
    assert all(
        line["primary_body"] == line["candidate_body"]
        for line in lines
        if line["candidate"] == "v2"
    )


async def test_latencies_count_whole_answers_of_their_own_leg_only(tmp_path: Path) -> None:
    """A dead candidate does not look fast, and who serves does not change whose latency it is."""
    async with (
        Upstream(answer(b"ok")) as primary,
        Upstream(answer(b"ok")) as candidate,
        dataplane(
            tmp_path,
            primary=primary.port,
            candidates={"v2": candidate.port, "v3": unused_port()},
            options=Options(weight_bp={"v2": 10_000}),
        ) as plane,
    ):
        for _ in range(4):
            assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        await plane.pairs(8)

        def observed(leg: str) -> int:
            bounds = [str(bound) for bound in LATENCY_BOUNDS_US] + ["+Inf"]
            return sum(plane.count("latency_us", "iris", leg, bound) for bound in bounds)

        assert {leg: observed(leg) for leg in ("primary", "v2", "v3")} == {
            "primary": 4,
            "v2": 4,
            "v3": 0,
        }
