"""A verdict as one sentence with its numbers. Pure.

Without ground truth a candidate is equivalent or differs; only correctness may say worse or better.
"""

from __future__ import annotations

from typing import Final

from proxy.analysis.wording import number, percent
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import log_evidence
from proxy.comparison.verdict import GateVerdict, Outcome, Verdict

_WHAT: Final = {
    Metric.AGREEMENT: "disagreement",
    Metric.CORRECTNESS: "wrong answers",
    Metric.AVAILABILITY: "failures",
    Metric.LATENCY: "answers over budget",
}


def verdict_sentence(verdict: Verdict) -> str:
    """Return the verdict on a candidate: what, why, and the figures of the gates that decide."""
    key = verdict.counts.key
    name = f"{key.route}/{key.candidate}"
    return f"{name}: {verdict.outcome}. {_why(verdict)}"


def _why(verdict: Verdict) -> str:
    if verdict.reason == "no_gates":
        return "There is no gate to judge by."
    if verdict.reason == "sample_ratio":
        return (
            f"Traffic is not split as declared{_split(verdict)}, so no difference can be believed."
        )
    decisive = [gate for gate in verdict.gates if gate.outcome is verdict.outcome]
    if verdict.outcome is Outcome.PROMOTE:
        pairs = min(gate.standing.pairs for gate in decisive)
        told = ", ".join(_figures(gate, verdict) for gate in decisive)
        return f"{_praise(verdict)} after {pairs:,} pairs: {told}."
    gate = decisive[0]
    if verdict.outcome is Outcome.NO_DATA:
        return f"{_no_data(gate)}."
    if verdict.outcome is Outcome.HALT:
        where = gate.reason.partition(" in ")[2]
        place = f" where {where}" if where else ""
        standing = f"{gate.standing.pairs:,} pairs: {_figures(gate, verdict)}"
        return f"More {_WHAT[gate.metric]} than the margin allows{place}, after {standing}."
    told = ", ".join(_figures(each, verdict) for each in decisive)
    return f"Not decided after {max(each.standing.pairs for each in decisive):,} pairs: {told}."


def _split(verdict: Verdict) -> str:
    """Return the arm that speaks most against the split, with its figures."""
    arm = max(verdict.counts.arms, key=lambda each: log_evidence([each]), default=None)
    hits = sum(cell[1] for cell in arm.cells) if arm else 0
    keys = sum(cell[2] for cell in arm.cells) + hits if arm else 0
    return f" ({arm.name}: {percent(hits, keys)} of {keys:,} keys)" if arm and keys else ""


def _praise(verdict: Verdict) -> str:
    has_truth = any(gate.metric is Metric.CORRECTNESS for gate in verdict.gates)
    return "Not worse than the margins allow" if has_truth else "Equivalent within the margins"


def _no_data(gate: GateVerdict) -> str:
    standing = gate.standing
    if gate.reason == "coverage":
        share = percent(standing.missing, standing.missing + standing.pairs)
        return (
            f"Too many pairs say nothing about {_WHAT[gate.metric]}: {standing.missing:,} of "
            f"{standing.missing + standing.pairs:,} ({share})"
        )
    return f"No data about {_WHAT[gate.metric]}: no pair says anything"


def _figures(gate: GateVerdict, verdict: Verdict) -> str:
    standing = gate.standing
    margin = next(each.margin for each in verdict.params.gates if each.metric is gate.metric)
    mean = 0.0 if standing.mean is None else standing.mean
    return (
        f"{_WHAT[gate.metric]} {_percent(mean)} ({_percent(standing.lower)} to "
        f"{_percent(standing.upper)}, margin {number(100 * margin)}%)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.2f}%"
