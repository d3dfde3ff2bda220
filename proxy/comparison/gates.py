"""What each gate makes of a pair: a loss difference D in [-1, 1], positive = candidate worse.

Decides which pairs a gate looks at (*offered*), and their D. A pair that is offered and gives no D is
*missing*: it is counted, and too many of them block the verdict, so that a candidate cannot pass by
answers that nobody can judge. What follows from D is `bets` and `verdict`. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

#: How a leg ended when its backend did not give what it was asked for.
FAILED: Final = frozenset({"http_error", "timeout", "connect_error", "reset"})
#: How a leg ended when nobody's backend is to blame; nothing can be said then.
_UNASKED: Final = frozenset({"cancelled", "shed", "not_sent"})


class Metric(StrEnum):
    """What a gate judges."""

    AGREEMENT = "agreement"
    CORRECTNESS = "correctness"
    AVAILABILITY = "availability"
    LATENCY = "latency"


def is_offered(metric: Metric, record: Mapping[str, Any], *, has_noise_floor: bool) -> bool:
    """Return whether a gate looks at this pair.

    Args:
        metric: the gate's. Correctness waits for labels, so no record alone is offered to it.
        record: a pair record.
        has_noise_floor: the route samples replicates; agreement then looks only at pairs that have
            one, which are a random sample, since the split key's hash chose them.
    """
    if metric is Metric.AGREEMENT and has_noise_floor:
        return record["replicate_status"] is not None
    return metric is not Metric.CORRECTNESS


def difference(
    metric: Metric, record: Mapping[str, Any], *, has_noise_floor: bool, budget_s: float
) -> float | None:
    """Return D of an offered pair; None when it is missing.

    Args:
        metric: any but correctness; see `correctness`.
        record: a pair record.
        has_noise_floor: see `is_offered`.
        budget_s: of the latency gate.
    """
    if metric is Metric.AGREEMENT:
        return _agreement(record, has_noise_floor=has_noise_floor)
    if metric is Metric.AVAILABILITY:
        return _less(
            candidate=_failed(record["candidate_status"]),
            primary=_failed(record["primary_status"]),
        )
    if metric is Metric.LATENCY:
        return _less(
            candidate=_is_over(
                budget_s, record["candidate_status"], record["candidate_latency_ms"]
            ),
            primary=_is_over(budget_s, record["primary_status"], record["primary_latency_ms"]),
        )
    return None


def correctness(*, candidate_wrong: bool | None, primary_wrong: bool | None) -> float | None:
    """Return D of a labelled pair: 1{candidate wrong} - 1{primary wrong}."""
    return _less(candidate=candidate_wrong, primary=primary_wrong)


def error_difference(
    candidate_error: float | None, primary_error: float | None, bound: float
) -> float | None:
    """Return D of a labelled pair with numeric errors: their difference over `bound`, clipped.

    What is judged then is the clipped difference: one that is often over the bound reads as the
    bound, so declare it where such errors are equally bad. Two infinite errors are missing.

    Args:
        candidate_error: how far off the candidate is, such as |prediction - label|.
        primary_error: likewise.
        bound: over 0; the margin is a share of it.
    """
    if candidate_error is None or primary_error is None:
        return None
    scaled = (candidate_error - primary_error) / bound
    return None if math.isnan(scaled) else min(max(scaled, -1.0), 1.0)


def _agreement(record: Mapping[str, Any], *, has_noise_floor: bool) -> float | None:
    """Return the comparison's loss, the replicate's taken away (`result.against_noise`)."""
    if not record["comparable"] or (has_noise_floor and record["replicate_equal"] is None):
        return None
    loss: float | None = record["loss_diff"]
    return loss


def _failed(status: str | None) -> bool | None:
    return None if status is None or status in _UNASKED else status in FAILED


def _is_over(budget_s: float, status: str | None, latency_ms: float | None) -> bool | None:
    """Return whether a call took too long; one that ended early without an answer says nothing."""
    if status == "timeout":
        return True
    if status not in ("ok", "http_error") or latency_ms is None or math.isnan(latency_ms):
        return None
    return bool(latency_ms > budget_s * 1000.0)


def _less(*, candidate: bool | None, primary: bool | None) -> float | None:
    return None if candidate is None or primary is None else float(candidate) - float(primary)
