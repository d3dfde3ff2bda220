"""Ramps over replicas: the leader decides on the evidence of all, and all of them follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from proxy.comparison.split_keys import SplitKeys, Toss
from proxy.ramp.phases import Event, Phase
from proxy.state.orders import Source
from proxy.telemetry import wall_ns
from tests.control.shared_stage import LATER_MS, Member, members, settle


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
