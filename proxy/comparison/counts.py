"""Loss differences held as counts: exact, mergeable, order-free, in bounded memory.

The evidence of `proxy.comparison.bets` is a product over pairs, so it depends on how often each
pair (loss difference, weight) came and on nothing else. Both are held in *cells*: the points of a
grid, and the open intervals between neighbouring points. A value on a point is held exactly, which
takes in all of the three-valued differences -1, 0 and 1: for them the evidence is three counts. Of a
value in an interval only the interval is kept, and each claim later takes the end that speaks
against it, so neither gains by rounding, and both read the same counts. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Points of the grid of differences per unit. A power of two, so that points are exact doubles; the
#: worst rounding is a fifth of the suggested margin of 0.01.
DIFFERENCE_STEPS: Final = 512
#: Points of the grid of weights per halving: rounding takes 2.2% of a weight at most.
WEIGHT_STEPS: Final = 32
#: The smallest weight is 2 to the power of minus this; smaller ones are missing pairs.
WEIGHT_HALVINGS: Final = 10

#: Cell of the weight 1.
FULL_WEIGHT: Final = 0

#: Cell of the weight, cell of the difference.
Cell = tuple[int, int]


def _weight_points() -> list[float]:
    """Return the points of the grid of weights, falling from 1, the same on every machine."""
    octave = [1.0]
    while len(octave) < WEIGHT_STEPS:
        octave.append(octave[-1] * 0.9785720620877001)  # 2 ** (-1 / 32)
    points = [math.ldexp(point, -half) for half in range(WEIGHT_HALVINGS) for point in octave]
    return [*points, math.ldexp(1.0, -WEIGHT_HALVINGS)]


_WEIGHTS: Final = _weight_points()
_NEGATED: Final = [-point for point in _WEIGHTS]


def difference_cell(difference: float) -> int:
    """Return the cell of a difference in [-1, 1]: even at a point, odd between two."""
    scaled = difference * DIFFERENCE_STEPS
    whole = math.floor(scaled)
    return 2 * whole + (scaled != whole)


def difference_ends(cells: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the least and the greatest difference of each of `cells`; equal at points."""
    return (cells // 2) / DIFFERENCE_STEPS, -(-cells // 2) / DIFFERENCE_STEPS


def weight_cell(weight: float) -> int:
    """Return the cell of a weight in [2**-10, 1]: 0 for 1, rising as the weight falls."""
    place = bisect_left(_NEGATED, -weight)
    return 2 * place if _WEIGHTS[place] == weight else 2 * place - 1


def weight_ends(cells: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the least and the greatest weight of each of `cells`; equal at points."""
    points = np.array(_WEIGHTS)
    return points[-(-cells // 2)], points[cells // 2]


def inverse_weight(probability: float, floor: float) -> float | None:
    """Return the weight `floor / probability` of a pair; None when it may not be weighed.

    Where pairs are recorded with unequal probabilities (a ramp that moves, canary pairs recorded
    always and mirrored ones at the mirror percent), a record stands for `1 / probability` exchanges.
    Evidence may be multiplied by any constant, so the weights are scaled to be at most 1, which the
    bounds of the bets rest on. See `bets` for why this keeps the evidence valid.

    Args:
        probability: with which this pair came to be recorded, known before it was.
        floor: the smallest such probability that the experiment allows.

    Returns:
        In (0, 1]; None below the floor: cutting the weight there would let a rare kind of exchange
        count for too little, so such pairs count as missing instead, and coverage tells.
    """
    # The record has ten digits of it.
    if not floor <= probability * (1.0 + 1e-9) or not floor >= probability * _WEIGHTS[-1]:
        return None
    return min(floor / probability, 1.0)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many pairs came with which difference and weight.

    Attributes:
        cells: cell of the weight, cell of the difference, pairs; sorted, none without pairs.
        missing: pairs that should have given a difference and did not.
    """

    cells: tuple[tuple[int, int, int], ...] = ()
    missing: int = 0

    @property
    def pairs(self) -> int:
        """Return how many pairs gave a difference."""
        return sum(count for *_, count in self.cells)

    def three(self) -> tuple[int, int, int]:
        """Return how many differences are below, at and above zero, whatever their weight."""
        signs = [0, 0, 0]
        for _, difference, count in self.cells:
            signs[(difference > 0) - (difference < 0) + 1] += count
        return signs[0], signs[1], signs[2]


class Tally:
    """Counts that grow: at most 2,049 cells for each of 641 weights, in use a handful."""

    __slots__ = ("_cells", "missing")

    def __init__(self) -> None:
        self._cells: dict[Cell, int] = {}
        self.missing = 0

    def add(self, difference: float | None, weight: float | None = 1.0) -> None:
        """Count one pair.

        Args:
            difference: in [-1, 1], positive = candidate worse. None, NaN and anything outside count
                as missing.
            weight: in [2**-10, 1]; None and anything outside count as missing.
        """
        if (
            difference is None
            or weight is None
            or not -1.0 <= difference <= 1.0
            or not _WEIGHTS[-1] <= weight <= 1.0
        ):
            self.missing += 1
            return
        self._count((weight_cell(weight), difference_cell(difference)), 1)

    def add_all(self, differences: Floats) -> None:
        """Count pairs of weight 1, shape `(n,)`, as `add` would one by one."""
        usable = differences[np.abs(differences) <= 1.0]
        self.missing += int(differences.size - usable.size)
        scaled = usable * DIFFERENCE_STEPS
        whole = np.floor(scaled)
        cells = 2 * whole.astype(np.int64) + (scaled != whole)
        for cell, count in zip(*np.unique(cells, return_counts=True), strict=True):
            self._count((FULL_WEIGHT, int(cell)), int(count))

    def merge(self, counts: Counts) -> None:
        """Count everything that is counted in `counts`."""
        self.missing += counts.missing
        for weight, difference, count in counts.cells:
            self._count((weight, difference), count)

    def counts(self) -> Counts:
        """Return the counts of now."""
        cells = sorted(self._cells.items())
        return Counts(tuple((*cell, count) for cell, count in cells), self.missing)

    def _count(self, cell: Cell, count: int) -> None:
        self._cells[cell] = self._cells.get(cell, 0) + count


def three_counts(*, better: int, same: int, worse: int, missing: int = 0) -> Counts:
    """Return the counts of three-valued differences, every pair of weight 1."""
    named = ((-2 * DIFFERENCE_STEPS, better), (0, same), (2 * DIFFERENCE_STEPS, worse))
    return Counts(tuple((FULL_WEIGHT, cell, count) for cell, count in named if count), missing)


def merged(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all `parts`, in whatever order and however they were split."""
    tally = Tally()
    for part in parts:
        tally.merge(part)
    return tally.counts()
