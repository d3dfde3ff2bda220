"""Whether a prediction is the right answer, as a label has it. Pure.

A label is what people write down: one class, one number, one text, or the whole vector. A
prediction is what a server answers: often a batch of one, or the scores of all classes. So a list of
one means what is in it, and scores mean their greatest where the label names a class.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from proxy.comparison.exact import compare_exact
from proxy.comparison.numeric import NumericComparator

#: As `compare.rel_tol` by default.
TOLERANCE = 1e-6

_NUMBERS = frozenset({int, float})


def is_right(prediction: Any, label: Any, comparator: str, tolerance: float = TOLERANCE) -> bool:
    """Return whether `prediction` is what `label` says.

    Args:
        prediction: as recorded.
        label: any JSON value but null.
        comparator: of the pair; `numeric` allows for `tolerance`, others compare exactly, but for
            `1` and `1.0`, which are one number.
        tolerance: relative, for numbers.
    """
    prediction, label = _single(prediction), _single(label)
    if comparator == "numeric":
        return _within(tolerance)(label, prediction, "").equal is True
    if type(label) is int and _are_scores(prediction):
        prediction = prediction.index(max(prediction))
    return compare_exact(label, prediction, "").equal is True


@lru_cache(maxsize=16)
def _within(tolerance: float) -> NumericComparator:
    return NumericComparator(rel_tol=tolerance, abs_tol=0.0)


def _single(value: Any) -> Any:
    while type(value) is list and len(value) == 1:
        value = value[0]
    return value


def _are_scores(value: Any) -> bool:
    """Return whether a list holds numbers that are not all whole: scores, as `label` reads them."""
    if type(value) is not list or not value or not {*map(type, value)} <= _NUMBERS:
        return False
    return not all(float(number).is_integer() for number in value)
