"""Vectors, such as embeddings: how far the angle between them is from none."""

from __future__ import annotations

import math
from operator import mul
from typing import Any, Final

from proxy.comparison.result import ROOT, Comparison, agrees, differs, not_comparable

_NUMBERS: Final = frozenset({int, float})
NOT_A_VECTOR: Final = "not_a_vector"
#: Below this, squares may have lost digits to underflow.
_LEAST_LENGTH: Final = 1e-140


class VectorComparator:
    """Compares by cosine: vectors agree when it is at least `min_similarity`.

    A list of vectors is compared one by one; `abs_diff` is 1 less the least cosine. Vectors of
    different lengths differ. One of zeros has no direction: it is like another one of zeros only.
    """

    def __init__(self, *, min_similarity: float) -> None:
        self._least = min_similarity

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return how alike two vectors, or two lists of them, are."""
        if _is_vector(primary):
            rows, others, names = [primary], [candidate], [root]
        elif type(primary) is list and primary and all(map(_is_vector, primary)):
            if type(candidate) is not list or len(candidate) != len(primary):
                return differs(root)
            rows, others = primary, candidate
            names = [f"{root}[{index}]" for index in range(len(primary))]
        else:
            return not_comparable(NOT_A_VECTOR)
        worst, path = 1.0, None
        for row, other, name in zip(rows, others, names, strict=True):
            if not _is_vector(other) or len(other) != len(row):
                return differs(name)
            similarity = 1.0 if row == other else cosine(row, other)
            if similarity < self._least and path is None:
                path = name or ROOT
            worst = min(worst, similarity)
        return agrees(1.0 - worst) if path is None else differs(path, 1.0 - worst)


def cosine(one: list[float], other: list[float]) -> float:
    """Return the cosine of the angle between two vectors of one length, in [-1, 1]."""
    product: float = sum(map(mul, one, other))
    length: float = math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    if _LEAST_LENGTH < length < math.inf:
        return min(max(product / length, -1.0), 1.0)
    return _cosine_scaled(one, other)


def _cosine_scaled(one: list[float], other: list[float]) -> float:
    """Return `cosine` of vectors whose squares overflow or vanish: scaled by their greatest element."""
    sizes = max(map(abs, one)), max(map(abs, other))
    if not all(sizes):
        return float(sizes[0] == sizes[1])
    one, other = (
        [value / size for value in row] for row, size in zip((one, other), sizes, strict=True)
    )
    return cosine(one, other)


def _is_vector(value: Any) -> bool:
    return type(value) is list and bool(value) and {*map(type, value)} <= _NUMBERS
