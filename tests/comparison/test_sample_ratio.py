"""A split that is not as declared is found, a true one is left in peace, however often one looks."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from proxy.comparison.bets import log_threshold
from proxy.comparison.counts import three_counts
from proxy.comparison.sample_ratio import (
    CERTAIN,
    ArmCounts,
    is_covered,
    log_evidence,
    merged_arms,
)

LIMIT = log_threshold(0.001)


def arm(*cells: tuple[int, int, int], name: str = "canary v2") -> ArmCounts:
    """Return the counts of one arm."""
    return ArmCounts(name, cells)


@given(
    bp=st.integers(1, 9_999),
    hits=st.integers(0, 50),
    misses=st.integers(0, 50),
)
def test_one_more_key_changes_nothing_on_average(bp: int, hits: int, misses: int) -> None:
    """The evidence is a martingale under the declared probability."""
    now = math.exp(log_evidence([arm((bp, hits, misses))]))
    hit = math.exp(log_evidence([arm((bp, hits + 1, misses))]))
    miss = math.exp(log_evidence([arm((bp, hits, misses + 1))]))
    share = bp / 10_000
    assert math.isclose(share * hit + (1 - share) * miss, now, rel_tol=1e-9)


def test_a_true_split_that_ramps_is_rarely_called_broken() -> None:
    """1%, 10%, 50%, looked at after every 600 of 6,000 keys, in 80 experiments."""
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(80):
        cells: list[tuple[int, int, int]] = []
        worst = 0.0
        for bp in (100, 1_000, 5_000):
            hits = np.cumsum(rng.binomial(200, bp / 10_000, size=10))
            looks = [(bp, int(hit), 200 * (n + 1) - int(hit)) for n, hit in enumerate(hits)]
            worst = max(worst, *(log_evidence([arm(*cells, look)]) for look in looks[::3]))
            cells.append(looks[-1])
        alarms += worst >= log_threshold(0.05)
    assert alarms <= 80 * 0.08


def test_a_split_that_is_off_is_called_broken() -> None:
    """11% for 10% after 20,000 keys; spread over the steps of a ramp, too."""
    assert log_evidence([arm((1_000, 2_200, 17_800))]) > LIMIT
    assert log_evidence([arm((1_000, 2_000, 18_000))]) < 0
    ramp = arm((100, 130, 9_870), (1_000, 1_150, 8_850), (5_000, 5_300, 4_700))
    assert log_evidence([ramp]) > LIMIT
    assert log_evidence([ramp, arm((1_000, 1_000, 9_000), name="mirror v2")]) > LIMIT


def test_what_was_declared_impossible_and_happened_is_certain() -> None:
    """A key at a weight of 0, or none at 100%."""
    assert log_evidence([arm((0, 1, 100))]) == CERTAIN
    assert log_evidence([arm((10_000, 99, 1))]) == CERTAIN
    assert log_evidence([arm((0, 0, 100), (10_000, 99, 0))]) == 0
    assert log_evidence([]) == 0


def test_shards_of_a_split_add_up() -> None:
    """By arm and declared probability, in any order."""
    left = (arm((100, 1, 99)), arm((5_000, 5, 5), name="mirror v2"))
    right = (arm((100, 2, 98), (1_000, 10, 90)),)
    whole = (arm((100, 3, 197), (1_000, 10, 90)), arm((5_000, 5, 5), name="mirror v2"))
    assert merged_arms([left, right]) == whole
    assert merged_arms([right, left]) == whole


def test_coverage_is_a_share_of_what_was_offered() -> None:
    """At the limit it still holds."""
    assert is_covered(three_counts(better=0, same=95, worse=0, missing=5), 0.05)
    assert not is_covered(three_counts(better=0, same=95, worse=0, missing=6), 0.05)
