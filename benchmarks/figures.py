"""Medians, spreads and ratios of repeated rounds. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: Chance that a confidence interval leaves out on either side.
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and their least and greatest value."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of one or more values."""
    return Spread(statistics.median(values), min(values), max(values))


def median_interval(values: Sequence[float]) -> Spread:
    """Return the median of one or more values and its 95% confidence interval, whatever their distribution.

    The interval is between two of the values: as many are below the median of all that there could be as
    heads in as many throws of a coin (Conover, Practical Nonparametric Statistics, section 3.2). Of fewer
    than six values it is their range, which is less than 95%.
    """
    ordered = sorted(values)
    count, below, chance = len(ordered), 0, 0.0
    while (chance := chance + math.comb(count, below) / 2**count) <= _TAIL:
        below += 1
    first = max(0, below - 1)
    return Spread(statistics.median(ordered), ordered[first], ordered[count - 1 - first])


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the ratios of rounds, taken round by round.

    Two peers of one round ran within seconds of each other, so that what else the machine was
    doing is in both and cancels.

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the differences, taken round by round.

    Raises:
        ValueError: the numbers of rounds differ.
    """
    return spread([a - b for a, b in zip(ours, theirs, strict=True)])


def rotated(items: Sequence[T], turn: int) -> list[T]:
    """Return the items starting at another one each turn, so that none always runs first."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


def size_label(size_bytes: int) -> str:
    """Return a size as people write it: 1 KB, 64 KB, 1 MB, 300 B (binary multiples)."""
    for unit, name in ((1 << 20, "MB"), (1 << 10, "KB")):
        if size_bytes >= unit and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"


def parse_size(text: str) -> int:
    """Return the bytes of `1KB`, `64 kb`, `1MB` or `300`.

    Raises:
        ValueError: it is none of these.
    """
    number = text.strip().lower().removesuffix("b").replace("i", "")
    factor = {"k": 1 << 10, "m": 1 << 20}.get(number[-1:], 1)
    return int(number.rstrip("km").strip()) * factor
