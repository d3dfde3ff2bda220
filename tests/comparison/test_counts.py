"""Differences and weights as counts: exact at points, enclosed between them, mergeable."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from proxy.comparison.counts import (
    Counts,
    Tally,
    difference_cell,
    difference_ends,
    inverse_weight,
    merged,
    three_counts,
    weight_cell,
    weight_ends,
)

differences = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-1, 1))
weights = st.one_of(st.just(1.0), st.floats(2**-10, 1))
unusable = st.sampled_from([None, math.nan, math.inf, -math.inf, 1.0000001, -2.0])
observations = st.lists(st.tuples(st.one_of(differences, unusable), weights), max_size=40)


def tallied(pairs: list[tuple[float | None, float]]) -> Counts:
    """Return the counts of differences with weights."""
    tally = Tally()
    for difference, weight in pairs:
        tally.add(difference, weight)
    return tally.counts()


@given(difference=differences)
def test_a_difference_lies_within_its_cell(difference: float) -> None:
    """Between its ends, which are equal if and only if it is on a point of the grid."""
    (least,), (greatest,) = difference_ends(np.array([difference_cell(difference)]))
    assert least <= difference <= greatest
    assert greatest - least in (0, 2**-9)
    assert bool(least == greatest) is ((Fraction(difference) * 512).denominator == 1)


@given(weight=weights)
def test_a_weight_lies_within_its_cell(weight: float) -> None:
    """Between its ends, which are at most 2.2% apart."""
    (least,), (greatest,) = weight_ends(np.array([weight_cell(weight)]))
    assert least <= weight <= greatest <= least * 1.0222


def test_three_valued_differences_of_full_weight_are_three_counts() -> None:
    """The common case: exact, and as small as it can be."""
    found = tallied([(1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)])
    assert found == three_counts(better=1, same=2, worse=1)
    assert found.three() == (1, 2, 1)
    assert found.pairs == 4


@given(pairs=observations, cuts=st.lists(st.integers(0, 40), max_size=4), order=st.randoms())
def test_shards_add_up_to_the_unsharded_counts(
    pairs: list[tuple[float | None, float]], cuts: list[int], order: Random
) -> None:
    """However pairs are split over workers, in whatever order they and the shards come."""
    whole = tallied(pairs)
    shuffled = list(pairs)
    order.shuffle(shuffled)
    ends = [0, *sorted(cuts), len(shuffled)]
    shards = [tallied(shuffled[start:end]) for start, end in pairwise(ends)]
    assert merged(shards) == whole
    assert merged(reversed(shards)) == whole
    assert merged([merged(shards[:1]), merged(shards[1:])]) == whole


@given(pairs=observations)
def test_every_pair_is_counted_once(pairs: list[tuple[float | None, float]]) -> None:
    """With a difference or as missing; what is not a number is missing."""
    found = tallied(pairs)
    usable = [d for d, _ in pairs if d is not None and -1 <= d <= 1]
    assert found.pairs == len(usable)
    assert found.missing == len(pairs) - len(usable)


@given(values=st.lists(st.one_of(st.floats(-1.5, 1.5), st.just(math.nan)), max_size=40))
def test_many_at_once_are_counted_as_one_by_one(values: list[float]) -> None:
    """The way of analysis, which has columns."""
    together = Tally()
    together.add_all(np.array(values, dtype=np.float64))
    assert together.counts() == tallied([(value, 1.0) for value in values])


@pytest.mark.parametrize(
    ("probability", "floor", "weight"),
    [
        (1.0, 1.0, 1.0),
        (0.1, 0.1, 1.0),
        (1.0, 0.1, 0.1),
        (0.3333, 0.33330000000001, 1.0),  # as the record writes it
        (0.05, 0.1, None),
        (1.0, 0.0005, None),
        (math.nan, 0.1, None),
        (0.0, 0.1, None),
    ],
)
def test_a_weight_is_floor_over_probability(
    probability: float, floor: float, weight: float | None
) -> None:
    """At most 1; below the floor, and so far above it that the weight is too small, there is none."""
    assert inverse_weight(probability, floor) == weight


def test_a_pair_without_a_weight_is_missing() -> None:
    """It cannot be weighed, so it is not evidence."""
    assert tallied([(0.0, 0.0), (0.0, math.nan)]) == Counts(missing=2)
