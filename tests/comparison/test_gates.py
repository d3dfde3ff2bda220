"""What each gate makes of a pair."""

from __future__ import annotations

import math
from typing import Any

import pytest

from proxy.comparison.gates import (
    Metric,
    correctness,
    difference,
    error_difference,
    is_offered,
)


def pair(**changes: Any) -> dict[str, Any]:
    """Return the fields of a record that gates read, both legs fine and equal."""
    return {
        "primary_status": "ok",
        "candidate_status": "ok",
        "replicate_status": "ok",
        "primary_latency_ms": 10.0,
        "candidate_latency_ms": 10.0,
        "comparable": True,
        "replicate_equal": True,
        "loss_diff": 0.0,
    } | changes


def seen(metric: Metric, record: dict[str, Any], *, noise: bool = True) -> float | None:
    """Return D by a gate with a budget of 50 ms."""
    return difference(metric, record, has_noise_floor=noise, budget_s=0.05)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"loss_diff": 1.0}, 1),
        ({"loss_diff": -1.0, "replicate_equal": False}, -1),
        ({"comparable": False, "loss_diff": None}, None),
        ({"replicate_equal": None}, None),
    ],
)
def test_agreement_is_the_loss_against_the_noise(
    changes: dict[str, Any], expected: float | None
) -> None:
    """A replicate that cannot be compared makes the pair missing, not free of noise."""
    assert seen(Metric.AGREEMENT, pair(**changes)) == expected


def test_without_a_noise_floor_every_pair_is_judged() -> None:
    """With one, only those that have a replicate are."""
    lonely = pair(replicate_status=None, replicate_equal=None, loss_diff=1.0)
    assert seen(Metric.AGREEMENT, lonely, noise=False) == 1
    assert is_offered(Metric.AGREEMENT, lonely, has_noise_floor=False)
    assert not is_offered(Metric.AGREEMENT, lonely, has_noise_floor=True)
    assert is_offered(Metric.AGREEMENT, pair(), has_noise_floor=True)
    assert is_offered(Metric.LATENCY, lonely, has_noise_floor=True)
    assert not is_offered(Metric.CORRECTNESS, lonely, has_noise_floor=False)


@pytest.mark.parametrize(
    ("primary", "candidate", "expected"),
    [
        ("ok", "ok", 0),
        ("ok", "timeout", 1),
        ("http_error", "ok", -1),
        ("reset", "connect_error", 0),
        ("ok", "shed", None),
        ("cancelled", "ok", None),
        ("ok", "not_sent", None),
        ("ok", None, None),
    ],
)
def test_availability_counts_failures_of_either_side(
    primary: str, candidate: str | None, expected: float | None
) -> None:
    """What was not asked did not fail: it is missing."""
    record = pair(primary_status=primary, candidate_status=candidate)
    assert seen(Metric.AVAILABILITY, record) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"candidate_latency_ms": 50.0}, 0),
        ({"candidate_latency_ms": 50.1}, 1),
        ({"primary_latency_ms": 60.0, "candidate_latency_ms": 70.0}, 0),
        ({"primary_latency_ms": 60.0}, -1),
        ({"candidate_status": "timeout", "candidate_latency_ms": None}, 1),
        ({"candidate_status": "reset", "candidate_latency_ms": 1.0}, None),
        ({"candidate_latency_ms": None}, None),
        ({"candidate_latency_ms": math.nan}, None),
    ],
)
def test_latency_counts_calls_over_the_budget(
    changes: dict[str, Any], expected: float | None
) -> None:
    """A timeout is over every budget; a call that broke off early was not fast."""
    assert seen(Metric.LATENCY, pair(**changes)) == expected


def test_labels_say_who_is_wrong() -> None:
    """Each side's error alone counts; an unknown one is missing."""
    assert correctness(candidate_wrong=True, primary_wrong=False) == 1
    assert correctness(candidate_wrong=True, primary_wrong=True) == 0
    assert correctness(candidate_wrong=False, primary_wrong=True) == -1
    assert correctness(candidate_wrong=None, primary_wrong=True) is None


def test_errors_are_scaled_by_their_bound_and_clipped() -> None:
    """What is not a number stays missing."""
    assert error_difference(3.0, 2.0, bound=4.0) == 0.25
    assert error_difference(30.0, 2.0, bound=4.0) == 1
    assert error_difference(0.0, math.inf, bound=4.0) == -1
    assert error_difference(math.inf, math.inf, bound=4.0) is None
    assert error_difference(math.nan, 2.0, bound=4.0) is None
    assert error_difference(None, 2.0, bound=4.0) is None
