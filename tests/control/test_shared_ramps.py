"""Ramps over replicas: the leader decides on the evidence of all, and all of them follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.comparison.split_keys import SplitKeys, Toss
from proxy.control import replica_gates
from proxy.control.replica_notices import FIELD, MOST_WAITING
from proxy.control.shared_ramps import SharedRampDriver
from proxy.ramp.phases import Event, Phase
from proxy.replicas.lease import STOP
from proxy.replicas.messages import Lead, encode
from proxy.state.orders import Source
from proxy.telemetry import monotonic_s, uptime_s, wall_ns
from tests.control.shared_stage import GROUP, LATER_MS, Member, lead, members, settle
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.webhook_listener import listening


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Member]]:
    """Two replicas; the first one leads."""
    with members(tmp_path) as found:
        yield found


def start(member: Member) -> None:
    """Start the ramp as an operator."""
    entry = member.driver.entries["iris/v2"]
    member.driver.give(entry, Event.START, Source("ada", "api", "t", wall_ns() // 1_000_000))


def count(found: list[Member], *, same: int = 0, worse: int = 0) -> None:
    """Let every replica count pairs more, which are those of the step."""
    for each in found:
        each.count(same=same, worse=worse, age_ms=LATER_MS)
    settle(found)


def toss(member: Member, keys: range, *, hits: int, weight_bp: int = 2_500) -> None:
    """Let its recorder say which split keys it saw: the first `hits` were the candidate's."""
    split = SplitKeys()
    for number in keys:
        unit_hash = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"
        split.note(unit_hash, Toss(weight_bp, number - keys[0] < hits, 1.0, is_alone=True))
    path = member.state_dir / "evidence-0.json"
    said = orjson.loads(path.read_bytes())
    said["splits"] = [{"route": "iris", "candidate": "v2", "keys": split.as_notes()}]
    fresh = member.state_dir / ".evidence.new"
    fresh.write_bytes(orjson.dumps(said))
    fresh.replace(path)


def test_a_ramp_goes_up_on_what_all_have_counted(pair: list[Member]) -> None:
    """Also a word that is given to a follower; every replica takes the step."""
    start(pair[1])
    settle(pair)
    assert {each.state.phase for each in pair} == {Phase.SHADOW}
    count(pair)
    count(pair, same=500)
    assert {each.live.weight_bp for each in pair} == {2_500}


@pytest.mark.parametrize(("hits", "weight_bp"), [(1_000, 2_500), (500, 10_000)])
def test_a_split_that_is_not_as_declared_on_another_replica_holds_the_ramp(
    pair: list[Member], hits: int, weight_bp: int
) -> None:
    """As on a single instance: half of the users, where a quarter was declared; one that is true does not."""
    start(pair[0])
    settle(pair)
    count(pair)
    count(pair, same=500)
    assert {each.live.weight_bp for each in pair} == {2_500}
    for same in (0, 500):
        for each in pair:
            each.count(same=same, age_ms=LATER_MS)
        toss(pair[1], range(1, 2_001), hits=hits)
        settle(pair)
    assert {each.live.weight_bp for each in pair} == {weight_bp}
    assert ("sample_ratio" in pair[0].waits) == (weight_bp == 2_500)


def test_a_message_of_a_kind_that_is_not_known_is_passed_over(pair: list[Member]) -> None:
    """It is of a later Understudy; what is of a known kind and cannot be read is told."""
    pair[0].topic.append((b"g/later/m", b'{"v":1,"kind":"later"}'))
    pair[0].topic.append((b"g/keys/m", b'{"v":1,"kind":"keys"}'))
    pair[0].topic.append((b"g/weight/m", b'{"v":1,"kind":"weight"}'))
    settle(pair)
    seen = pair[1].replicas.statistics()
    assert (seen["unknown"], seen["unread"]) == (1, 2)


JUDGEMENT = ("outcome", "pairs", "is_fresh", "gates", "waits")


def judgement(member: Member) -> dict[str, Any]:
    """Return what a replica's status says of the gates."""
    seen = member.seen()
    return {name: seen[name] for name in JUDGEMENT}


def gates_told(found: list[Member]) -> int:
    """Return how often the gates were told."""
    return sum(key.startswith(b"g/judged/") for key, _ in found[0].topic)


def under_way(found: list[Member]) -> None:
    """Bring the ramp into its first step, with pairs that do not do yet."""
    start(found[0])
    settle(found)
    for same in (0, 500, 0, 50):
        count(found, same=same)
    assert {each.live.weight_bp for each in found} == {2_500}


def test_a_follower_says_what_the_leader_s_gates_say(pair: list[Member]) -> None:
    """With who says so, and since when; it is told when it has changed, and not again."""
    under_way(pair)
    leader, follower = map(judgement, pair)
    assert leader == follower
    assert [each["metric"] for each in leader["gates"]] == ["availability"]
    assert leader["pairs"] == 100
    seen = pair[1].seen()
    assert seen["judged_by"] == "a"
    assert 0 <= wall_ns() // 1_000_000 - seen["judged_ms"] < 10_000
    assert pair[0].seen()["judged_by"] == ""
    times = gates_told(pair)
    settle(pair)
    assert gates_told(pair) == times


def test_gates_are_told_once_a_second_at_most(pair: list[Member]) -> None:
    """However often they change."""
    under_way(pair)
    pair[0].is_paced = True
    times, began_s = gates_told(pair), monotonic_s()
    for _ in range(5):
        count(pair, same=1)
    assert gates_told(pair) - times <= 1 + monotonic_s() - began_s
    assert gates_told(pair) > times


def test_gates_that_take_too_much_room_are_left_out(
    pair: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they come to is told all the same."""
    monkeypatch.setattr(replica_gates, "MOST_BYTES", 450)
    under_way(pair)
    follower = pair[1].seen()
    assert (follower["pairs"], follower["gates"]) == (100, [])
    assert follower["judged_by"] == "a"


def test_a_judgement_of_before_is_not_shown(tmp_path: Path) -> None:
    """Neither of another step, nor of a leader that has lost its lead; of one that is gone as not fresh."""
    with members(tmp_path, "abc") as found:
        under_way(found)
        before = found[1].seen()
        living = replace(found[1].replicas._group, takeover_s=0.0)
        found[1].replicas._group = living  # nobody has been heard of in this time
        found[1].tick()
        assert found[1].seen()["gates"] == before["gates"]
        assert not found[1].seen()["is_fresh"]
        assert found[1].seen()["waits"] == "a leads"
        found[1].replicas._group = GROUP
        pause = Source("ada", "api", "t", wall_ns() // 1_000_000)
        found[1].driver.give(found[1].driver.entries["iris/v2"], Event.PAUSE, pause)
        found[1].hear()
        found[1].driver.tick()
        assert found[1].seen()["gates"] == []
        settle(found)
        assert found[1].seen()["judged_by"] == "a"
        origin = found[2].replicas.origin("", "", "")
        lead_of_c = Lead(found[0].replicas.shared.term + 1, origin)
        found[0].topic.append((b"g/lead", encode(lead_of_c)))
        found[1].tick()
        assert (found[1].seen()["gates"], found[1].seen()["judged_by"]) == ([], "")
        lead(found, found[2])
        assert found[0].seen()["judged_by"] == "c"
        assert judgement(found[0]) == judgement(found[1]) == judgement(found[2])


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_leader_that_stood_still_tells_nothing_before_it_has_read(
    pair: list[Member], *, is_stopped: bool
) -> None:
    """Its tick may come first, with all that it takes to go up; without a stop it does."""
    under_way(pair)
    leader = pair[0]
    leader.line.may_lead = False  # while it hears what there is
    count(pair, same=500)
    leader.line.may_lead = True
    if is_stopped:
        leader.replicas._lease._looked_s = uptime_s() - STOP * GROUP.takeover_s - 1
    before = len(leader.topic)
    leader.driver.tick()
    told = [key for key, _ in leader.topic[before:]]
    assert (b"g/weight/iris/v2" in told) == (not is_stopped)
    assert leader.replicas.leads == (not is_stopped)
    leader.line.may_lead = False
    lead(pair, pair[1])
    assert {each.live.weight_bp for each in pair} == {10_000}


@asynccontextmanager
async def calling(member: Member) -> AsyncIterator[None]:
    """Let the webhooks of a replica be called until the block ends."""
    task = asyncio.get_running_loop().create_task(member.webhooks.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_S)


async def test_what_a_leader_decided_and_did_not_tell_the_next_one_tells(tmp_path: Path) -> None:
    """In order, once; an operator's word, too, whoever took it; and nobody tells it again."""
    with listening() as listener, members(tmp_path, "abc", notify=listener.hook()) as found:
        start(found[1])
        settle(found)
        count(found)
        count(found, same=500)
        assert {each.live.weight_bp for each in found} == {2_500}
        lead(found, found[1])  # the first one has died before it has told anything
        async with calling(found[1]):
            await until(lambda: found[1].webhooks.statistics().get("notified") == 3, "the notices")
        settle(found)
        lead(found, found[2])
        found[0].restart()
        settle(found)
        lead(found, found[0])
        assert not any(each.webhooks.statistics().get("queued") for each in (found[0], found[2]))
        assert [each["event"] for each in listener.said] == ["start", "pass", "advance"]
        assert {each["instance"] for each in listener.said[1:]} == {"a"}


async def test_a_leader_that_dies_before_it_has_said_that_it_told_is_told_twice(
    tmp_path: Path,
) -> None:
    """The same bytes with the same id, so that the receiver can drop it."""
    with listening() as listener, members(tmp_path, notify=listener.hook()) as found:
        start(found[0])
        settle(found)
        found[0].line.is_caught_up = False  # what it says from now on is lost
        async with calling(found[0]):
            await until(lambda: len(listener.calls) == 1, "the notice")
        settle(found[1:])
        lead(found[1:], found[1])
        async with calling(found[1]):
            await until(lambda: len(listener.calls) == 2, "the notice again")
        (_, one), (_, other) = listener.calls
        assert one == other
        assert listener.said[0]["id"]


async def test_what_is_lost_with_the_line_of_what_was_told_is_said_again(tmp_path: Path) -> None:
    """So that no other leader tells it once more."""
    with listening() as listener, members(tmp_path, notify=listener.hook()) as found:
        start(found[0])
        settle(found)
        found[0].line.is_caught_up = False
        async with calling(found[0]):
            await until(lambda: found[0].webhooks.statistics().get("notified") == 1, "the notice")
        settle(found)
        lead(found, found[1])
        assert found[1].replicas.asides.notices_told("iris/v2") == [listener.said[0]["id"]]
        assert found[1].webhooks.statistics()["queued"] == 0


def test_notices_that_nobody_takes_are_bounded(pair: list[Member]) -> None:
    """The oldest is given up; a state of an older Understudy has none."""
    assert isinstance(pair[0].driver, SharedRampDriver)
    notices, weights = pair[0].driver._notices, pair[0].replicas.shared.weights
    for number in range(MOST_WAITING + 3):
        ramp = {FIELD: notices.carried("iris/v2", {"id": str(number)})}
        weights["iris/v2"] = replace(weights["iris/v2"], ramp=ramp)
    found = notices.carried("iris/v2", None)
    assert [each["id"] for each in found] == [str(3 + n) for n in range(MOST_WAITING)]
    weights["iris/v2"] = replace(weights["iris/v2"], ramp={})
    assert notices.carried("iris/v2", None) == []
