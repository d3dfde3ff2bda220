"""Shares with their intervals, and who is right: values that summary and findings share. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Two-sided 95% quantile of the normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share with its interval.

    Attributes:
        count, total: the share is `count / total`.
        rate: None when `total` is 0.
        low, high: Wilson score interval at 95%. It holds for one look at a number of pairs fixed
            beforehand; whoever looks repeatedly until it pleases is wrong more often.
    """

    count: int
    total: int
    rate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Correctness:
    """Who is right, over the pairs whose request has a label.

    Attributes:
        labelled: those pairs.
        unanswered: of them, those where a side holds no prediction; they are in no other count.
        both, only_primary, only_candidate, neither: who predicted what the label says.
        primary, candidate: how often each is right, of the pairs in which both answered.
    """

    labelled: int
    unanswered: int
    both: int
    only_primary: int
    only_candidate: int
    neither: int
    primary: Proportion
    candidate: Proportion


def proportion(count: int, total: int) -> Proportion:
    """Return `count / total` with its Wilson score interval (E. B. Wilson, 1927), 95%."""
    if not total:
        return Proportion(count, 0, None, None, None)
    rate, z2 = count / total, _Z95 * _Z95
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    spread = math.sqrt(rate * (1 - rate) / total + z2 / (4 * total * total))
    half = _Z95 / (1 + z2 / total) * spread
    return Proportion(count, total, rate, max(centre - half, 0.0), min(centre + half, 1.0))
