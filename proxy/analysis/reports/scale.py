"""Axes of the charts: from values to places, and where to put round numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: Values below this are drawn as 0: their ratios overflow.
_LEAST = 1e-100


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low` to `start` and `high` to `end`, straight or by logarithm.

    Attributes:
        low, high: ends of the values; different, and above 0 for a logarithm.
        start, end: their places, in units of the drawing.
        is_log: whether equal ratios take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of `value`, rounded to a tenth; beyond the ends it stays at them."""
        change: Callable[[float], float] = math.log if self.is_log else float
        low, high = change(self.low), change(self.high)
        within = min(max(value, self.low), self.high)
        share = (change(within) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, about: int = 5) -> list[float]:
        """Return about so many round values between the ends."""
        if self.is_log:
            return self._log_ticks(about)
        step = round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _log_ticks(self, about: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for digits in ((1, 2, 5), (1,)):
            found = [
                digit * 10.0**decade
                for decade in decades
                for digit in digits
                if self.low <= digit * 10.0**decade <= self.high
            ]
            if len(found) <= 2 * about:
                return found
        return found[:: math.ceil(len(found) / about)]


def round_step(rough: float) -> float:
    """Return the 1, 2 or 5 times a power of ten that is next above `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * (1 - 1e-9))


def without_outliers(values: Iterable[float]) -> list[float]:
    """Return those of `values` that can share a picture, in their order.

    What lies further from the middle nine tenths than three times their width would press them all
    into a line (fences as J. W. Tukey's, 1977, but wider). All, where the nine tenths have no width.
    """
    found = list(values)
    if not found:
        return found
    ranked = sorted(found)
    low, high = (ranked[round(share * (len(ranked) - 1))] for share in (0.05, 0.95))
    reach = 3.0 * (high - low)
    return [each for each in found if low - reach <= each <= high + reach] if reach else found


def around(values: Iterable[float], room: float = 0.06) -> tuple[float, float]:
    """Return ends with some room around `values`; never the same twice."""
    found = list(values)
    low, high = min(found), max(found)
    size = max(abs(low), abs(high))
    spread = high - low
    if spread <= size * 1e-9 or size < _LEAST:
        spread = max(size, _LEAST)
    return low - room * spread, high + room * spread
