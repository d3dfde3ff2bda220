"""Verdicts and counts as JSON, for the decisions topic, and back. Pure.

Doubles are written with as many digits as it takes to read the same double back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.comparison.counts import Counts
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
)
from proxy.comparison.gates import Metric
from proxy.comparison.sample_ratio import arm_of
from proxy.comparison.verdict import Verdict, judge


def dumps(value: Verdict | EvidenceCounts) -> bytes:
    """Return the JSON of a verdict or of counts."""
    return orjson.dumps(value)


def loads_verdict(data: bytes) -> Verdict:
    """Return the verdict that `data` says, made again from its counts.

    Raises:
        ValueError: not a verdict, or its counts give another one than it says.
    """
    said = orjson.loads(data)
    try:
        verdict = judge(counts_of(said["counts"]), _params_of(said["params"]))
    except (LookupError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a verdict: {type(exc).__name__}: {exc}") from exc
    if orjson.loads(dumps(verdict)) != said:
        raise ValueError(
            f"the verdict says {said.get('outcome')!r}, {said.get('reason')!r}; its counts give "
            f"'{verdict.outcome}', '{verdict.reason}', or other figures"
        )
    return verdict


def loads_counts(data: bytes) -> EvidenceCounts:
    """Return the counts that `data` says.

    Raises:
        ValueError: not counts.
    """
    try:
        return counts_of(orjson.loads(data))
    except (LookupError, TypeError, AttributeError) as exc:
        raise ValueError(f"not counts: {type(exc).__name__}: {exc}") from exc


def counts_of(said: Mapping[str, Any]) -> EvidenceCounts:
    """Return counts from parsed JSON.

    Raises:
        LookupError, TypeError, ValueError: not counts.
    """
    return EvidenceCounts(
        key=EvidenceKey(**said["key"]),
        gates=tuple(
            GateCounts(
                metric=Metric(gate["metric"]),
                overall=_counts_of(gate["overall"]),
                segments=tuple((name, _counts_of(each)) for name, each in gate["segments"]),
            )
            for gate in said["gates"]
        ),
        arms=tuple(
            arm_of(arm["name"], _triples(arm["cells"]), arm.get("discount")) for arm in said["arms"]
        ),
        offsets=tuple((source, offset) for source, offset in said["offsets"]),
    )


def _counts_of(said: Mapping[str, Any]) -> Counts:
    return Counts(_triples(said["cells"]), said["missing"])


def _triples(cells: list[list[int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((first, second, third) for first, second, third in cells)


def _params_of(said: Mapping[str, Any]) -> Params:
    gates = tuple(
        GateParams(**{**gate, "metric": Metric(gate["metric"])}) for gate in said["gates"]
    )
    return Params(**{**said, "gates": gates})
