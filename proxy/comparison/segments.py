"""Which segments of the traffic show a difference of their own, of many looked at together.

A candidate may be good on the whole and bad for one language. Each segment (a value of a model
version, customer tier, language, …) has counts of its own, and with many of them one will look bad by
chance. The e-BH procedure (Wang and Ramdas, arXiv 2009.02824, section 4) keeps the expected share of
false findings among all findings at alpha, under any dependence between segments: of K e-values the
k greatest are found, for the greatest k at which the k-th is at least K / (k * alpha).

It takes the e-values of *now*. The greatest value that a segment ever had is no e-value; at whatever
moment one stops, the value of that moment is. Pure.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from proxy.comparison.bets import log_of

#: Segments of one gate that are kept apart; what comes after them is counted as `OTHER`. Values come
#: from an allow-list, so that more than these is a mistake, which must not cost memory.
MAX_SEGMENTS: Final = 100
#: The segment of values that were too many.
OTHER: Final = "(other)"


def found_by_e_bh(log_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Return for each e-value, given as its logarithm, whether e-BH finds it; NaN never is."""
    total = len(log_values)
    usable = sorted((value for value in log_values if value == value), reverse=True)
    least: float | None = None
    for number, value in enumerate(usable, start=1):
        if value >= log_of(total / (number * alpha)):
            least = value
    return tuple(least is not None and value >= least for value in log_values)


def segment_of(known: Container[str], count: int, name: str) -> str:
    """Return under which name a segment is counted, when `count` of them are `known` already."""
    return name if name in known or count < MAX_SEGMENTS else OTHER
