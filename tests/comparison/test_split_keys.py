"""Each key is one toss of the coin: counted once, in bounded memory, by any number of shards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.comparison.bets import log_threshold
from proxy.comparison.sample_ratio import ArmCounts, log_evidence
from proxy.comparison.split_keys import MAX_WEIGHTS, SplitKeys, Toss, toss_of
from tests.support.records import pair

Seen = tuple[int, Toss]

tosses = st.builds(
    Toss,
    st.sampled_from([100, 1_000, 5_000]),
    st.booleans(),
    st.just(1.0),
    st.sampled_from([True, None]),
)
#: Forty keys, some seen often, whose hashes lie anywhere.
units = st.integers(1, 40).map(lambda number: number * 0x9E3779B97F4A7C15 % 2**64)
seen = st.lists(st.tuples(units, tosses), max_size=60)
#: Few, so that thresholds are halved again and again.
KEPT = 3


def noted(found: list[Seen], limit: int = KEPT) -> SplitKeys:
    """Return the keys of one process that saw all of `found`."""
    keys = SplitKeys(limit)
    for unit, toss in found:
        keys.note(f"{unit:016x}", toss)
    return keys


def told(keys: SplitKeys) -> Any:
    """Return what is kept, in an order of its own."""
    return [
        {**each, **{s: sorted(each[s]) for s in ("hits", "misses")}} for each in keys.as_notes()
    ]


@given(found=seen, cuts=st.lists(st.integers(0, 60), min_size=2, max_size=4))
def test_shards_keep_what_one_process_would_have_kept(found: list[Seen], cuts: list[int]) -> None:
    """In any order, with keys that several of them saw."""
    whole = noted(found)
    bounds = sorted(cuts)
    parts = [found[start:end] for start, end in zip([0, *bounds], [*bounds, 60], strict=True)]
    for order in (parts, [*parts[::-1], parts[0]]):
        merged = SplitKeys(KEPT)
        for part in order:
            merged.merge(noted(part))
        assert told(merged) == told(whole)
        assert merged.arms("v2") == whole.arms("v2")
    assert all(len(each["hits"]) + len(each["misses"]) <= KEPT for each in whole.as_notes())


@given(found=seen)
def test_notes_are_read_back(found: list[Seen]) -> None:
    """Through JSON, with hashes of 64 bits."""
    keys = noted(found)
    assert told(SplitKeys.of_notes(orjson.loads(orjson.dumps(keys.as_notes())))) == told(keys)


def test_a_user_with_many_requests_is_one_key() -> None:
    """Nor does it matter which request came first."""
    keys = SplitKeys()
    for number in range(200):
        keys.note(f"{number % 20:016x}", Toss(1_000, number % 20 < 2, 1.0, is_alone=True))
    (arm,) = keys.arms("v2")
    assert (arm.name, arm.cells, arm.discount) == ("canary v2 at 10%", ((1_000, 2, 18),), 1)


def test_what_is_chosen_by_what_was_seen_is_paid_for() -> None:
    """Each halving of the threshold, and the first look, cost a half of the evidence."""
    keys = SplitKeys(4)
    for number in range(64):  # evenly spread
        keys.note(f"{number << 58:016x}", Toss(5_000, is_hit=True, sample_prob=1.0, is_alone=None))
    keys.note("0" * 16, Toss(5_000, is_hit=False, sample_prob=1.0, is_alone=True))
    (arm,) = keys.arms("v2")
    assert (arm.cells, arm.discount) == (((5_000, 4, 0),), 5)
    whole = ArmCounts(arm.name, arm.cells)
    assert log_evidence([arm]) == pytest.approx(log_evidence([whole]) - 5 * math.log(2))


def test_pairs_that_are_recorded_more_seldom_make_hits_more_frequent() -> None:
    """At 10%, with a fifth of the others mirrored: 0.1 of 0.1 + 0.9 / 5."""
    keys = SplitKeys()
    keys.note("1", Toss(1_000, is_hit=True, sample_prob=1.0, is_alone=None))
    assert keys.arms("v2") == ()  # the chance of the others is not known yet
    keys.note("2", Toss(1_000, is_hit=False, sample_prob=0.2, is_alone=True))
    assert keys.arms("v2")[0].cells == ((3_571, 1, 1),)
    keys.note("3", Toss(1_000, is_hit=False, sample_prob=0.5, is_alone=True))
    assert keys.arms("v2") == ()


def test_two_canaries_at_once_tell_nothing() -> None:
    """Whose keys the others would have been is not in these records."""
    keys = SplitKeys()
    keys.note("1", Toss(1_000, is_hit=False, sample_prob=1.0, is_alone=True))
    keys.note("2", Toss(1_000, is_hit=False, sample_prob=1.0, is_alone=False))
    assert keys.arms("v2") == ()


def test_no_more_weights_than_the_bound_are_kept() -> None:
    """The lowest, whatever came first; and what is no hash is left out."""
    keys = SplitKeys()
    for weight_bp in [*range(9_000, 9_040), *range(1, 3)]:
        keys.note("1", Toss(weight_bp, is_hit=True, sample_prob=1.0, is_alone=None))
    for damaged in (None, "", "no hash", 7):
        keys.note(damaged, Toss(1, is_hit=True, sample_prob=1.0, is_alone=None))
    kept = [each["weight_bp"] for each in keys.as_notes()]
    assert kept == [1, 2, *range(9_000, 9_000 + MAX_WEIGHTS - 2)]
    assert len(keys.as_notes()[0]["hits"]) == 1


CANARY: dict[str, Any] = {"ramp_weight_bp": 1_000, "assign_prob": 0.9}
SERVED: dict[str, Any] = {"ramp_weight_bp": 1_000, "assign_prob": 0.1, "served_by": "candidate"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (CANARY, (False, True)),
        (SERVED, (True, None)),
        (SERVED | {"served_by": "primary", "rescued": True}, (True, None)),
        (CANARY | {"assign_prob": 0.7}, (False, False)),
        (CANARY | {"candidate_status": "shed"}, (False, True)),
        (CANARY | {"candidate_status": "not_sent"}, None),
        (SERVED | {"primary_status": "not_sent"}, None),
        (CANARY | {"assign_prob": 1.0}, None),
        ({}, None),
        (CANARY | {"ramp_weight_bp": 10_000, "assign_prob": 1.0}, None),
    ],
)
def test_what_a_pair_says_of_its_key(changes: dict[str, Any], says: tuple[Any, Any] | None) -> None:
    """Nothing at 0%, at 100%, under a kill, and of a request for one backend alone."""
    found = toss_of(pair(1, **changes))
    assert (found and (found.is_hit, found.is_alone)) == says


def test_a_true_split_is_left_in_peace_while_keys_are_forgotten() -> None:
    """60 experiments with busy users, looked at all the time, at 5%; and one that is off is found."""
    rng = np.random.default_rng(11)
    alarms = found = 0
    for experiment in range(60):
        keys, worst = SplitKeys(200), 0.0
        share = 0.2 if experiment < 50 else 0.4
        units = rng.integers(0, 2**63, size=1_500)
        sides = rng.random(1_500) < share
        for number, user in enumerate(rng.zipf(1.3, size=6_000) % 1_500):
            toss = Toss(2_000, bool(sides[user]), 1.0, is_alone=None if sides[user] else True)
            keys.note(f"{units[user]:016x}", toss)
            if number % 300 == 299:
                worst = max(worst, log_evidence(keys.arms("v2")))
        if experiment < 50:
            alarms += worst >= log_threshold(0.05)
        else:
            found += worst >= log_threshold(0.001)
    assert alarms <= 3
    assert found == 10
