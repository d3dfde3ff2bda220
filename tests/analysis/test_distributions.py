"""What is said of two distributions is what the textbook formulas give on the values themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from proxy.analysis.coded import uncoded
from proxy.analysis.distributions import (
    bland_altman,
    confusion_matrix,
    jensen_shannon,
    label_drift,
    number_drift,
    psi,
)
from proxy.analysis.predictions import MAX_POINTS, NumberTally, PredictionTally, hashes_of


def tally_of(
    primary: np.ndarray[tuple[int], np.dtype[np.float64]],
    candidate: np.ndarray[tuple[int], np.dtype[np.float64]],
    parts: int = 1,
) -> NumberTally:
    """Return pairs of numbers counted in `parts`, merged."""
    whole = NumberTally()
    for numbers in np.array_split(np.arange(primary.size), parts):
        part = NumberTally()
        part.add(primary[numbers], candidate[numbers], hashes_of(numbers, numbers))
        whole.merge(part)
    return whole


def test_numbers_drift_and_agree_as_the_formulas_say() -> None:
    """A shift of 0.5 is Wasserstein's distance; the sketch is within 2% of each value."""
    rng = np.random.default_rng(5)
    primary = rng.normal(10, 2, 20_000)
    candidate = primary + 0.5 + rng.normal(0, 0.1, 20_000)
    numbers = tally_of(primary, candidate, parts=7)
    drift, plot = number_drift(numbers), bland_altman(numbers)
    assert drift is not None
    assert plot is not None
    assert drift.wasserstein == pytest.approx(0.5, abs=0.05)
    for side, values in (("primary", primary), ("candidate", candidate)):
        assert sum(each[side] for each in drift.bins) == values.size
        for each in drift.bins[1:-1]:
            expected = ((values > each["from"]) & (values <= each["to"])).sum()
            assert each[side] == expected
    assert plot.mean_diff == pytest.approx((candidate - primary).mean())
    deviation = (candidate - primary).std(ddof=1)
    assert plot.high - plot.low == pytest.approx(2 * 1.96 * deviation, rel=1e-3)
    assert len(plot.points) == MAX_POINTS
    assert plot.points == bland_altman(tally_of(primary, candidate)).points  # type: ignore[union-attr]


def test_psi_and_jensen_shannon_are_zero_for_the_same_and_known_for_others() -> None:
    """Disjoint distributions are one bit apart."""
    same = np.array([10, 20, 30])
    assert psi(same, same * 2) == pytest.approx(0)
    assert jensen_shannon(same, same) == pytest.approx(0)
    assert jensen_shannon(np.array([5, 0]), np.array([0, 7])) == pytest.approx(1)
    first, second = np.array([60, 40]), np.array([40, 60])
    assert psi(first, second) == pytest.approx(2 * 0.2 * math.log(1.5))


def test_kappa_is_scikit_learns() -> None:
    """Also where labels are many; what is rare is one row and column."""
    rng = np.random.default_rng(6)
    primary = rng.integers(0, 30, 3_000)
    candidate = np.where(rng.random(3_000) < 0.7, primary, rng.integers(0, 30, 3_000))
    tally = PredictionTally()
    numbers = np.arange(3_000)
    tally.add(
        uncoded(primary.tolist()), uncoded(candidate.tolist()), hashes_of(numbers, numbers), "label"
    )
    pairs = dict(tally.labels.ranked(10_000))
    matrix = confusion_matrix(pairs)
    assert matrix is not None
    assert matrix.kappa == pytest.approx(cohen_kappa_score(primary, candidate))
    assert matrix.labels[-1] == "other"
    assert len(matrix.labels) == 21
    assert sum(map(sum, matrix.counts)) == 3_000
    drift = label_drift(pairs)
    assert drift is not None
    assert sum(each["primary"] for each in drift.bins) == 3_000


@pytest.mark.parametrize(
    ("comparator", "primary", "candidate", "kind"),
    [
        ("numeric", [[1.5], [2]], [[1.5], [2.5]], "numbers"),
        ("numeric", [[1.5, 2.0], [3.0, 4.0]], [[1.5, 2.0], [3.0, 4.5]], "numbers"),
        ("numeric", [1.5, [2.0]], [1.0, 2.0], "numbers"),
        ("exact", [0.25, 0.5], [0.5, 0.5], "numbers"),
        ("exact", ["a", "b"], ["a", "c"], "labels"),
        ("label", [[0.1, 0.9], [0.6, 0.4]], [[0.2, 0.8], [0.3, 0.7]], "labels"),
        ("label", [[0.1, 0.9], "cat"], [1, "dog"], "labels"),
        ("json", [{"a": 1}, {"b": 2}], [{"a": 1}, {"b": 3}], "nothing"),
        ("vector", [[0.1, 0.9]], [[0.2, 0.8]], "nothing"),
        ("text", ["x" * 100], ["y" * 100], "nothing"),
        ("numeric", [None, 10**400], [1.0, 1.0], "nothing"),
        ("exact", [None], [3], "nothing"),
    ],
)  # fmt: skip
def test_predictions_are_numbers_labels_or_neither(
    comparator: str, primary: list[object], candidate: list[object], kind: str
) -> None:
    """By comparator and type; a pair in which a side says nothing is left out."""
    tally = PredictionTally()
    numbers = np.arange(len(primary))
    tally.add(uncoded(primary), uncoded(candidate), hashes_of(numbers, numbers), comparator)
    labels = sum(count for _, count in tally.labels.ranked(100))
    assert (tally.numbers.pairs > 0, labels > 0) == (kind == "numbers", kind == "labels")
