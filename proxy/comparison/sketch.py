"""Quantiles of a stream in fixed memory, mergeable exactly.

Values are counted in logarithmic buckets, so a quantile is within `ACCURACY` of the true one,
relative to its size, whatever the distribution (the idea of DDSketch, Masson, Rim and Lee, VLDB
2019, section 2). Buckets are fixed beforehand instead of collapsing: two sketches merge by adding
counts, and the result does not depend on the order or the split of the stream. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Greatest relative error of a quantile.
ACCURACY: Final = 0.01

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
#: Magnitudes up to this count as zero, and those above `_LARGEST` as `_LARGEST`.
_SMALLEST = 1e-9
_LARGEST = 1e15
_LOG_SMALLEST = math.log(_SMALLEST)
#: Buckets of each sign; the zero bucket lies between them.
_HALF = math.ceil((math.log(_LARGEST) - _LOG_SMALLEST) / _LOG_GAMMA)

Floats = NDArray[np.float64]


class QuantileSketch:
    """Counts of finite values, signed, in logarithmic buckets (44 KB, whatever it counts).

    Attributes:
        count: values added.
        minimum, maximum: the exact extremes; infinities of the wrong sign while empty.
        total: sum of the values, for the mean.
    """

    __slots__ = ("_buckets", "count", "maximum", "minimum", "total")

    def __init__(self) -> None:
        self.count = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.total = 0.0
        self._buckets: NDArray[np.int64] = np.zeros(2 * _HALF + 1, dtype=np.int64)

    def add(self, values: Floats | Sequence[float]) -> None:
        """Count `values`, shape `(n,)`; NaN and infinities are left out."""
        array = np.asarray(values, dtype=np.float64)
        array = array[np.isfinite(array)]
        if not array.size:
            return
        self.count += int(array.size)
        self.minimum = min(self.minimum, float(array.min()))
        self.maximum = max(self.maximum, float(array.max()))
        self.total += float(array.sum())
        self._buckets += np.bincount(_indices(array), minlength=self._buckets.size)

    def merge(self, other: QuantileSketch) -> None:
        """Count everything that `other` has counted."""
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self._buckets += other._buckets

    def mean(self) -> float | None:
        """Return the mean, exact but for rounding; None while empty."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return the value below which `share` of the values lie; None while empty.

        The value of rank `floor(share * (count - 1))` within `ACCURACY`, and exactly the minimum
        or maximum at the ends.

        Args:
            share: in [0, 1].
        """
        if not self.count:
            return None
        rank = math.floor(share * (self.count - 1))
        index = int(np.searchsorted(np.cumsum(self._buckets), rank, side="right"))
        return min(max(_value(index), self.minimum), self.maximum)

    def occupied(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Return the ends of the buckets that hold values, and the values in each or below it.

        Three arrays of one length, rising: lower ends, upper ends (infinite at both extremes, which
        hold what is larger, too), cumulative counts.
        """
        (places,) = np.nonzero(self._buckets)
        steps = np.abs(places - _HALF)
        near = np.where(steps, np.exp(_LOG_SMALLEST + (steps - 1) * _LOG_GAMMA), -_SMALLEST)
        far = np.exp(_LOG_SMALLEST + steps * _LOG_GAMMA)
        far = np.where(steps == _HALF, np.inf, far)
        is_negative = places < _HALF
        lower, upper = np.where(is_negative, -far, near), np.where(is_negative, -near, far)
        return lower, upper, np.cumsum(self._buckets[places])


def _indices(values: Floats) -> NDArray[np.int64]:
    magnitudes = np.clip(np.abs(values), _SMALLEST, _LARGEST)
    steps = np.ceil((np.log(magnitudes) - _LOG_SMALLEST) / _LOG_GAMMA)
    # The last step may round to one bucket too many at _LARGEST itself.
    signed: Floats = np.copysign(np.minimum(steps, _HALF), values) + _HALF
    return signed.astype(np.int64)


def _value(index: int) -> float:
    step = index - _HALF
    if not step:
        return 0.0
    upper = math.exp(_LOG_SMALLEST + abs(step) * _LOG_GAMMA)
    return math.copysign(2 * upper / (_GAMMA + 1), step)
