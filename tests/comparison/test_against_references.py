"""Measures are those of the libraries that everybody takes for the reference."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from rapidfuzz.distance import Levenshtein
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from proxy.comparison.comparators import compare
from proxy.comparison.text import first_other_word
from proxy.comparison.vector import cosine
from proxy.config.resolved import Compare

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
scores = st.integers(2, 12).flatmap(
    lambda size: st.tuples(*(st.lists(st.floats(0, 1), min_size=size, max_size=size),) * 2)
)
orders = st.permutations("abcdefgh")


def distance(name: str, left: Any, right: Any, **settings: Any) -> float:
    """Return what a graded comparator writes as `abs_diff`."""
    spec = Compare("", name, 0.0, 0.0, min_similarity=-1.0, **settings)
    found = compare(spec, left, right).abs_diff
    assert found is not None
    return found


@given(pair=scores)
def test_kendall_is_scipys_tau_b(pair: tuple[list[float], list[float]]) -> None:
    """Over scores with ties."""
    left, right = pair
    assume(len({*left}) > 1 and len({*right}) > 1)
    assume(any(value % 1 for value in left + right))
    tau = kendalltau(left, right).statistic
    found = distance("ranking", left, right, measure="kendall", k=100)
    assert found == pytest.approx(1 - tau, abs=1e-9)


@given(left=orders, right=orders, sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_kendall_of_lists_with_different_items_ties_what_is_missing(
    left: list[str], right: list[str], sizes: tuple[int, int]
) -> None:
    """Behind all items that are there; scipy over the ranks of all of them says the same."""
    left, right = left[: sizes[0]], right[: sizes[1]]
    items = sorted({*left, *right})
    ranks = [
        [-items_.index(item) if item in items_ else -99 for item in items]
        for items_ in (left, right)
    ]
    assume(all(len({*rank}) > 1 for rank in ranks))
    tau = kendalltau(*ranks).statistic
    found = distance("ranking", left, right, measure="kendall", k=100)
    assert found == pytest.approx(1 - tau, abs=1e-9)


@given(pair=scores, k=st.integers(1, 12))
def test_ndcg_is_sklearns(pair: tuple[list[float], list[float]], k: int) -> None:
    """Where the candidate's scores have no ties, whose order sklearn averages."""
    left, right = pair
    assume(len({*right}) == len(right) and max(left) > 0)
    assume(any(value % 1 for value in left + right))
    found = distance("ranking", left, right, measure="ndcg", k=k)
    assert found == pytest.approx(1 - ndcg_score([left], [right], k=k), abs=1e-9)


@given(
    rows=st.integers(1, 20).flatmap(
        lambda size: st.tuples(*(st.lists(st.floats(-1e3, 1e3), min_size=size, max_size=size),) * 2)
    )
)
def test_cosine_is_numpys(rows: tuple[list[float], list[float]]) -> None:
    """Of vectors that have a direction."""
    left, right = np.array(rows[0]), np.array(rows[1])
    lengths = np.linalg.norm(left) * np.linalg.norm(right)
    assume(lengths > 1e-3)
    assert cosine(*rows) == pytest.approx(float(left @ right / lengths), abs=1e-9)


@given(left=float32s, right=float32s, near=st.integers(-9, 9))
def test_steps_of_float32_are_those_of_its_bits(left: float, right: float, near: int) -> None:
    """Neighbours of a number, and numbers anywhere; both zeros are one."""
    spec = Compare("", "numeric", 0.0, 0.0, ulp=3)
    neighbour = _float32_at(_place(left) + near)
    assume(math.isfinite(neighbour))
    assert compare(spec, left, neighbour).equal is (abs(near) <= 3)
    assert compare(spec, left, right).equal is (abs(_place(left) - _place(right)) <= 3)


def _place(value: float) -> int:
    """Return the place of a float32 among all of them."""
    bits = int(np.array([value], dtype=np.float32).view(np.int32)[0])
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float32_at(place: int) -> float:
    bits = np.array([abs(place)], dtype=np.int32)
    return math.copysign(float(bits.view(np.float32)[0]), place)


@given(left=st.text("ab c", max_size=30), right=st.text("ab c", max_size=30))
def test_similarity_of_texts_is_levenshteins(left: str, right: str) -> None:
    """1 less the edits over the longer length, by the textbook's table."""
    one, other = " ".join(left.split()), " ".join(right.split())
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        last, row[0] = row[0], number
        for place, wanted in enumerate(other, start=1):
            last, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, last + (letter != wanted)),
            )
    longest = max(len(one), len(other))
    expected = row[-1] / longest if longest else 0.0
    assert distance("text", left, right) == pytest.approx(expected, abs=1e-12)
    assert Levenshtein.distance(one, other) == row[-1]


def test_long_texts_are_compared_by_words() -> None:
    """10,000 words of which one differs; by how much is told when it is little enough."""
    words = [f"word{number}" for number in range(10_000)]
    other = [*words[:7_000], "another", *words[7_001:]]
    spec = Compare("", "text", 0.0, 0.0, min_similarity=0.99999)
    found = compare(spec, " ".join(words), " ".join(other), "y")
    assert (found.equal, found.first_diff_path) == (False, "y[7000]")
    assert found.abs_diff is None
    found = compare(replace(spec, min_similarity=0.99), " ".join(words), " ".join(other), "y")
    assert found.equal
    assert found.abs_diff == pytest.approx(1e-4)
    assert first_other_word(["a"], ["a", "b"]) == 1
