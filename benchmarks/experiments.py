"""Simulated experiments, looked at after every pair without computing every look.

Pairs differ with a fixed probability, and those that differ are better or worse. Between two that
differ the evidence moves one way: `halt` only falls (each equal pair costs a bet on a difference),
`promote` only rises. So halt can be reached only right after a worse pair; and promote, if it is
reached between two pairs that differ, has been reached by the end of that stretch, and the first look
is found by halving. The result is that of a look after every pair, with a twentieth of the work;
`tests/benchmarks/test_evidence.py` holds it against all looks. It is the product's own evidence
(`proxy.comparison.bets`) that is computed, in its vectorised form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.comparison.bets import Cells, Claim, log_mean_wealth, log_threshold
from proxy.comparison.counts import DIFFERENCE_STEPS
from proxy.comparison.reproducible import Floats

Booleans = NDArray[np.bool_]

#: Experiments, and pairs that differ, computed at once: 1 MB for all bets, which caches hold.
_BATCH = 128
_BLOCK = 48
#: The 5% point of chi squared with one degree of freedom.
_MCNEMAR_LIMIT = 3.841458820694124


@dataclass(frozen=True, slots=True)
class Law:
    """What is true.

    Attributes:
        difference: E[D].
        discordance: P(D differs from 0).
    """

    difference: float
    discordance: float

    @property
    def worse(self) -> float:
        """Return the share of worse pairs among those that differ."""
        return (self.discordance + self.difference) / (2 * self.discordance)


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment is judged: `looks` pairs at most, one look after each."""

    margin: float
    alpha: float
    looks: int


@dataclass(frozen=True, slots=True)
class Decisions:
    """After how many pairs each experiment promoted or halted; infinite: never. Shape `(n,)`."""

    promoted: Floats
    halted: Floats


class Pairs:
    """The pairs of some experiments that differ, drawn as they are needed."""

    def __init__(self, law: Law, rng: np.random.Generator) -> None:
        self._law = law
        self._rng = rng

    def draw(self, experiments: int, count: int) -> tuple[NDArray[np.int64], Booleans]:
        """Return for the next pairs that differ how far each is from the one before, and is worse.

        Both of shape `(experiments, count)`.
        """
        shape = (experiments, count)
        gaps = self._rng.geometric(self._law.discordance, shape)
        return gaps, self._rng.random(shape) < self._law.worse


def decide(pairs: Pairs, experiments: int, design: Design) -> Decisions:
    """Return when each experiment decides; the first decision ends it, and halt wins ties."""
    evidence = _Evidence(design)
    promoted = np.full(experiments, np.inf)
    halted = np.full(experiments, np.inf)
    for start in range(0, experiments, _BATCH):
        size = min(_BATCH, experiments - start)
        running = np.arange(start, start + size)
        state = np.zeros((size, 3), dtype=np.int64)  # pairs, worse, better
        while running.size:
            gaps, is_worse = pairs.draw(running.size, _BLOCK)
            block = _Block(state, gaps, is_worse)
            promoted[running] = evidence.first_promote(block)
            halted[running] = evidence.first_halt(block)
            is_open = np.isinf(promoted[running]) & np.isinf(halted[running])
            is_open &= block.at[:, -1] < design.looks
            state, running = block.end()[is_open], running[is_open]
    halts = halted <= promoted
    return Decisions(np.where(halts, np.inf, promoted), np.where(halts, halted, np.inf))


class _Block:
    """Some pairs that differ, of each experiment that still runs.

    Attributes:
        at: how many pairs there were with each of them, itself included, shape `(n, k)`.
        before: the same of the one before it, 0 at the start.
        worse, better: among these pairs.
        is_worse: it is one of the worse.
    """

    def __init__(
        self, state: NDArray[np.int64], gaps: NDArray[np.int64], is_worse: Booleans
    ) -> None:
        self.at = state[:, :1] + np.cumsum(gaps, axis=1)
        self.before = self.at - gaps
        self.worse = state[:, 1:2] + np.cumsum(is_worse, axis=1)
        self.better = state[:, 2:] + np.cumsum(~is_worse, axis=1)
        self.is_worse = is_worse

    def end(self) -> NDArray[np.int64]:
        """Return pairs, worse and better after the last, shape `(n, 3)`."""
        return np.stack([self.at[:, -1], self.worse[:, -1], self.better[:, -1]], axis=1)


class _Evidence:
    """The product's evidence for three-valued differences of full weight."""

    def __init__(self, design: Design) -> None:
        steps = 2 * DIFFERENCE_STEPS
        cells = Cells([(0, -steps), (0, 0), (0, steps)], np.zeros((0, 3)))
        margin = np.full(1, design.margin)
        self._factors = {claim: cells.log_factors(claim, margin) for claim in Claim}
        self._threshold = log_threshold(design.alpha)
        self._looks = design.looks

    def first_halt(self, block: _Block) -> Floats:
        """Return at which pair halt is reached first, shape `(n,)`; infinite: not in this block."""
        can_act = block.is_worse & (block.at <= self._looks)
        is_there = can_act & self._is_reached(Claim.HALT, block.at, block.worse, block.better)
        return _first(is_there, block.at)

    def first_promote(self, block: _Block) -> Floats:
        """Return at which pair promote is reached first; see the module's text."""
        worse, better = block.worse - block.is_worse, block.better - ~block.is_worse
        ends = np.minimum(block.at - 1, self._looks)
        can_act = block.before <= self._looks
        is_there = can_act & self._is_reached(Claim.PROMOTE, ends, worse, better)
        found = _first(is_there, ends)
        rows = np.flatnonzero(np.isfinite(found))
        columns = is_there[rows].argmax(axis=1)
        at = rows, columns
        found[rows] = self._first_look(block.before[at], ends[at], worse[at], better[at])
        return found

    def _first_look(
        self,
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        worse: NDArray[np.int64],
        better: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the first look in `start` to `end` with the evidence that is there at the end."""
        low, high = np.maximum(start, 1), end
        while np.any(low < high):
            middle = (low + high) // 2
            is_there = self._is_reached(Claim.PROMOTE, middle, worse, better)
            low, high = np.where(is_there, low, middle + 1), np.where(is_there, middle, high)
        return high

    def _is_reached(
        self,
        claim: Claim,
        pairs: NDArray[np.int64],
        worse: NDArray[np.int64],
        better: NDArray[np.int64],
    ) -> Booleans:
        counts = np.stack([better, pairs - worse - better, worse], axis=-1).astype(np.float64)
        values = log_mean_wealth(counts.reshape(-1, 3), self._factors[claim])
        return values.reshape(pairs.shape) >= self._threshold


def _first(is_there: Booleans, values: NDArray[np.int64]) -> Floats:
    """Return of each row the value at the first place that is true, or infinity."""
    first = is_there.argmax(axis=1)
    found = values[np.arange(len(values)), first].astype(np.float64)
    return np.where(is_there.any(axis=1), found, np.inf)


def mcnemar_alarms(law: Law, experiments: int, looks: range, rng: np.random.Generator) -> float:
    """Return the share of experiments in which McNemar's test at 5% ever says "different".

    Two-sided, without correction, computed at each of `looks` as if it were the only one: what one
    does who looks at a dashboard now and then.
    """
    chances = [law.discordance * law.worse, law.discordance * (1 - law.worse)]
    drawn = rng.multinomial(
        looks.step, [*chances, 1 - law.discordance], size=(experiments, len(looks))
    )
    worse, better = np.cumsum(drawn[..., :2], axis=1).transpose(2, 0, 1)
    squared = (worse - better) ** 2 / np.maximum(worse + better, 1)
    return float((squared > _MCNEMAR_LIMIT).any(axis=1).mean())
