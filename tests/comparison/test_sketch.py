"""The quantile sketch keeps its promises whatever the numbers are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from proxy.comparison.sketch import ACCURACY, QuantileSketch

NUMBERS = st.one_of(
    st.just(0.0),
    st.floats(min_value=1e-8, max_value=1e14),
    st.floats(min_value=-1e14, max_value=-1e-8),
)


def sketch_of(values: list[float]) -> QuantileSketch:
    """Return a sketch of `values`."""
    sketch = QuantileSketch()
    sketch.add(values)
    return sketch


@given(st.lists(NUMBERS, min_size=1, max_size=200), st.floats(min_value=0, max_value=1))
def test_a_quantile_is_within_one_percent_of_the_exact_one(
    values: list[float], share: float
) -> None:
    """Of either sign, over twenty decades."""
    exact = sorted(values)[math.floor(share * (len(values) - 1))]
    found = sketch_of(values).quantile(share)
    assert found == pytest.approx(exact, rel=ACCURACY * 1.001)


@given(st.lists(NUMBERS, max_size=100), st.lists(NUMBERS, max_size=100))
def test_merged_shards_give_the_same_as_the_whole(left: list[float], right: list[float]) -> None:
    """So a topic may be read by partition, in any order."""
    merged = sketch_of(left)
    merged.merge(sketch_of(right))
    whole = sketch_of(left + right)
    assert merged.count == whole.count
    for share in (0.0, 0.25, 0.5, 0.9, 0.99, 1.0):
        assert merged.quantile(share) == whole.quantile(share)


def test_what_is_no_number_is_left_out() -> None:
    """NaN stands for null; infinities cannot be placed."""
    sketch = sketch_of([math.nan, math.inf, -math.inf, 5.0])
    assert (sketch.count, sketch.minimum, sketch.maximum, sketch.mean()) == (1, 5.0, 5.0, 5.0)


def test_an_empty_sketch_has_no_quantile_and_no_mean() -> None:
    """Nothing is not zero."""
    sketch = sketch_of([])
    assert sketch.quantile(0.5) is None
    assert sketch.mean() is None


def test_extremes_are_exact_and_magnitudes_out_of_range_are_kept_at_the_edge() -> None:
    """A number beyond the buckets still counts."""
    sketch = sketch_of([1e-300, 1e300, -1e300])
    assert sketch.quantile(0.0) == pytest.approx(-1e15, rel=0.02)
    assert sketch.quantile(1.0) == pytest.approx(1e15, rel=0.02)
    assert (sketch.minimum, sketch.maximum) == (-1e300, 1e300)


def test_a_million_numbers_take_no_more_room_than_one() -> None:
    """The memory is fixed."""
    one, many = sketch_of([1.0]), QuantileSketch()
    many.add(np.random.default_rng(1).lognormal(3, 2, 1_000_000))
    assert many._buckets.nbytes == one._buckets.nbytes < 50_000
