"""A prediction is right when it says what the label says, however either is wrapped."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.comparison.correctness import is_right


@pytest.mark.parametrize(
    ("prediction", "label", "comparator", "right"),
    [
        (3, 3, "label", True),
        (3, 4, "label", False),
        ([3], 3, "label", True),
        ([[3.0]], 3, "label", True),
        (3, [3], "exact", True),
        ([0.1, 0.7, 0.2], 1, "label", True),
        ([[0.1, 0.7, 0.2]], 1, "label", True),
        ([0.1, 0.7, 0.2], 2, "label", False),
        ([1, 0, 1], [1, 0, 1], "label", True),
        ([1, 0, 1], [1, 0, 0], "label", False),
        ([1, 0], 1, "label", False),
        ("cat", "cat", "exact", True),
        ("cat", "Cat", "exact", False),
        (True, 1, "exact", False),
        (True, True, "label", True),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, "exact", True),
        ([2.0000001], 2, "numeric", True),
        ([2.1], 2, "numeric", False),
        ([0.2, 0.8], [0.2, 0.8], "numeric", True),
        ("2", 2, "exact", False),
    ],
)
def test_what_is_right(prediction: Any, label: Any, comparator: str, right: bool) -> None:
    """Both ways round where it is symmetric."""
    assert is_right(prediction, label, comparator) is right


def test_the_tolerance_is_the_callers() -> None:
    """Relative, and of numbers alone."""
    assert is_right(2.1, 2, "numeric", 0.1)
    assert not is_right(2.1, 2, "exact", 0.1)
