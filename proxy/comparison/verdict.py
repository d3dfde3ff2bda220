"""What the gates say: `promote`, `halt`, `continue` or `no_data`, with everything that it rests on.

Precedence is explicit. A broken split blocks all: `no_data`. Then each gate says, in this order, the
first that holds: no pairs, or too many without a difference: `no_data`; evidence that the candidate is
worse than the margin: `halt`, also when there is evidence for the opposite; a segment that is (e-BH):
`halt`; evidence that it is within the margin: `promote`; else `continue`. Of all gates the worst
decides: halt, no_data, continue, promote. So no data is never a pass, and a value that is not a number
passes nothing.

A verdict is a frozen value and carries the counts, the parameters and the offsets that it was made
from: `judge` of these gives the same verdict bit for bit, on any machine (`reproducible`). Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from proxy.comparison.bets import Cells, Claim, log_threshold
from proxy.comparison.counts import Counts, difference_ends, weight_ends
from proxy.comparison.evidence import EvidenceCounts, GateCounts, GateParams, Params
from proxy.comparison.gates import Metric
from proxy.comparison.reproducible import exp
from proxy.comparison.sample_ratio import is_covered, log_evidence
from proxy.comparison.segments import found_by_e_bh
from proxy.comparison.sequences import bounds

#: exp of more than this is no double.
_GREATEST_LOG: Final = 700.0


class Outcome(StrEnum):
    """What a gate, or all of them, say."""

    PROMOTE = "promote"
    HALT = "halt"
    CONTINUE = "continue"
    NO_DATA = "no_data"


#: The first of these that a gate says is what all of them say.
WORST_FIRST: Final = (Outcome.HALT, Outcome.NO_DATA, Outcome.CONTINUE, Outcome.PROMOTE)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the counts of a gate, or of one segment, show.

    Attributes:
        pairs: with a difference.
        missing: without one.
        mean: of the differences, weighted; None without pairs.
        log_e_promote: logarithm of the e-value for E[D] < margin.
        log_e_halt: logarithm of the e-value for E[D] > margin.
        lower, upper: bounds of E[D], each right at all looks together but for alpha.
    """

    pairs: int
    missing: int
    mean: float | None
    log_e_promote: float
    log_e_halt: float
    lower: float
    upper: float

    @property
    def e_promote(self) -> float:
        """Return the e-value for E[D] < margin, at most e ** 700."""
        return evidence_value(self.log_e_promote)

    @property
    def e_halt(self) -> float:
        """Return the e-value for E[D] > margin, at most e ** 700."""
        return evidence_value(self.log_e_halt)


@dataclass(frozen=True, slots=True)
class SegmentStanding:
    """A segment; `is_worse`: e-BH finds that it is worse than the margin."""

    name: str
    standing: Standing
    is_worse: bool


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one gate says, and why, in snake_case."""

    metric: Metric
    outcome: Outcome
    reason: str
    standing: Standing
    segments: tuple[SegmentStanding, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all gates say about one candidate.

    Attributes:
        outcome: of the worst gate.
        reason: `metric: why`, or why there is no verdict.
        gates: in the order of the parameters.
        log_e_split: logarithm of the e-value against the declared split.
        counts, params: what it was made from.
    """

    outcome: Outcome
    reason: str
    gates: tuple[GateVerdict, ...]
    log_e_split: float
    counts: EvidenceCounts
    params: Params

    def recomputed(self) -> Verdict:
        """Return the verdict made again from its counts: equal to this one, or somebody lied."""
        return judge(self.counts, self.params)


def judge(counts: EvidenceCounts, params: Params) -> Verdict:
    """Return what `counts` say by `params`; the same bits for the same arguments, always."""
    by_metric = {gate.metric: gate for gate in counts.gates}
    gates = tuple(
        _judge_gate(gate, by_metric.get(gate.metric, GateCounts(gate.metric)), params)
        for gate in params.gates
    )
    log_e_split = log_evidence(counts.arms)
    outcome, reason = _worst(gates)
    if not log_e_split < log_threshold(params.split_alpha):
        outcome, reason = Outcome.NO_DATA, "sample_ratio"
    return Verdict(outcome, reason, gates, log_e_split, counts, params)


def _worst(gates: tuple[GateVerdict, ...]) -> tuple[Outcome, str]:
    for outcome in WORST_FIRST:
        for gate in gates:
            if gate.outcome is outcome:
                return outcome, f"{gate.metric}: {gate.reason}"
    return Outcome.NO_DATA, "no_gates"


def _judge_gate(gate: GateParams, counts: GateCounts, params: Params) -> GateVerdict:
    rows = [counts.overall, *(segment for _, segment in counts.segments)]
    overall, *rest = _standings(rows, gate)
    is_worse = _worse_segments(rest, params.segment_alpha)
    segments = tuple(
        SegmentStanding(name, standing, worse)
        for (name, _), standing, worse in zip(counts.segments, rest, is_worse, strict=True)
    )
    outcome, reason = _outcome(gate, counts.overall, overall, segments)
    return GateVerdict(gate.metric, outcome, reason, overall, segments)


def _worse_segments(standings: list[Standing], alpha: float) -> tuple[bool, ...]:
    if not alpha:
        return (False,) * len(standings)
    return found_by_e_bh([each.log_e_halt for each in standings], alpha)


def _outcome(
    gate: GateParams, counts: Counts, overall: Standing, segments: tuple[SegmentStanding, ...]
) -> tuple[Outcome, str]:
    threshold = log_threshold(gate.alpha)
    if not overall.pairs:
        return Outcome.NO_DATA, "no_pairs"
    if not is_covered(counts, gate.max_missing):
        return Outcome.NO_DATA, "coverage"
    if overall.log_e_halt >= threshold:
        return Outcome.HALT, "worse_than_margin"
    worse = next((each.name for each in segments if each.is_worse), None)
    if worse is not None:
        return Outcome.HALT, f"worse_than_margin in {worse}"
    if overall.log_e_promote >= threshold:
        return Outcome.PROMOTE, "within_margin"
    return Outcome.CONTINUE, "undecided"


def _standings(rows: list[Counts], gate: GateParams) -> list[Standing]:
    """Return what each of `rows` shows, all of them at once."""
    cells = Cells.of(rows)
    margins = np.full(1, gate.margin)
    promote = cells.log_evidence(Claim.PROMOTE, margins)
    halt = cells.log_evidence(Claim.HALT, margins)
    lower, upper = bounds(cells, gate.alpha)
    return [
        Standing(
            pairs=row.pairs,
            missing=row.missing,
            mean=_mean(row),
            log_e_promote=float(promote[number]),
            log_e_halt=float(halt[number]),
            lower=float(lower[number]),
            upper=float(upper[number]),
        )
        for number, row in enumerate(rows)
    ]


def _mean(counts: Counts) -> float | None:
    """Return the weighted mean difference, cells at their middle, summed in their order."""
    if not counts.cells:
        return None
    array = np.array(counts.cells, dtype=np.int64)
    light, heavy = weight_ends(array[:, 0])
    least, greatest = difference_ends(array[:, 1])
    weights = (light + heavy) * array[:, 2]
    products = weights * (least + greatest) / 2.0
    # fsum is exact and rounds once; numpy's sum depends on the length.
    return math.fsum(products.tolist()) / math.fsum(weights.tolist())


def evidence_value(log_e: float) -> float:
    """Return the e-value of a logarithm, at most e ** 700."""
    return float(exp(np.array([min(log_e, _GREATEST_LOG)]))[0])
