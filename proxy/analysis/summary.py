"""What a comparison says: frozen values, and the JSON object of `understudy compare --json`.

`Summary` is the stable, documented form: `as_dict(summary)` is the dataclasses below, field for
field. Within one `format` fields may be added, never removed, renamed or retyped. Rates lie in
[0, 1], times are milliseconds, absent values are null.

It holds counts and intervals of one look. `verdict` is null: evidence that may be looked at all
the time is another computation, and its place is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.analysis.findings import CandidateFindings
from proxy.analysis.proportions import Correctness, Proportion
from proxy.analysis.sources import SourceStatistics

FORMAT: Final = "understudy.compare/1"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a number, each within 1% of its size; extremes and mean are exact."""

    count: int
    mean: float | None
    minimum: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True)
class Leg:
    """One side of all pairs.

    Attributes:
        statuses: pairs by how the leg ended.
        http_statuses: pairs by HTTP status, as text; legs without an answer are left out.
        errors: legs that failed (http_error, timeout, connect_error, reset) among those that were
            tried. A leg that was shed, cancelled or never sent says nothing about its model.
        top_errors: the most frequent error texts.
        latency_ms: dispatch to last byte, of the legs that ended ok.
        truncated_bodies: answers longer than the recorder keeps.
        model_versions: pairs by the version that the answer names.
    """

    statuses: dict[str, int]
    http_statuses: dict[str, int]
    errors: Proportion
    top_errors: dict[str, int]
    latency_ms: Quantiles
    truncated_bodies: int
    model_versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often the primary said one label and the candidate another, both as JSON."""

    primary: str
    candidate: str
    pairs: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One pair that differs; predictions are JSON, answers text, all shortened."""

    pair_id: str
    request_id: str
    ts: str
    abs_diff: float | None
    rel_diff: float | None
    first_diff_path: str | None
    primary_prediction: str
    candidate_prediction: str
    primary_answer: str | None
    candidate_answer: str | None


@dataclass(frozen=True, slots=True)
class LabelsRead:
    """The labels that were read.

    Attributes:
        source: where from.
        read: all of them; a later one of the same request replaces the earlier one.
        requests: requests that have one.
        bad: records that are no labels.
        bad_example: why the first of them is none.
    """

    source: str
    read: int
    requests: int
    bad: int
    bad_example: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One candidate of one route against its primary.

    Attributes:
        headline: the whole in one sentence.
        first_ts_ms, last_ts_ms: when the earliest and the latest exchange came in.
        modes, served_by: pairs by mode, and by whose answer the user got.
        rescued: canary failures that the primary answered.
        comparators: pairs by comparator.
        agreement: equal pairs among the comparable ones.
        self_agreement: how often the primary agrees with itself, from the replicate legs; its
            total is 0 where none was sampled.
        not_comparable: pairs by reason.
        primary_leg, candidate_leg: either side of all pairs.
        latency_difference_ms: candidate minus primary of the same exchange, both ok.
        abs_diff, rel_diff: of the comparable pairs with numbers.
        confusion: the most frequent differing labels.
        worst: the pairs that differ most, else the first that differ.
        config_versions, experiments: pairs by them; evidence starts afresh with each.
        sample_probabilities: pairs by the probability that they were recorded. More than one
            means that plain counts, as here, lean towards what was sampled more.
        correctness: who is right; null where no labels were read.
        verdict: null until evidence is computed.
    """

    route: str
    candidate: str
    headline: str
    pairs: int
    first_ts_ms: int
    last_ts_ms: int
    modes: dict[str, int]
    served_by: dict[str, int]
    rescued: int
    comparators: dict[str, int]
    agreement: Proportion
    self_agreement: Proportion
    not_comparable: dict[str, int]
    primary_leg: Leg
    candidate_leg: Leg
    latency_difference_ms: Quantiles
    abs_diff: Quantiles
    rel_diff: Quantiles
    confusion: tuple[Confusion, ...]
    worst: tuple[Disagreement, ...]
    config_versions: dict[str, int]
    experiments: dict[str, int]
    sample_probabilities: dict[str, int]
    correctness: Correctness | None = None
    verdict: None = None


@dataclass(frozen=True, slots=True)
class Gaps:
    """Pairs that the numbers of one instance show to be missing."""

    instance: str
    pairs: int
    missing: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the data can be trusted.

    Attributes:
        records: JSON objects read.
        bad_records: objects that are no pair record of a version we know.
        bad_example: why the first of them is none.
        duplicates: pairs delivered again; counted once.
        selected: pairs that the selection kept.
        not_tabulated: pairs of routes and candidates beyond what one report holds.
        instances: runs of workers seen.
        missing: pairs missing between the first and last number of each instance, over all that
            was read, before the selection. None when the source was cut by time, or unknown.
        gaps: the instances that miss most.
        is_exact: every pair was remembered, so no duplicate is left.
    """

    records: int
    bad_records: int
    bad_example: str | None
    duplicates: int
    selected: int
    not_tabulated: int
    instances: int
    missing: int | None
    gaps: tuple[Gaps, ...]
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pairs to compare; empty or None takes all. `worst` is how many to show."""

    route: str = ""
    candidate: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    worst: int = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that one reading of a source gave; `labels` is null where none were read.

    Attributes:
        sentence: the verdict on each candidate, in a sentence each.
        candidates: the evidence about each, and everything that a report draws; `comparisons` are
            the plain counts of the same pairs, in the same order.
    """

    format: str
    source: SourceStatistics | None
    selection: Selection
    health: Health
    comparisons: tuple[Comparison, ...]
    labels: LabelsRead | None = None
    sentence: str = ""
    candidates: tuple[CandidateFindings, ...] = ()


def as_dict(summary: Summary) -> dict[str, Any]:
    """Return `summary` as plain dicts and lists, the same as its JSON."""
    value: dict[str, Any] = orjson.loads(orjson.dumps(summary))
    return value
