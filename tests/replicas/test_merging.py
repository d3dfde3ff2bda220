"""Page and replicas, brought together: what was changed here goes there, and the other way round."""

from __future__ import annotations

import pytest

from proxy.replicas.merging import (
    KillBase,
    KillPlan,
    WeightBase,
    WeightPlan,
    merge_kill,
    merge_weight,
)

NONE = KillBase()


@pytest.mark.parametrize(
    ("base", "parts", "note", "shared", "plan"),
    [
        (NONE, 0, "", NONE, KillPlan()),
        (NONE, 3, "n", NONE, KillPlan(publish=3, adds=True)),
        (NONE, 0, "", KillBase(3, "", 1), KillPlan(page=3)),
        (KillBase(3, "n", 1), 3, "n", KillBase(3, "", 1), KillPlan()),
        (KillBase(3, "n", 1), 0, "", KillBase(3, "", 1), KillPlan(publish=0)),
        (KillBase(3, "n", 1), 3, "n", KillBase(0, "", 2), KillPlan(page=0)),
        # Killed once more here, while it was opened there: the new kill stays, and is told.
        (KillBase(3, "n", 1), 3, "again", KillBase(0, "", 2), KillPlan(publish=3, adds=True)),
        # Opened here, while it was killed once more there: it stays killed.
        (KillBase(3, "n", 1), 0, "", KillBase(3, "", 2), KillPlan(page=3)),
        # One part here, another one there.
        (NONE, 1, "n", KillBase(2, "", 1), KillPlan(page=3, publish=3, adds=True)),
        # One part opened here, another one there.
        (KillBase(3, "n", 1), 2, "n", KillBase(3, "", 1), KillPlan(publish=2)),
    ],
)
def test_kills(base: KillBase, parts: int, note: str, shared: KillBase, plan: KillPlan) -> None:
    """A kill wins over a revive that has not seen it, and nothing is told twice."""
    assert merge_kill(base, parts, note, shared) == plan


@pytest.mark.parametrize(
    ("base", "page_bp", "shared", "plan"),
    [
        (None, 100, None, WeightPlan(publish=100)),
        (None, 900, WeightBase(100, 4), WeightPlan(page=100)),
        (WeightBase(100, 4), 100, WeightBase(100, 4), WeightPlan()),
        (WeightBase(100, 4), 500, WeightBase(100, 4), WeightPlan(publish=500)),
        (WeightBase(100, 4), 100, WeightBase(500, 5), WeightPlan(page=500)),
        # Moved here and there: the lower one.
        (WeightBase(100, 4), 0, WeightBase(500, 5), WeightPlan(publish=0)),
        (WeightBase(100, 4), 900, WeightBase(500, 5), WeightPlan(page=500)),
        (WeightBase(100, 4), 500, WeightBase(500, 5), WeightPlan()),
    ],
)
def test_weights(
    base: WeightBase | None, page_bp: int, shared: WeightBase | None, plan: WeightPlan
) -> None:
    """Who has just joined takes the others' weight; of two that were moved the lower one stays."""
    assert merge_weight(base, page_bp, shared) == plan
