"""Confidence bounds for E[D] that hold at every look, from the bets that decide.

A margin m is ruled out from below when the evidence for E[D] > m reaches 1 / alpha, and from above
when the evidence for E[D] < m does. The first falls with m and the second rises with it (each
factor does: (m - D) / (1 - m) has the derivative (1 - D) / (1 - m)**2 >= 0), so what is not ruled out
is an interval, found by halving. Over all looks together each bound is wrong with probability alpha
at most (Waudby-Smith and Ramdas, arXiv 2010.09686, section 4: a confidence sequence is the set of
means whose capital is below 1 / alpha). A gate promotes when its upper bound is at or below its
margin, and halts when the lower one is at or above it: bounds and verdict cannot disagree.

The bounds are those of the counts of now; they are not intersected with earlier ones, since these
are not in the counts.

Quantiles, of latencies for instance, have such bounds too. Whether a value lies at or below t is a
difference of 1 or -1, with mean 2 F(t) - 1. A t at which F(t) < p is claimed is below the p-quantile,
and one at which F(t) > p is claimed is not. The evidence moves one way with t, so both bounds are right
at all looks together but for alpha each, over all t at once (Howard and Ramdas, arXiv 1906.09712, have
sharper ones for all p at once). Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from proxy.comparison.bets import Cells, Claim, log_threshold
from proxy.comparison.counts import DIFFERENCE_STEPS, FULL_WEIGHT
from proxy.comparison.reproducible import Floats
from proxy.comparison.sketch import QuantileSketch

#: The interval [-1, 1] is halved so often: to 1e-6.
_HALVINGS: Final = 21


def bounds(cells: Cells, alpha: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper bound of E[D] for each row of `cells`, shape `(n,)`.

    Args:
        cells: at least one row; one without pairs has the bounds -1 and 1.
        alpha: probability that a bound is ever wrong, for each of the two.
    """
    threshold = log_threshold(alpha)
    rows = cells.counts.shape[0]
    lower, beyond_lower = np.full(rows, -1.0), np.full(rows, 1.0)
    upper, beyond_upper = np.full(rows, 1.0), np.full(rows, -1.0)
    for _ in range(_HALVINGS):
        # Ends move only to where the evidence is there: rounding makes the interval wider.
        middle = (lower + beyond_lower) / 2
        is_ruled_out = cells.log_evidence(Claim.HALT, middle) >= threshold
        lower = np.where(is_ruled_out, middle, lower)
        beyond_lower = np.where(is_ruled_out, beyond_lower, middle)
        middle = (upper + beyond_upper) / 2
        is_ruled_out = cells.log_evidence(Claim.PROMOTE, middle) >= threshold
        upper = np.where(is_ruled_out, middle, upper)
        beyond_upper = np.where(is_ruled_out, beyond_upper, middle)
    return lower, upper


def quantile_bounds(sketch: QuantileSketch, share: float, alpha: float) -> tuple[float, float]:
    """Return the lower and the upper bound of a quantile, infinite where nothing can be claimed.

    They are ends of the sketch's buckets, so up to 2% further apart than the values would have them.

    Args:
        sketch: what was seen.
        share: of the quantile, in (0, 1).
        alpha: probability that a bound is ever wrong, for each of the two.
    """
    lower_ends, upper_ends, up_to = sketch.occupied()
    step = 2 * DIFFERENCE_STEPS
    counts = np.stack([sketch.count - up_to, up_to], axis=1).astype(np.float64)
    cells = Cells([(FULL_WEIGHT, -step), (FULL_WEIGHT, step)], counts)
    margin, threshold = np.full(1, 2.0 * share - 1.0), log_threshold(alpha)
    is_under = cells.log_evidence(Claim.PROMOTE, margin) >= threshold
    is_over = cells.log_evidence(Claim.HALT, margin) >= threshold
    # Below the first bucket nothing was seen at all; that, too, must be enough for a claim.
    nothing = Cells([(FULL_WEIGHT, -step)], np.full((1, 1), float(sketch.count)))
    if nothing.log_evidence(Claim.PROMOTE, margin)[0] < threshold or is_under.all():
        lower = -np.inf
    else:
        lower = lower_ends[np.argmin(is_under)]
    return float(lower), float(upper_ends[np.argmax(is_over)]) if is_over.any() else np.inf
