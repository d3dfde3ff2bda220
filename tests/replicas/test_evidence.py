"""The evidence of all replicas: it adds up, and one that cannot be relied on holds everything up."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, strategies as st

from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import ArmCounts
from proxy.comparison.split_keys import SplitKeys, Toss
from proxy.ramp.window import Window, current
from proxy.replicas.asides import Tossed, decode, encode, packed
from proxy.replicas.evidence import Together
from proxy.replicas.messages import Beat, Counted, Origin

VERSION = "abcd"
WINDOW = Window(0, ())
#: Split keys that are kept: so few that thresholds are halved again and again.
FEW = 3
units = st.integers(1, 40).map(lambda number: number * 0x9E3779B97F4A7C15 % 2**64)
tosses = st.builds(
    Toss, st.sampled_from([100, 1_000]), st.booleans(), st.just(1.0), st.sampled_from([True, None])
)


def counted(
    instance: str, same: int, worse: int, caught_up_ms: int = 1_000, **more: Any
) -> Counted:
    """Return what a replica has counted."""
    key = EvidenceKey("m", "m", "v2", VERSION, None, None)
    gate = GateCounts(Metric.AVAILABILITY, three_counts(better=0, same=same, worse=worse))
    parts = orjson.loads(orjson.dumps([{"counts": EvidenceCounts(key, (gate,)), "last_ms": 900}]))
    fields = {"config_version": VERSION, "problem": "", "parts": parts, **more}
    return Counted("m", "v2", caught_up_ms=caught_up_ms, origin=Origin(instance, "1", 0), **fields)


def living(*instances: str, version: str = VERSION) -> dict[str, Beat]:
    """Return the beats of replicas that live."""
    return {name: Beat(1, version, Origin(name, "1", 0)) for name in instances}


def by_name(*found: Counted) -> dict[str, Counted]:
    """Return counts by the replica's name."""
    return {each.origin.instance: each for each in found}


def split_of(seen: list[tuple[int, Toss]]) -> SplitKeys:
    """Return the keys of a process that keeps few and saw all of `seen`."""
    found = SplitKeys(FEW)
    for unit, toss in seen:
        found.note(f"{unit:016x}", toss)
    return found


def tossed(
    instance: str, found: SplitKeys, hashed_by: str = "key 1", version: str = VERSION
) -> list[Tossed]:
    """Return what a replica tells of its keys, on its way through the topic."""
    origin = Origin(instance, "1", 0)
    messages = [
        Tossed("m", "v2", notes["weight_bp"], version, hashed_by, packed(notes), origin)
        for notes in found.as_notes()
    ]
    read = [decode(encode(each)) for each in messages]
    return [each for each in read if isinstance(each, Tossed)]


def arms_of(messages: list[Tossed]) -> tuple[ArmCounts, ...]:
    """Return the arms of all replicas, of which one lives."""
    here = by_name(counted("a", 1, 0))
    return Together(VERSION, FEW).published("m/v2", here, living("a"), messages).arms


@given(st.lists(st.tuples(st.sampled_from("abc"), units, tosses), max_size=60), st.randoms())
def test_split_keys_of_replicas_are_those_of_one_instance_that_saw_all(
    seen: list[tuple[str, int, Toss]], chance: Any
) -> None:
    """In any order, with users that several of them saw, and with those of replicas that are gone."""
    messages = [
        each
        for name in "abc"
        for each in tossed(name, split_of([toss for who, *toss in seen if who == name]))  # type: ignore[misc]
    ]
    chance.shuffle(messages)
    assert arms_of(messages) == split_of([toss for _, *toss in seen]).arms("v2")  # type: ignore[misc]


def test_keys_that_are_hashed_by_different_secrets_are_arms_of_their_own() -> None:
    """Nobody can tell whether they are of the same users; those of another config are left out."""
    one = split_of([(1, Toss(100, is_hit=False, sample_prob=1.0, is_alone=True))])
    two = split_of([(2, Toss(100, is_hit=False, sample_prob=1.0, is_alone=True))])
    messages = [
        *tossed("a", one, "own key of a"),
        *tossed("b", two, "own key of b"),
        *tossed("c", two, "own key of c", version="old"),
    ]
    assert [each.name for each in arms_of(messages)] == [
        "canary v2 at 1% (own key of a)",
        "canary v2 at 1% (own key of b)",
    ]


def test_keys_that_are_none_are_a_problem_and_no_evidence() -> None:
    """What cannot be read is not left out: it may be what is wrong."""
    bad = Tossed("m", "v2", 100, VERSION, "key 1", {"hits": 3}, Origin("a", "1", 0))
    found = Together(VERSION).published("m/v2", by_name(counted("a", 1, 0)), living("a"), [bad])
    assert "no use" in found.problem
    assert found.parts == ()


def test_counts_of_replicas_add_up_and_the_slowest_says_how_far() -> None:
    """Those of one that is gone as well; only the living must have caught up."""
    here = by_name(
        counted("a", 10, 1, 5_000), counted("b", 20, 2, 4_000), counted("gone", 30, 3, 1)
    )
    found = Together(VERSION).published("m/v2", here, living("a", "b"))
    assert (found.problem, found.caught_up_ms) == ("", 4_000)
    (all_of_it,) = current(WINDOW, found)
    assert all_of_it.gates[0].overall == three_counts(better=0, same=60, worse=6)


def test_a_merge_is_made_anew_only_when_somebody_has_counted_more() -> None:
    """So nothing is judged twice."""
    together, one, other = Together(VERSION), counted("a", 10, 1), counted("b", 20, 2)
    first = together.published("m/v2", by_name(one, other), living("a", "b"))
    assert together.published("m/v2", by_name(one, other), living("a", "b")) is first
    more = together.published("m/v2", by_name(one, counted("b", 21, 2)), living("a", "b"))
    assert more is not first
    assert more.parts[0] is first.parts[0]


def test_what_cannot_be_relied_on_is_a_problem_and_no_evidence() -> None:
    """A replica that counts nothing, for another config or behind, one that runs another config, nonsense."""
    together = Together(VERSION)
    for here, alive, words in (
        (by_name(counted("a", 1, 0)), living("a", "b"), "replica b has counted nothing"),
        (
            by_name(counted("a", 1, 0, config_version="old")),
            living("a"),
            "replica a has counted nothing",
        ),
        (
            by_name(counted("a", 1, 0, problem="recorder 0 hangs")),
            living("a"),
            "replica a: recorder 0",
        ),
        (by_name(counted("a", 1, 0)), living("a", version="new"), "replica a runs config new"),
        (by_name(counted("a", 1, 0, parts=[{"last_ms": 1}])), living("a"), "no use"),
    ):
        found = together.published("m/v2", here, alive)
        assert words in found.problem
        assert found.parts == ()


def test_counts_of_another_config_are_left_out() -> None:
    """As those of a replica that was stopped before a config was changed."""
    old = counted("gone", 99, 0, config_version="old")
    found = Together(VERSION).published("m/v2", by_name(counted("a", 1, 0), old), living("a"))
    assert len(found.parts) == 1
