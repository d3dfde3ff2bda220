"""How many pairs until a verdict: simulated experiments, judged by the evidence that will judge.

Decides how long a plan takes in pairs; what they take in hours is `proxy.analysis.planning`'s. Pairs
differ with a fixed probability and independently, as the plan's numbers say; users who come in bursts
take longer. The evidence is `bets`, for differences of -1, 0 and 1 at full weight.

Looked at on a grid of pair counts that grows by 1% a step, not after every pair, so that a plan takes
less than a second whatever its numbers. Evidence that comes and goes between two looks is missed:
at a margin of 0.01 and 4% that differ, `promote` is said after 3,143 pairs where a look after every
pair says 3,058, and `halt` of a candidate 0.03 worse after 686, as there (medians of 10,000).
`tests/comparison/test_plan.py` holds it against the benchmark's simulation. Pure: chance is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.comparison.bets import Cells, Claim, log_mean_wealth, log_threshold
from proxy.comparison.counts import DIFFERENCE_STEPS
from proxy.comparison.reproducible import Floats

Integers = NDArray[np.int64]

#: Enough for a median and a 90% quantile within some 3%, two times of three.
EXPERIMENTS: Final = 1_000
#: From one look to the next.
_GROWTH: Final = 1.01
#: Looks computed at once, before experiments that have decided are left out.
_BLOCK: Final = 24
#: No bet is won sooner at 5%: the greatest makes at most 1.9 of 1 from one pair.
_FIRST_LOOK: Final = 4
#: More than the sum of the rounding errors of a logarithm that is near the threshold.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Trial:
    """What is assumed of the pairs, and how they are judged.

    Attributes:
        difference: E[D], positive = candidate worse, in [-1, 1].
        disagreement: P(D is not 0), in [0, 1], at least |difference|.
        margin: of the gate, in (0, 1).
        alpha: of the gate.
        max_pairs: after which it is given up.
    """

    difference: float
    disagreement: float
    margin: float
    max_pairs: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 <= self.disagreement <= 1.0 or abs(self.difference) > self.disagreement:
            raise ValueError("a difference in the mean needs as many pairs that differ")


@dataclass(frozen=True, slots=True)
class Duration:
    """Pairs until half, and nine of ten, of all experiments said one thing; None: not within the limit.

    Attributes:
        share: of the experiments that said so within the limit.
    """

    share: float
    median: int | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the simulated experiments of a trial did."""

    trial: Trial
    promote: Duration
    halt: Duration

    @property
    def undecided(self) -> float:
        """Return the share of the experiments that said nothing within the limit."""
        return max(0.0, 1.0 - self.promote.share - self.halt.share)


def forecast(trial: Trial, rng: np.random.Generator, experiments: int = EXPERIMENTS) -> Forecast:
    """Return how long the evidence takes; the same for the same arguments and state of `rng`."""
    promoted, halted = decide(trial, rng, experiments)
    return Forecast(trial, _duration(promoted), _duration(halted))


def decide(trial: Trial, rng: np.random.Generator, experiments: int) -> tuple[Floats, Floats]:
    """Return after how many pairs each experiment promotes, and halts; infinite: it does not.

    The first verdict ends an experiment, and halt wins ties. Both of shape `(experiments,)`.
    """
    better = (trial.disagreement - trial.difference) / 2
    chances = np.array([better, 1.0 - trial.disagreement, trial.disagreement - better])
    evidence = _Evidence(trial)
    promoted, halted = np.full(experiments, np.inf), np.full(experiments, np.inf)
    running = np.arange(experiments)
    counts = np.zeros((experiments, 3), dtype=np.int64)
    looks, steps = _looks(trial.max_pairs)
    for start in range(0, looks.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        drawn = rng.multinomial(steps[block], chances, (running.size, looks[block].size))
        sums = counts[:, None, :] + np.cumsum(drawn, axis=1)
        promoted[running] = evidence.first(Claim.PROMOTE, sums, looks[block])
        halted[running] = evidence.first(Claim.HALT, sums, looks[block])
        is_open = np.isinf(promoted[running]) & np.isinf(halted[running])
        running, counts = running[is_open], sums[is_open, -1]
        if not running.size:
            break
    is_halt = halted <= promoted
    return np.where(is_halt, np.inf, promoted), np.where(is_halt, halted, np.inf)


class _Evidence:
    """The evidence of a trial's gate for counts of better, same and worse pairs."""

    def __init__(self, trial: Trial) -> None:
        steps = 2 * DIFFERENCE_STEPS
        cells = Cells([(0, -steps), (0, 0), (0, steps)], np.zeros((0, 3)))
        margin = np.full(1, trial.margin)
        self._factors = {claim: cells.log_factors(claim, margin) for claim in Claim}
        self._threshold = log_threshold(trial.alpha)

    def first(self, claim: Claim, counts: Integers, looks: Integers) -> Floats:
        """Return the first of `looks` with the evidence, shape `(n,)`; infinite: at none of them.

        Args:
            claim: which of the two.
            counts: shape `(n, k, 3)`.
            looks: pairs at each, shape `(k,)`.
        """
        rows = counts.reshape(-1, 3).astype(np.float64)
        factors = self._factors[claim]
        # A mean is at most the greatest of what it is of, so most rows need no more than that; the
        # product's own sum, a tenth as fast, is for the few that may be there.
        near = np.flatnonzero(_greatest_wealth(rows, factors[:, 0]) >= self._threshold - _ROUNDING)
        is_there = np.zeros(len(rows), dtype=np.bool_)
        is_there[near] = log_mean_wealth(rows[near], factors) >= self._threshold
        at = is_there.reshape(counts.shape[:2])
        return np.where(at.any(axis=1), looks[at.argmax(axis=1)], np.inf)


def _greatest_wealth(rows: Floats, factors: Floats) -> Floats:
    """Return the logarithm of the greatest bet's wealth, shape `(n,)`; `factors` are `(BETS, 3)`."""
    # Not by `@`: the threads of a BLAS wait for a core longer than the work takes.
    better, same, worse = np.ascontiguousarray(rows.T)
    greatest = np.full(len(rows), -np.inf)
    for bet in factors:
        np.maximum(greatest, better * bet[0] + same * bet[1] + worse * bet[2], out=greatest)
    return greatest


def _looks(max_pairs: int) -> tuple[Integers, Integers]:
    """Return after how many pairs to look, and how far each look is from the one before."""
    count = int(np.log(max(max_pairs / _FIRST_LOOK, 1.0)) / np.log(_GROWTH)) + 2
    grid = np.geomspace(min(_FIRST_LOOK, max_pairs), max_pairs, count)
    looks = np.unique(np.rint(grid).astype(np.int64))
    return looks, np.diff(looks, prepend=0)


def _duration(decided: Floats) -> Duration:
    """Return the quantiles over all experiments: those that said something else never did."""
    in_order = np.sort(decided)
    return Duration(
        share=float(np.isfinite(decided).mean()),
        median=_pairs(in_order[(decided.size - 1) // 2]),
        most=_pairs(in_order[int(np.ceil(0.9 * decided.size)) - 1]),
    )


def _pairs(value: np.float64) -> int | None:
    return int(value) if np.isfinite(value) else None
