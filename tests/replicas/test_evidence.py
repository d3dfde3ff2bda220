"""The evidence of all replicas: it adds up, and one that cannot be relied on holds everything up."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts
from proxy.comparison.gates import Metric
from proxy.ramp.window import Window, current
from proxy.replicas.evidence import Together
from proxy.replicas.messages import Beat, Counted, Origin

VERSION = "abcd"
WINDOW = Window(0, ())


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
