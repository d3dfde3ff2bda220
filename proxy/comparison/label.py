"""Labels: a string, integer or boolean, a vector of scores (its argmax), or lists of these.

What a list means is read from both sides together:

* all numbers are whole: a list of labels (or one-hot vectors), compared elementwise, because
  servers write integer labels as floats too, `[1.0, 0.0, 2.0]`;
* some number is not whole and there are two or more: scores of one item, compared by argmax
  (the first of equals);
* anything else: elementwise, so a batch is a list of labels or of vectors.
"""

from __future__ import annotations

from typing import Any

from proxy.comparison.result import EQUAL, Comparison, differs, not_comparable

_NUMBERS = frozenset({int, float})


def compare_label(primary: Any, candidate: Any, root: str) -> Comparison:
    """Return whether two predictions name the same label, or the same labels in order.

    The primary decides what is a label: when it holds an object instead, the pair is not
    comparable (`not_a_label`); when only the candidate does, they disagree.
    """
    if not _is_label(primary):
        return not_comparable("not_a_label")
    path = _first_difference(primary, candidate, root)
    return EQUAL if path is None else differs(path)


def _is_label(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_label, value))
    return not isinstance(value, dict)


def _first_difference(primary: Any, candidate: Any, path: str) -> str | None:
    if not (isinstance(primary, list) and isinstance(candidate, list)):
        same = primary == candidate and isinstance(primary, bool) == isinstance(candidate, bool)
        return None if same else path or "$"
    if len(primary) != len(candidate):
        return f"{path}[{min(len(primary), len(candidate))}]"
    if len(primary) > 1 and _are_scores(primary, candidate):
        same = _argmax(primary) == _argmax(candidate)
        return None if same else path or "$"
    for index, (left, right) in enumerate(zip(primary, candidate, strict=True)):
        found = _first_difference(left, right, f"{path}[{index}]")
        if found is not None:
            return found
    return None


def _are_scores(primary: list[Any], candidate: list[Any]) -> bool:
    """Return whether both are numeric vectors and not all their numbers are whole."""
    if not {*map(type, primary), *map(type, candidate)} <= _NUMBERS:
        return False
    return not (all(map(_is_whole, primary)) and all(map(_is_whole, candidate)))


def _is_whole(number: float) -> bool:
    return type(number) is int or float(number).is_integer()


def _argmax(scores: list[float]) -> int:
    return scores.index(max(scores))
