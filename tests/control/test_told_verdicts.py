"""Verdicts on ramps are told when they say something new, and not each time they are made."""

from __future__ import annotations

from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
)
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Outcome, Verdict, judge
from proxy.control.told_verdicts import PAUSE_MS, ToldVerdicts

KEY = EvidenceKey("iris", "iris", "v2", "c", None, None)
PARAMS = Params((GateParams(Metric.AVAILABILITY, 0.02),))


def verdict(same: int, worse: int = 0) -> Verdict:
    """Return what so many pairs say."""
    counts = three_counts(better=0, same=same, worse=worse)
    return judge(EvidenceCounts(KEY, (GateCounts(Metric.AVAILABILITY, counts),)), PARAMS)


def test_the_first_verdict_and_each_other_one_are_told() -> None:
    """With what was told before; the same again is no news."""
    told = ToldVerdicts()
    assert told.news("a", verdict(10), 0) == (None, Outcome.CONTINUE)
    assert told.news("a", verdict(20), PAUSE_MS) is None
    assert told.news("a", verdict(10_000), PAUSE_MS) == ("continue", "promote")
    assert told.news("b", verdict(10_000), PAUSE_MS) == (None, "promote")


def test_evidence_at_a_threshold_fills_no_log_but_a_halt_is_told_at_once() -> None:
    """Whatever was told a moment ago."""
    told = ToldVerdicts()
    found = [told.news("a", verdict(10_000 if n % 2 else 10), 500 * n) for n in range(250)]
    assert sum(news is not None for news in found) == 3
    assert told.news("a", verdict(0, 500), 500 * 250) == ("continue", "halt")


def test_another_step_has_verdicts_of_its_own() -> None:
    """The same words are news again."""
    told = ToldVerdicts()
    assert told.news("a", verdict(10), 0) is not None
    told.forget("a")
    assert told.news("a", verdict(10), 1) == (None, "continue")
