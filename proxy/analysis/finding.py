"""A candidate's tally as findings: the verdict with its evidence, and what a report draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf, isfinite
from typing import Final

from proxy.analysis.bounded import OTHER
from proxy.analysis.distributions import (
    bland_altman,
    confusion_matrix,
    label_drift,
    latency_quantiles,
    number_drift,
)
from proxy.analysis.findings import (
    Agreement,
    Calibration,
    CandidateFindings,
    GateFinding,
    Latency,
    SegmentFinding,
    SideQuantiles,
    SplitFinding,
    Stream,
    ThreeCounts,
    TwoSides,
    VerdictFinding,
    WorstPair,
)
from proxy.analysis.proportions import Proportion, proportion
from proxy.analysis.sentence import verdict_sentence
from proxy.analysis.summary import Comparison
from proxy.analysis.tally import PairTally
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import FULL_BP, ArmCounts, log_evidence
from proxy.comparison.sequences import quantile_bounds
from proxy.comparison.sketch import QuantileSketch
from proxy.comparison.verdict import GateVerdict, Verdict, evidence_value

#: Of the bounds of quantiles, at either end.
_BOUNDS_ALPHA: Final = 0.05
#: The gate whose segments are all told: the first of these that there is.
_ANSWERS: Final = (Metric.CORRECTNESS, Metric.AGREEMENT)


def findings_of(
    tally: PairTally,
    comparison: Comparison,
    verdict: Verdict,
    gates_from: str,
    calibration: Calibration | None,
) -> CandidateFindings:
    """Return everything found about one candidate.

    Args:
        tally: what was counted.
        comparison: the plain counts of the same pairs.
        verdict: on its newest version.
        gates_from: where the gates come from.
        calibration: of its scores, where labels were read.
    """
    predictions = tally.predictions
    labels = predictions.labels
    pairs = {key: count for key, count in labels.ranked(labels.limit + 1) if key != OTHER}
    are_numbers = predictions.numbers.pairs > sum(pairs.values())
    return CandidateFindings(
        route=comparison.route,
        candidate=comparison.candidate,
        sentence=verdict_sentence(verdict),
        verdict=verdict_finding(verdict, gates_from),
        pairs=tally.pairs,
        versions=tally.judged.versions(),
        agreement=_agreement(comparison),
        statuses={
            "primary": comparison.primary_leg.statuses,
            "candidate": comparison.candidate_leg.statuses,
        },
        errors={
            "primary": comparison.primary_leg.top_errors,
            "candidate": comparison.candidate_leg.top_errors,
        },
        latency_ms=_latency(tally),
        stream=_stream(tally.streams),
        drift=number_drift(predictions.numbers) if are_numbers else label_drift(pairs),
        bland_altman=bland_altman(predictions.numbers) if are_numbers else None,
        confusion=None if are_numbers else confusion_matrix(pairs),
        correctness=comparison.correctness,
        calibration=calibration,
        segments=_segments(verdict.gates),
        worst=tuple(
            WorstPair(
                pair_id=each.pair_id,
                request_id=each.request_id,
                ts=each.ts,
                primary=each.primary_prediction,
                candidate=each.candidate_prediction,
                primary_answer=each.primary_answer,
                candidate_answer=each.candidate_answer,
                first_diff_path=each.first_diff_path,
                abs_diff=each.abs_diff,
            )
            for each in comparison.worst
        ),
    )


def verdict_finding(verdict: Verdict, gates_from: str) -> VerdictFinding:
    """Return a verdict as the document tells it."""
    return VerdictFinding(
        verdict=str(verdict.outcome),
        reason=verdict.reason,
        gates_from=gates_from,
        gates=tuple(_gate(gate, verdict) for gate in verdict.gates),
        split=tuple(found for arm in verdict.counts.arms for found in _split(arm)),
        e_split=evidence_value(verdict.log_e_split),
        split_alpha=verdict.params.split_alpha,
    )


def _split(arm: ArmCounts) -> Iterator[SplitFinding]:
    for cell in arm.cells:
        declared_bp, hits, misses = cell
        keys = hits + misses
        if keys:
            log_e = log_evidence([replace(arm, cells=(cell,))])
            yield SplitFinding(
                arm.name, declared_bp / FULL_BP, hits / keys, keys, evidence_value(log_e)
            )


def _gate(gate: GateVerdict, verdict: Verdict) -> GateFinding:
    (params,) = (each for each in verdict.params.gates if each.metric is gate.metric)
    counts = {each.metric: each.overall for each in verdict.counts.gates}.get(gate.metric)
    better, same, worse = counts.three() if counts else (0, 0, 0)
    standing = gate.standing
    return GateFinding(
        metric=str(gate.metric),
        verdict=str(gate.outcome),
        reason=gate.reason,
        margin=params.margin,
        alpha=params.alpha,
        budget_ms=params.budget_s * 1000.0 if gate.metric is Metric.LATENCY else None,
        has_noise_floor=params.has_noise_floor,
        n=standing.pairs,
        counts=ThreeCounts(better, same, worse, standing.missing),
        mean=standing.mean,
        low=standing.lower,
        high=standing.upper,
        e_promote=standing.e_promote,
        e_halt=standing.e_halt,
    )


def _agreement(comparison: Comparison) -> Agreement:
    agreement = comparison.agreement
    return Agreement(
        equal=agreement.count,
        comparable=agreement.total,
        rate=agreement.rate,
        low=agreement.low,
        high=agreement.high,
        not_comparable=comparison.not_comparable,
        noise_floor=_opposite(comparison.self_agreement),
    )


def _opposite(agreement: Proportion) -> Proportion:
    return proportion(agreement.total - agreement.count, agreement.total)


def _latency(tally: PairTally) -> Latency:
    primary, candidate = tally.latency_ms["primary"], tally.latency_ms["candidate"]
    return Latency(_side(primary), _side(candidate), latency_quantiles(primary, candidate))


def _stream(streams: dict[str, QuantileSketch]) -> Stream | None:
    if not streams:
        return None
    sides = {
        name: TwoSides(*(_side(streams.get(f"{side}_{name}")) for side in ("primary", "candidate")))
        for name in ("ttft_ms", "itl_p50_ms", "itl_max_ms")
    }
    return Stream(**sides)


def _side(sketch: QuantileSketch | None) -> SideQuantiles:
    if sketch is None:
        return SideQuantiles(None, None, None, 0)
    p50, p90, p99 = (sketch.quantile(share) for share in (0.5, 0.9, 0.99))
    return SideQuantiles(p50, p90, p99, sketch.count, _bounds(sketch))


def _bounds(sketch: QuantileSketch) -> dict[str, tuple[float | None, float | None]]:
    found = {}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        low, high = quantile_bounds(sketch, share, _BOUNDS_ALPHA) if sketch.count else (-inf, inf)
        found[name] = (low if isfinite(low) else None, high if isfinite(high) else None)
    return found


def _segments(gates: Iterable[GateVerdict]) -> tuple[SegmentFinding, ...]:
    """Return all segments of the gate that judges answers, and those of others that stop it."""
    by_metric = {gate.metric: gate for gate in gates}
    answers = next((by_metric[metric] for metric in _ANSWERS if metric in by_metric), None)
    told = [
        (gate.metric, segment)
        for gate in by_metric.values()
        for segment in gate.segments
        if gate is answers or segment.is_worse
    ]
    found = []
    for metric, segment in told:
        key, _, value = segment.name.partition("=")
        standing = segment.standing
        found.append(
            SegmentFinding(
                metric=str(metric),
                key=key,
                value=value,
                n=standing.pairs,
                mean=standing.mean,
                low=standing.lower,
                high=standing.upper,
                e=standing.e_halt,
                flagged=segment.is_worse,
            )
        )
    return tuple(found)
