"""What the gates say together, and that it can be checked for ever."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.comparison.counts import Counts, Tally, three_counts
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
)
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import CERTAIN, ArmCounts
from proxy.comparison.verdict import WORST_FIRST, Outcome, judge
from proxy.comparison.verdict_json import dumps, loads_counts, loads_verdict

#: Written once on x86-64 (AVX-512, numpy 2.4); every machine must make the same of its counts.
KEPT = Path(__file__).parent / "verdict.json"

KEY = EvidenceKey("score", "score", "v2", "c1", None, "2")
GOOD = three_counts(better=80, same=9_840, worse=80)
BAD = three_counts(better=10, same=1_920, worse=70)
EARLY = three_counts(better=1, same=97, worse=2)
NOBODY = Counts()
THIN = three_counts(better=80, same=9_840, worse=80, missing=600)


def counts_of(*gates: Counts, arms: tuple[ArmCounts, ...] = ()) -> EvidenceCounts:
    """Return counts of gates, in the order of the metrics."""
    return EvidenceCounts(
        KEY,
        tuple(GateCounts(m, c) for m, c in zip(sorted(Metric), gates, strict=False)),
        arms,
        (("shadow.pairs.v1/0", 17),),
    )


def params(gates: int, alpha: float = 0.05) -> Params:
    """Return parameters for the first gates, in the order of the metrics."""
    return Params(tuple(GateParams(metric, 0.01, alpha=alpha) for metric in sorted(Metric)[:gates]))


@pytest.mark.parametrize(
    ("gates", "outcome", "reason"),
    [
        ([GOOD], Outcome.PROMOTE, "agreement: within_margin"),
        ([BAD], Outcome.HALT, "agreement: worse_than_margin"),
        ([EARLY], Outcome.CONTINUE, "agreement: undecided"),
        ([NOBODY], Outcome.NO_DATA, "agreement: no_pairs"),
        ([THIN], Outcome.NO_DATA, "agreement: coverage"),
        ([GOOD, GOOD], Outcome.PROMOTE, "agreement: within_margin"),
        ([GOOD, EARLY], Outcome.CONTINUE, "availability: undecided"),
        ([GOOD, EARLY, NOBODY], Outcome.NO_DATA, "correctness: no_pairs"),
        ([NOBODY, GOOD, BAD], Outcome.HALT, "correctness: worse_than_margin"),
    ],
)
def test_the_worst_gate_decides(gates: list[Counts], outcome: Outcome, reason: str) -> None:
    """Halt, then no data, then continue; promote only when all say so."""
    found = judge(counts_of(*gates), params(len(gates)))
    assert (found.outcome, found.reason) == (outcome, reason)


def test_a_gate_that_was_never_fed_and_no_gates_are_no_data() -> None:
    """What was not measured is not a pass."""
    assert judge(counts_of(GOOD), params(2)).reason == "availability: no_pairs"
    nothing = judge(counts_of(GOOD), Params(()))
    assert (nothing.outcome, nothing.reason) == (Outcome.NO_DATA, "no_gates")


def test_a_broken_split_blocks_everything() -> None:
    """Also a halt: nobody knows what the difference comes from."""
    broken = (ArmCounts("canary v2", ((1_000, 1_300, 8_700),)),)
    for gate in (GOOD, BAD):
        found = judge(counts_of(gate, arms=broken), params(1))
        assert (found.outcome, found.reason) == (Outcome.NO_DATA, "sample_ratio")
    impossible = (ArmCounts("canary v2", ((0, 1, 10),)),)
    found = judge(counts_of(GOOD, arms=impossible), params(1))
    assert (found.outcome, found.log_e_split) == (Outcome.NO_DATA, CERTAIN)


def test_halt_wins_a_tie() -> None:
    """Where the evidence is enough for both claims, the careful one is believed."""
    few = three_counts(better=50, same=0, worse=55)
    standing = judge(counts_of(few), params(1)).gates[0].standing
    alpha = math.exp(-min(standing.log_e_promote, standing.log_e_halt)) * 1.01
    assert judge(counts_of(few), params(1, alpha=alpha)).outcome is Outcome.HALT


def test_one_bad_segment_halts_a_candidate_that_is_good_on_the_whole() -> None:
    """Found by e-BH among all segments, and named."""
    bad = three_counts(better=0, same=380, worse=20)
    rest = three_counts(better=80, same=9_460, worse=60)
    gate = GateCounts(Metric.AGREEMENT, GOOD, (("language=de", bad), ("language=en", rest)))
    counts = EvidenceCounts(KEY, (gate,))
    found = judge(counts, params(1))
    assert (found.outcome, found.reason) == (
        Outcome.HALT,
        "agreement: worse_than_margin in language=de",
    )
    assert [each.is_worse for each in found.gates[0].segments] == [True, False]
    alone = judge(counts, replace(params(1), segment_alpha=0.0))
    assert alone.outcome is Outcome.PROMOTE


def test_a_standing_tells_counts_mean_and_e_values() -> None:
    """What people look at."""
    standing = judge(counts_of(BAD), params(1)).gates[0].standing
    assert (standing.pairs, standing.missing) == (2_000, 0)
    assert standing.mean == 0.03
    assert standing.lower < 0.03 < standing.upper
    assert math.isclose(standing.e_halt, math.exp(standing.log_e_halt))
    assert standing.e_promote < 1 < 20 < standing.e_halt


some_counts = st.builds(
    three_counts,
    better=st.integers(0, 300),
    same=st.integers(0, 20_000),
    worse=st.integers(0, 300),
    missing=st.integers(0, 50),
)


@given(counts=some_counts, missing=st.lists(st.sampled_from([None, math.nan, math.inf])))
def test_what_is_missing_never_brings_a_verdict_nearer_to_promote(
    counts: Counts, missing: list[float | None]
) -> None:
    """It changes nothing, or takes the verdict away."""
    tally = Tally()
    tally.merge(counts)
    for value in missing:
        tally.add(value)
    before = judge(counts_of(counts), params(1)).outcome
    after = judge(counts_of(tally.counts()), params(1)).outcome
    assert after in (before, Outcome.NO_DATA)


@given(counts=some_counts, worse=st.integers(0, 50))
def test_a_worse_pair_never_turns_a_verdict_into_promote(counts: Counts, worse: int) -> None:
    """More losses: as it was, or worse."""
    tally = Tally()
    tally.merge(counts)
    tally.merge(three_counts(better=0, same=0, worse=worse))
    before = judge(counts_of(counts), params(1)).outcome
    after = judge(counts_of(tally.counts()), params(1)).outcome
    if after is Outcome.PROMOTE:
        assert before in (Outcome.PROMOTE, Outcome.NO_DATA)
    if before is Outcome.HALT:
        assert after is Outcome.HALT
    assert set(WORST_FIRST) == set(Outcome)


@given(gates=st.lists(some_counts, min_size=1, max_size=3))
def test_a_verdict_survives_json_and_is_made_again_from_its_counts(gates: list[Counts]) -> None:
    """Equal in every bit of every figure."""
    arms = (ArmCounts("canary v2", ((1_000, 105, 895),)),)
    verdict = judge(counts_of(*gates, arms=arms), params(len(gates)))
    assert verdict.recomputed() == verdict
    assert loads_verdict(dumps(verdict)) == verdict
    assert loads_counts(dumps(verdict.counts)) == verdict.counts


def test_a_verdict_of_another_machine_comes_out_bit_for_bit() -> None:
    """Weights, bins, segments, bounds and the split: every figure as it was written."""
    written = KEPT.read_bytes().strip()
    assert dumps(loads_verdict(written)) == written


def test_a_verdict_that_its_counts_do_not_give_is_refused() -> None:
    """Whoever changes outcome, figure or count is found out."""
    said = orjson.loads(dumps(judge(counts_of(BAD), params(1))))
    for changed in (
        said | {"outcome": "promote"},
        said | {"log_e_split": 0.5},
        said | {"params": said["params"] | {"segment_alpha": 0.01}, "reason": "x"},
    ):
        with pytest.raises(ValueError, match="the verdict says"):
            loads_verdict(orjson.dumps(changed))
    for broken in (b"{}", b"[]", b'{"counts":1,"params":2}', b"nonsense"):
        with pytest.raises(ValueError):
            loads_verdict(broken)
    with pytest.raises(ValueError, match="not counts"):
        loads_counts(b'{"key":{}}')
