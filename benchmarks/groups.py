"""Simulated groups of users: one is served worse than the others, and the product has to say which.

Each look is the product's own: the e-values of all groups as they are now (`proxy.comparison.bets`),
judged together by e-BH (`proxy.comparison.segments`). An experiment ends with its first finding, as
the product's verdict would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.experiments import Law
from proxy.comparison.bets import Cells, Claim
from proxy.comparison.counts import DIFFERENCE_STEPS
from proxy.comparison.segments import found_by_e_bh


@dataclass(frozen=True, slots=True)
class Groups:
    """What is true, and how it is looked at.

    Attributes:
        good, bad: of all groups but the first, and of the first.
        count: groups, of equal size.
        looks: after so many pairs of each group.
    """

    good: Law
    bad: Law
    count: int
    looks: range
    margin: float
    alpha: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What the experiments found.

    Attributes:
        named: share in which the bad group was named, at whatever look.
        misnamed: share in which another one was, at the same look or before.
        median_pairs: of each group, until the bad one was named; None where it never was.
    """

    experiments: int
    named: float
    misnamed: float
    median_pairs: float | None


def noisy_law(noise: float) -> Law:
    """Return D's law where all answer alike, but for calls that go wrong, each in a way of its own.

    Args:
        noise: how often two calls to the same model differ. D is 1{candidate differs} less
            1{replicate differs}: not 0 where the primary's call went right and one of these two wrong.
    """
    wrong = 1.0 - math.sqrt(1.0 - noise)
    return Law(0.0, 2.0 * wrong * (1.0 - wrong) ** 2)


def find_groups(groups: Groups, experiments: int, rng: np.random.Generator) -> Findings:
    """Return what looks at all groups together find."""
    laws = [groups.bad, *[groups.good] * (groups.count - 1)]
    chances = [
        [law.discordance * (1 - law.worse), 1 - law.discordance, law.discordance * law.worse]
        for law in laws
    ]
    steps = 2 * DIFFERENCE_STEPS
    counts = np.zeros((experiments, groups.count, 3))
    named_at = np.full(experiments, np.inf)
    is_misnamed = np.zeros(experiments, dtype=np.bool_)
    for look in groups.looks:
        counts += rng.multinomial(groups.looks.step, chances, size=(experiments, groups.count))
        running = np.flatnonzero(np.isinf(named_at) & ~is_misnamed)
        cells = Cells([(0, -steps), (0, 0), (0, steps)], counts[running].reshape(-1, 3))
        values = cells.log_evidence(Claim.HALT, np.array([groups.margin]))
        for place, row in zip(running, values.reshape(-1, groups.count), strict=True):
            found = found_by_e_bh(row.tolist(), groups.alpha)
            is_misnamed[place] = any(found[1:])
            if found[0]:
                named_at[place] = look
    is_named = np.isfinite(named_at)
    return Findings(
        experiments=experiments,
        named=float(is_named.mean()),
        misnamed=float(is_misnamed.mean()),
        median_pairs=float(np.median(named_at[is_named])) if is_named.any() else None,
    )
