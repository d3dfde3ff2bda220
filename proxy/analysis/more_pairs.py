"""About how many more pairs it takes until a gate decides, if they come like those so far. Pure.

A forecast, not a promise: the counts so far are multiplied until the same test would act. It reads
the three counts of the document of findings, so where differences lie between -1, 0 and 1, or weigh
differently, it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from proxy.comparison.bets import Cells, Claim, log_threshold
from proxy.comparison.counts import FULL_WEIGHT, Counts, difference_cell

#: Multiples of what there is: each about an eighth more than the one before, up to a hundredfold.
_MULTIPLES: Final[tuple[float, ...]] = tuple(1.125**step for step in range(1, 40))
_SIDES: Final = (("better", -1.0), ("same", 0.0), ("worse", 1.0))
_ROUNDING: Final = 1e-6


def more_pairs(gates: Sequence[Mapping[str, Any]], pairs: int) -> int | None:
    """Return how many more pairs decide all undecided gates; None where that cannot be told.

    Args:
        gates: of one candidate, as in the document.
        pairs: of the candidate so far. A gate may look at a part of them only.
    """
    found = [_multiple(gate) for gate in gates if gate.get("verdict") == "continue"]
    known = [multiple for multiple in found if multiple is not None]
    if not known or len(known) < len(found) or not pairs:
        return None
    return _rounded((max(known) - 1.0) * pairs)


def _multiple(gate: Mapping[str, Any]) -> float | None:
    """Return by how much the counts must grow until the gate acts either way."""
    try:
        counts = [(value, int(gate["counts"][side])) for side, value in _SIDES]
        mean, margin, alpha = float(gate["mean"]), float(gate["margin"]), float(gate["alpha"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    total = sum(count for _, count in counts)
    is_sound = 0.0 < margin < 1.0 and 0.0 < alpha < 1.0 and min(n for _, n in counts) >= 0
    if not is_sound or not total or total > 10**12:
        return None
    if abs(sum(value * count for value, count in counts) / total - mean) > _ROUNDING:
        return None
    cells = Cells.of([_grown(counts, multiple) for multiple in _MULTIPLES])
    margins = np.full(1, margin)
    evidence = [cells.log_evidence(claim, margins).ravel() for claim in Claim]
    acts = np.maximum(*evidence) >= log_threshold(alpha)
    found = np.flatnonzero(acts)
    return float(_MULTIPLES[found[0]]) if found.size else None


def _grown(counts: list[tuple[float, int]], multiple: float) -> Counts:
    return Counts(
        tuple(
            (FULL_WEIGHT, difference_cell(value), round(count * multiple))
            for value, count in counts
            if round(count * multiple)
        )
    )


def _rounded(pairs: float) -> int:
    """Return a number with two digits that are not 0: more would promise too much."""
    step: int = 10 ** max(len(str(int(pairs))) - 2, 0)
    return max(round(pairs / step) * step, 1)
