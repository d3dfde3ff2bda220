"""The forecast is what the test itself would need, and silent where it cannot know."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.analysis.more_pairs import more_pairs
from proxy.comparison.counts import FULL_WEIGHT, Counts, difference_cell
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts, GateParams, Params
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Outcome, judge


def gate(better: int, same: int, worse: int, **changes: Any) -> dict[str, Any]:
    """Return an undecided gate with these counts."""
    total = better + same + worse
    return {
        "verdict": "continue", "margin": 0.01, "alpha": 0.05, "mean": (worse - better) / total,
        "counts": {"better": better, "same": same, "worse": worse, "missing": 0},
    } | changes  # fmt: skip


def outcome(better: int, same: int, worse: int) -> Outcome:
    """Return what the real test says of these counts."""
    cells = tuple(
        (FULL_WEIGHT, difference_cell(value), count)
        for value, count in ((-1.0, better), (0.0, same), (1.0, worse))
        if count
    )
    counts = EvidenceCounts(
        EvidenceKey("e", "r", "c", "v", None, None), (GateCounts(Metric.AGREEMENT, Counts(cells)),)
    )
    return judge(counts, Params((GateParams(Metric.AGREEMENT, 0.01),))).outcome


@pytest.mark.parametrize(
    ("counts", "then"),
    [((1, 98, 1), Outcome.PROMOTE), ((1, 90, 5), Outcome.HALT), ((0, 60, 0), Outcome.PROMOTE)],
)
def test_so_many_more_pairs_of_the_same_kind_decide(
    counts: tuple[int, int, int], then: Outcome
) -> None:
    """And half as many do not."""
    pairs = sum(counts)
    assert outcome(*counts) is Outcome.CONTINUE
    more = more_pairs([gate(*counts)], pairs)
    assert more is not None
    enough, half = (1 + more / pairs) * 1.05, 1 + more / pairs / 2
    assert outcome(*(round(count * enough) for count in counts)) is then
    assert outcome(*(round(count * half) for count in counts)) is Outcome.CONTINUE


def test_the_slowest_gate_counts_and_decided_ones_do_not() -> None:
    """All must decide; a gate over a part of the pairs needs that part to grow."""
    slow, fast = gate(10, 900, 10), gate(0, 320, 0)
    alone = more_pairs([slow], 1_000)
    assert more_pairs([slow, fast], 1_000) == alone
    assert more_pairs([fast, gate(0, 1, 0, verdict="promote")], 1_000) == more_pairs([fast], 1_000)
    twice, once = more_pairs([slow], 2_000), more_pairs([slow], 1_000)
    assert twice is not None
    assert once is not None
    assert twice == pytest.approx(2 * once, rel=0.1)


@pytest.mark.parametrize(
    "changes",
    [{"mean": 0.5}, {"mean": None}, {"counts": None}, {"margin": 0.0}, {"alpha": 2.0},
     {"counts": {"better": -1, "same": 0, "worse": 0}}, {"counts": {"better": 1e400}}],
)  # fmt: skip
def test_what_cannot_be_told_is_not_told(changes: dict[str, Any]) -> None:
    """Weighted pairs, or a document that is none."""
    assert more_pairs([gate(1, 98, 1, **changes)], 100) is None


def test_a_difference_at_the_margin_is_never_decided() -> None:
    """Not within a hundred times as many."""
    assert more_pairs([gate(0, 99, 1)], 100) is None
    assert more_pairs([], 100) is None
