"""Evidence that may be looked at all the time: e-processes of bets against a claim's opposite.

Let D in [-1, 1] be a pair's loss difference (positive = candidate worse) and m the margin. To claim
E[D] < m (*promote*) is to reject E[D] >= m, by betting a share of one's wealth on each pair:

    wealth = product of (1 + lambda * w * (m - D)),   0 <= lambda < 1 / (1 - m),   0 < w <= 1

and to claim E[D] > m (*halt*) is the same with D - m and lambda < 1 / (1 + m). No factor is negative,
because w * (m - D) >= -(1 - m). If E[D | past] >= m at every step, no factor is over 1 on average,
whatever lambda: the wealth is a nonnegative supermartingale that starts at 1, and so is the mean of
the wealths over a fixed grid of lambdas. By Ville's inequality it ever reaches 1 / alpha with
probability alpha at most: so it may be looked at after every pair, and acted on when it is there
(Waudby-Smith and Ramdas, arXiv 2010.09686, sections 4 and 4.4: hedged capital on a grid; Howard and
others, arXiv 1810.08240, on time-uniform bounds).

**Weights.** Let p be the probability, known before, with which an exchange is recorded, and
w = floor / p. Given that it is recorded, the chance of each kind of exchange is proportional to p
times its share in the traffic; so the mean of w * (m - D) over recorded pairs is the mean of (m - D)
over the traffic, times the positive constant floor / P(recorded). It has the same sign, which is all
that the argument above needs: unequal and moving probabilities are made good, and unrecorded
exchanges need no factor. (Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, arXiv 2210.10768,
use floor 1 / p unscaled, and a factor for each exchange that was not recorded; scaling to w <= 1
keeps the bets of the unweighted case.)

The mean is one over exchanges as they come. Where users come in bursts, D depends on who comes, and
the claim is about the conditional mean at each step, as in every sequential test.

Wealth depends on counts only (`counts`). Where a cell is an interval, each claim takes the end that
gives the smaller factor. Everything is in logarithms, in the fixed order of cells and bets, and made
of `reproducible`'s functions, so that counts give the same bits everywhere, alone or among many. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.comparison.counts import Counts, difference_ends, weight_ends
from proxy.comparison.reproducible import Floats, exp, log, log1p

BETS: Final = 24
#: The greatest bet as a share of the bound on lambda; below 1, so that no pair can ruin a bettor.
_GREATEST: Final = 0.9
#: From one bet to the next. The best bet for a margin m where a share d of the pairs differ is about
#: m / d; the grid ends at 0.0053, so with a fifth of the pairs differing at a margin of 0.001, and
#: with all of them at 0.005. A longer grid costs everybody: ratio 0.75 takes 6% more pairs.
_RATIO: Final = 0.8


class Claim(StrEnum):
    """What the evidence is for."""

    PROMOTE = "promote"
    HALT = "halt"


def _grid() -> list[float]:
    shares = [_GREATEST]
    while len(shares) < BETS:
        shares.append(shares[-1] * _RATIO)
    return shares


_SHARES: Final = np.array(_grid()).reshape(BETS, 1, 1)


class Cells:
    """The cells of several `Counts`, side by side.

    Attributes:
        counts: pairs, shape `(n, c)`: rows as given, a column for each cell that is in use.
    """

    __slots__ = ("_ends", "counts")

    def __init__(self, cells: Sequence[tuple[int, int]], counts: Floats) -> None:
        """Hold `counts` of shape `(n, c)` for `cells`, weight and difference, sorted."""
        array = np.array(cells, dtype=np.int64).reshape(-1, 2)
        self._ends = (*weight_ends(array[:, 0]), *difference_ends(array[:, 1]))
        self.counts = counts

    @staticmethod
    def of(rows: Iterable[Counts]) -> Cells:
        """Return the cells of `rows`; a cell that a row does not have counts 0 in it."""
        found = list(rows)
        cells = sorted({(weight, cell) for row in found for weight, cell, _ in row.cells})
        places = {cell: place for place, cell in enumerate(cells)}
        counts = np.zeros((len(found), len(cells)))
        for number, row in enumerate(found):
            for weight, cell, count in row.cells:
                counts[number, places[weight, cell]] = count
        return Cells(cells, counts)

    def log_factors(self, claim: Claim, margins: Floats) -> Floats:
        """Return the logarithms of each bet's factor for one pair, shape `(BETS, m, c)`.

        Args:
            claim: which of the two.
            margins: in (-1, 1), shape `(m,)`.
        """
        least_weight, greatest_weight, least, greatest = self._ends
        column = margins.reshape(-1, 1)
        if claim is Claim.PROMOTE:
            gains, bound = column - greatest, 1.0 - column
        else:
            gains, bound = least - column, 1.0 + column
        weighted = np.where(gains >= 0.0, least_weight, greatest_weight) * gains
        shares: Floats = _SHARES * (weighted / bound)
        return log1p(shares)

    def log_evidence(self, claim: Claim, margins: Floats) -> Floats:
        """Return the logarithm of the e-value for each row, shape `(n,)`.

        Args:
            claim: which of the two.
            margins: in (-1, 1), shape `(n,)`, or `(1,)` for all rows.
        """
        return log_mean_wealth(self.counts, self.log_factors(claim, margins))


def log_mean_wealth(counts: Floats, log_factors: Floats) -> Floats:
    """Return the logarithm of the bets' mean wealth, shape `(n,)`.

    Args:
        counts: shape `(n, c)`.
        log_factors: shape `(BETS, n, c)` or `(BETS, 1, c)`.
    """
    wealths = np.zeros((log_factors.shape[0], counts.shape[0]))
    for column in range(counts.shape[1]):
        wealths += counts[:, column] * log_factors[:, :, column]
    top: Floats = wealths.max(axis=0)
    total = np.zeros_like(top)
    for share in exp(wealths - top):
        total += share
    return top + log(total / log_factors.shape[0])


def log_threshold(alpha: float) -> float:
    """Return the logarithm of the e-value to act at, 1 / alpha."""
    return -log_of(alpha)


def log_of(value: float) -> float:
    """Return the natural logarithm of one positive number, the same on every machine."""
    array: NDArray[np.float64] = np.array([value])
    return float(log(array)[0])
