"""Which counts speak for a step: its own, exactly, of every model that is alive, and only fresh ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from proxy.comparison.counts import Counts, three_counts
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
    add_up,
)
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import ArmCounts, KeyCounts
from proxy.comparison.verdict import Outcome
from proxy.ramp.window import (
    RECENT_MS,
    SETTLE_MS,
    STALE_MS,
    Part,
    Published,
    Window,
    current,
    judgement,
    settled,
    since,
)

KEY = EvidenceKey("score", "score", "v2", "c1", "1", "2")
GATE = GateParams(Metric.AVAILABILITY, 0.02)
PARAMS = Params((GATE,))
START_MS = 1_700_000_000_000

small = st.integers(0, 40)
triples = st.tuples(small, small, small, small)


def counted(
    same: int, worse: int = 0, better: int = 0, missing: int = 0, key: EvidenceKey = KEY
) -> EvidenceCounts:
    """Return counts of the availability gate."""
    counts = three_counts(better=better, same=same, worse=worse, missing=missing)
    return EvidenceCounts(key, (GateCounts(Metric.AVAILABILITY, counts),))


def published(*parts: EvidenceCounts, at_ms: int = START_MS, caught_up_ms: int = 0) -> Published:
    """Return what recorders say: the newest pair at `at_ms`, caught up at once or when told."""
    return Published(tuple(Part(each, at_ms) for each in parts), caught_up_ms or at_ms)


def judged(window: Window, said: Published, now_ms: int = START_MS) -> tuple[Outcome | None, int]:
    """Return outcome and pairs."""
    found = judgement(window, said, PARAMS, now_ms)
    return found.outcome, found.pairs


@given(before=triples, after=triples)
def test_since_undoes_adding_up(
    before: tuple[int, int, int, int], after: tuple[int, int, int, int]
) -> None:
    """Whatever was counted later is what is left, to the pair."""
    earlier, later = counted(*before), counted(*after)
    assert since(add_up([earlier, later]), earlier) == later
    nothing = since(earlier, earlier).gates[0].overall
    assert nothing == Counts()


@given(before=triples, after=triples)
def test_counts_that_shrank_are_found(
    before: tuple[int, int, int, int], after: tuple[int, int, int, int]
) -> None:
    """A recorder that lost its state must not look like negative pairs."""
    if all(now >= then for now, then in zip(after, before, strict=True)):
        assert since(counted(*after), counted(*before)).key == KEY
        return
    with pytest.raises(ValueError, match="shrunk"):
        since(counted(*after), counted(*before))


def test_segments_and_arms_are_taken_away_as_well() -> None:
    """All that a verdict is made of."""
    one, two = three_counts(better=0, same=3, worse=1), three_counts(better=1, same=5, worse=1)
    segments = GateCounts(Metric.AVAILABILITY, two, (("tier=a", one), ("tier=b", one)))
    arms = (ArmCounts("canary v2", ((100, 3, 200), (2_500, 9, 30))),)
    before = EvidenceCounts(
        KEY,
        (GateCounts(Metric.AVAILABILITY, one, (("tier=a", one),)),),
        (ArmCounts("canary v2", ((100, 3, 200),)),),
    )
    left = since(EvidenceCounts(KEY, (segments,), arms), before)
    assert left.gates[0].overall == three_counts(better=1, same=2, worse=0)
    assert left.gates[0].segments == (("tier=b", one),)
    assert left.arms == (ArmCounts("canary v2", ((2_500, 9, 30),)),)
    with pytest.raises(ValueError, match="segment"):
        since(EvidenceCounts(KEY, (GateCounts(Metric.AVAILABILITY, two),)), before)
    with pytest.raises(ValueError, match="gate"):
        since(EvidenceCounts(KEY), before)


def test_the_line_is_drawn_when_the_recorders_have_reached_the_step() -> None:
    """Pairs from before the step never count for it, however late they are recorded."""
    window = Window(START_MS)
    early = published(counted(500), caught_up_ms=START_MS + SETTLE_MS - 1)
    assert settled(window, early) == window
    assert judged(window, early) == (None, 0)
    drawn = settled(window, published(counted(900), caught_up_ms=START_MS + SETTLE_MS))
    assert drawn.before == (counted(900),)
    assert judged(drawn, published(counted(900))) == (Outcome.NO_DATA, 0)
    assert judged(drawn, published(counted(1_400))) == (Outcome.PROMOTE, 500)


def test_a_recorder_that_lost_its_counts_costs_evidence_and_invents_none() -> None:
    """The line is drawn anew at what it says now."""
    window = settled(Window(0), published(counted(900)))
    again = settled(window, published(counted(100)))
    assert again.before == (counted(100),)
    assert judged(again, published(counted(150))) == (Outcome.CONTINUE, 50)


def test_several_recorders_add_up_and_the_slowest_says_how_fresh_they_are() -> None:
    """One that is silent makes everything stale."""
    window = Window(0, before=())
    both = published(counted(300), counted(300))
    assert judged(window, both) == (Outcome.PROMOTE, 600)
    fresh = judgement(window, both, PARAMS, START_MS + STALE_MS)
    assert fresh.is_fresh
    old = judgement(window, both, PARAMS, START_MS + STALE_MS + 1)
    assert (old.is_fresh, old.outcome) == (False, Outcome.PROMOTE)
    assert "s old" in old.reason
    to_come = judgement(window, both, PARAMS, START_MS - STALE_MS - 1)
    assert not to_come.is_fresh
    silent = judgement(window, Published(problem="recorder 1 is silent"), PARAMS, START_MS)
    assert (silent.outcome, silent.is_fresh, silent.reason) == (None, False, "recorder 1 is silent")


def test_failed_calls_count_with_the_model_that_they_may_have_been_of() -> None:
    """They told no version; a candidate must not pass by failing."""
    failed = replace(KEY, candidate_version=None)
    window = Window(0, before=())
    said = published(counted(600), counted(0, worse=60, key=failed))
    assert judged(window, said) == (Outcome.HALT, 660)
    other = replace(failed, primary_version="9")
    kept = current(window, published(counted(600), counted(0, worse=60, key=other)))
    assert [each.gates[0].overall.pairs for each in kept] == [600, 60]


def test_of_two_models_that_answer_in_turns_the_worse_decides() -> None:
    """And one that is gone, not any more."""
    newer = replace(KEY, candidate_version="3")
    window = Window(0, before=())
    said = published(counted(600), counted(10, key=newer))
    assert judged(window, said) == (Outcome.CONTINUE, 10)
    gone = Published(
        (
            Part(counted(0, worse=90), START_MS),
            Part(counted(600, key=newer), START_MS + RECENT_MS + 1),
        ),
        START_MS,
    )
    assert judged(window, gone) == (Outcome.PROMOTE, 600)


def test_missing_differences_and_a_broken_split_block_a_rise_and_no_fall() -> None:
    """The breaker of a candidate that fails leaves most of its pairs without a difference."""
    window = Window(0, before=())
    assert judged(window, published(counted(600, missing=600)))[0] is Outcome.NO_DATA
    failing = judgement(window, published(counted(0, worse=200, missing=900)), PARAMS, START_MS)
    assert (failing.outcome, failing.reason) == (Outcome.HALT, "availability: worse_than_margin")
    assert failing.verdict is not None
    assert failing.verdict.recomputed() == failing.verdict
    broken = (ArmCounts("canary v2", ((2_500, 0, 600),)),)
    good, bad = (replace(each, arms=broken) for each in (counted(600), counted(300, worse=300)))
    assert judgement(window, published(good), PARAMS, START_MS).reason == "sample_ratio"
    assert judged(window, published(bad))[0] is Outcome.HALT
    by_key = (KeyCounts("canary v2 at 25%", ((2_500, 0, 600),)),)
    passing, failing_too = (
        replace(published(each), arms=by_key) for each in (counted(600), counted(300, worse=300))
    )
    assert judgement(window, passing, PARAMS, START_MS).reason == "sample_ratio"
    assert judged(window, failing_too)[0] is Outcome.HALT
