"""Whether traffic is split as declared, and whether enough of it was judged; else no verdict counts.

**Sample ratio.** When the candidate should get 10% of the keys and gets 11%, something chooses (a
client that retries, a cache, a fault of the split), and every difference may come from that choice.
The check is a bet as in `bets`: against hits of declared probability p it bets that the odds are
really d times as high,

    a hit multiplies the wealth by d / (1 - p + d * p), a miss by 1 / (1 - p + d * p),

which is 1 on average if the declaration is true, for every p: so p may change from one observation
to the next (a ramp), and the mean over a fixed grid of d is an e-process that may be looked at all
the time (Lindon and Malek, arXiv 2011.03567, with a grid in place of their Dirichlet mixture). Arms
are averaged, and the mean of e-processes is one. The counts of one p are two numbers.

What is counted must be what is assigned: *keys*, each once (`split_keys`), or requests where
`split_by` is the request id. Requests of a few busy users that stick to their side say nothing about
the split.

**Coverage.** Pairs that gave no difference are left out of the mean; when they are many, what is
left may not speak for all. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from proxy.comparison.bets import log_mean_wealth, log_of
from proxy.comparison.counts import Counts
from proxy.comparison.reproducible import Floats, log

FULL_BP: Final = 10_000
#: What happened was declared impossible: as much evidence as a double can hold, which JSON takes.
CERTAIN: Final = sys.float_info.max

#: Odds times 1.01 are found after some 3 million keys at 10%, odds times 5 after a few dozen.
_SMALLEST_TILT: Final = 0.01
_TILT_RATIO: Final = 1.75
_TILTS: Final = 12


def _odds() -> list[float]:
    odds, tilt = [], _SMALLEST_TILT
    for _ in range(_TILTS):
        odds += [1.0 + tilt, 1.0 / (1.0 + tilt)]
        tilt *= _TILT_RATIO
    return odds


_ODDS: Final = np.array(_odds()).reshape(-1, 1)


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """How often one arm (a candidate's weight, a mirror percent) was hit.

    Attributes:
        name: of the arm, such as `canary v2`.
        cells: declared probability in basis points, hits, misses; sorted.
    """

    name: str
    cells: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class KeyCounts(ArmCounts):
    """The same of keys of which no more than some are kept (`split_keys`).

    Attributes:
        discount: how often the evidence is halved, for choosing by what was seen what is kept.
    """

    discount: int = 1


def merged_arms(parts: Iterable[Iterable[ArmCounts]]) -> tuple[ArmCounts, ...]:
    """Return the counts of all `parts` added up, sorted."""
    arms: dict[str, dict[int, list[int]]] = {}
    discounts: dict[str, int | None] = {}
    for part in parts:
        for arm in part:
            cells = arms.setdefault(arm.name, {})
            found = (discounts.get(arm.name), _discount(arm))
            discounts[arm.name] = max((each for each in found if each), default=None)
            for probability_bp, hits, misses in arm.cells:
                cell = cells.setdefault(probability_bp, [0, 0])
                cell[0] += hits
                cell[1] += misses
    return tuple(
        arm_of(
            name,
            tuple((bp, hits, misses) for bp, (hits, misses) in sorted(arms[name].items())),
            discounts[name],
        )
        for name in sorted(arms)
    )


def arm_of(
    name: str, cells: tuple[tuple[int, int, int], ...], discount: int | None = None
) -> ArmCounts:
    """Return an arm; one of keys, where there is a discount."""
    return ArmCounts(name, cells) if discount is None else KeyCounts(name, cells, discount)


def log_evidence(arms: Iterable[ArmCounts]) -> float:
    """Return the logarithm of the e-value against the declared split; 0 without counts."""
    found = [_arm_evidence(arm) for arm in arms]
    if not found:
        return 0.0
    if max(found) == CERTAIN:
        return CERTAIN
    wealths = np.array(found).reshape(-1, 1)
    return float(log_mean_wealth(np.ones((1, 1)), wealths[:, :, np.newaxis])[0])


def _arm_evidence(arm: ArmCounts) -> float:
    evidence = _undiscounted(arm)
    discount = _discount(arm)
    return evidence if evidence == CERTAIN or not discount else evidence - discount * log_of(2.0)


def _discount(arm: ArmCounts) -> int | None:
    return arm.discount if isinstance(arm, KeyCounts) else None


def _undiscounted(arm: ArmCounts) -> float:
    probabilities: list[float] = []
    columns: list[int] = []
    for probability_bp, hits, misses in arm.cells:
        if (probability_bp == 0 and hits) or (probability_bp == FULL_BP and misses):
            return CERTAIN
        if 0 < probability_bp < FULL_BP:
            probabilities += [probability_bp / FULL_BP]
            columns += [hits, misses]
    if not columns:
        return 0.0
    counts = np.array(columns, dtype=np.float64).reshape(1, -1)
    return float(log_mean_wealth(counts, _log_factors(np.array(probabilities)))[0])


def _log_factors(probabilities: Floats) -> Floats:
    """Return the logarithms of the bets' factors, shape `(bets, 1, 2 n)`: hit, miss, and so on."""
    scale = log((1.0 - probabilities) + _ODDS * probabilities)
    hits = log(_ODDS) - scale
    both: Floats = np.stack([hits, -scale], axis=-1)
    return both.reshape(_ODDS.shape[0], 1, -1)


def is_covered(counts: Counts, max_missing: float) -> bool:
    """Return whether at most the share `max_missing` of the pairs gave no difference."""
    return counts.missing <= max_missing * (counts.pairs + counts.missing)
