"""Some hundred pairs of one candidate, on their way to the tallies: counted, or as columns.

What has few values comes as counts of combinations, what is a number as an array; so a tally does its
work once for each combination or column, not for each pair. Batches are made of rows here, and of
Parquet's columns in `proxy.analysis.columnar`; what tallies get is the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.judged import Segments, Version
from proxy.analysis.predictions import Hashes, hashes_of
from proxy.analysis.rows import (
    COUNTED_FIELDS,
    NUMBER_FIELDS,
    SINGLE_FIELDS,
    STREAM_FIELDS,
    Counted,
    Row,
    counted_fault,
)
from proxy.analysis.source import Record
from proxy.comparison.evidence import LastVersions
from proxy.comparison.sketch import Floats
from proxy.comparison.split_keys import Toss, toss_of

_PLACES: Final = {name: place for place, name in enumerate(COUNTED_FIELDS)}
_COMPARATOR: Final = _PLACES["comparator"]
_SAMPLE_PROB: Final = _PLACES["sample_prob"]
_WEIGHT: Final = _PLACES["ramp_weight_bp"]
_STATUSES: Final = (_PLACES["primary_status"], _PLACES["candidate_status"])
_KEY: Final = (_PLACES["experiment_id"], _PLACES["config_version"])

Booleans = NDArray[np.bool_]


class BadRowError(ValueError):
    """A batch holds a value of a wrong type; nothing of the batch was counted."""


class Combination(NamedTuple):
    """What many pairs have in common.

    Attributes:
        counted: the values of `rows.COUNTED_FIELDS`.
        segments: sorted.
        is_late: whether primary and candidate took longer than the budget; None: unknown, or none.
    """

    counted: Counted
    segments: Segments
    is_late: tuple[bool | None, bool | None]

    @property
    def version(self) -> Version:
        """Return what answered."""
        return version_of(self.counted)

    def fields(self) -> dict[str, Any]:
        """Return the fields that gates read, latencies as 0 or infinity by the budget."""
        found = dict(zip(COUNTED_FIELDS, self.counted, strict=True))
        for side, is_late in zip(("primary", "candidate"), self.is_late, strict=True):
            latency_ms = None if is_late is None else math.inf if is_late else 0.0
            found[f"{side}_latency_ms"] = latency_ms
        return found


def version_of(counted: Counted) -> Version:
    """Return what answered, of the values of `rows.COUNTED_FIELDS`."""
    return Version(counted[_KEY[0]], counted[_KEY[1]], counted[0], counted[1])


class Predicted(NamedTuple):
    """Predictions of pairs with one comparator."""

    comparator: str
    primary: Sequence[Any]
    candidate: Sequence[Any]
    hashes: Hashes


@dataclass(slots=True)
class Batch:
    """Pairs of one candidate of one route.

    Attributes:
        size: how many.
        counts: pairs by the values of `rows.COUNTED_FIELDS`.
        combinations: the same, calls that name no version filled in, for evidence.
        spans: earliest and latest time of each version's pairs, in ms.
        numbers: columns of `rows.NUMBER_FIELDS` and those of `rows.STREAM_FIELDS` with any values,
            shape `(size,)`, NaN where null.
        is_ok: whether the primary's and the candidate's call ended ok, shape `(size,)` each.
        predicted: by comparator.
        differing: whole records of pairs that differ, as many as may be among the worst.
        labelled: pairs to look labels up for; empty where there are none.
        tosses: by experiment and config, what pairs say of the split, each with its key's hash.
    """

    size: int
    counts: Counter[Counted]
    combinations: Counter[Combination]
    spans: dict[Version, tuple[int, int]]
    numbers: dict[str, Floats]
    is_ok: tuple[Booleans, Booleans]
    predicted: list[Predicted]
    differing: list[Record] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    tosses: dict[tuple[str, str], list[tuple[Any, Toss]]] = field(default_factory=dict)


class Labelled(NamedTuple):
    """What of a pair is held against its label."""

    request_id: Any
    comparator: Any
    primary: Any
    candidate: Any
    sample_prob: float
    segments: Segments
    version: Version


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a batch is made for: `budget_s` of the latency gate, if any; labels to be looked up."""

    budget_s: float | None = None
    has_labels: bool = False


class Waiting:
    """Rows of one candidate that wait to be counted together."""

    __slots__ = ("counted", "differing", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.counted: list[Counted] = []
        #: Place among the rows, and the whole record.
        self.differing: list[tuple[int, Record]] = []

    def column(self, *numbers: int) -> list[list[Any]]:
        """Return columns of `rows.SINGLE_FIELDS`."""
        return [[row[number] for row in self.rows] for number in numbers]

    def extend(self, other: Waiting) -> None:
        """Take the rows of `other` behind these."""
        offset = len(self.rows)
        self.rows += other.rows
        self.counted += other.counted
        self.differing += ((offset + place, record) for place, record in other.differing)

    def only(self, places: Sequence[int]) -> Waiting:
        """Return the rows at `places`, which rise."""
        chosen = Waiting()
        chosen.rows = [self.rows[place] for place in places]
        chosen.counted = [self.counted[place] for place in places]
        if self.differing:
            where = {place: number for number, place in enumerate(places)}
            chosen.differing = [
                (where[place], record) for place, record in self.differing if place in where
            ]
        return chosen


@dataclass(slots=True)
class Columns:
    """Pairs of one candidate, one below the other.

    Attributes:
        counted: of each pair; the fewer distinct tuples, the faster.
        seqs, times_ms: shape `(n,)`.
        numbers: as in `Batch`.
        segments: None where no pair has any.
        primary, candidate: predictions.
        request_ids: needed where there are labels.
        units: hashes of the split keys; None where they were not read.
        differing: as in `Batch`.
    """

    counted: list[Counted]
    seqs: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    numbers: dict[str, Floats]
    segments: list[Segments] | None
    primary: Sequence[Any]
    candidate: Sequence[Any]
    request_ids: Sequence[Any]
    units: Sequence[Any] | None
    differing: list[Record] = field(default_factory=list)


def columns_of(waiting: Waiting) -> Columns:
    """Return rows, at least one, turned on their side.

    Raises:
        BadRowError: a value has a wrong type.
    """
    columns = dict(zip(SINGLE_FIELDS, zip(*waiting.rows, strict=True), strict=True))
    try:
        return Columns(
            counted=waiting.counted,
            seqs=np.array(columns["seq"], dtype=np.int64),
            times_ms=np.array(columns["ts_ms"], dtype=np.int64),
            numbers=_numbers(columns),
            segments=_segments(columns["segments"]),
            primary=columns["primary_prediction"],
            candidate=columns["candidate_prediction"],
            request_ids=columns["request_id"],
            units=columns["unit_hash"],
            differing=[record for _, record in waiting.differing],
        )
    except (TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise BadRowError(repr(exc)) from exc


def batch_of(columns: Columns, last: LastVersions, wanted: Wanted) -> Batch:
    """Return the batch of some columns; `last` moves on to the versions in it.

    Raises:
        BadRowError: a value has a wrong type; `last` is as it was.
    """
    counted = columns.counted
    counts = Counter(counted)
    for each in counts:
        fault = counted_fault(each)
        if fault is not None:
            raise BadRowError(fault)
    filled, moved = _with_versions(counted, counts, last)
    filled_counts = counts if filled is counted else Counter(filled)
    batch = Batch(
        size=len(counted),
        counts=counts,
        combinations=_combinations(filled, filled_counts, columns, wanted.budget_s),
        spans=_spans(filled, filled_counts, columns.times_ms),
        numbers=columns.numbers,
        is_ok=_are_ok(counted, counts),
        predicted=_predicted(columns, counts),
        differing=columns.differing,
        tosses=_tosses(columns, counts),
    )
    if wanted.has_labels:
        batch.labelled = _labelled(columns, filled)
    last.primary, last.candidate = moved
    return batch


_NO_SEGMENTS: Final[Segments] = ()
_UNKNOWN: Final = (None, None)


def _numbers(columns: Mapping[str, tuple[Any, ...]]) -> dict[str, Floats]:
    names = [*NUMBER_FIELDS]
    names += [name for name in STREAM_FIELDS if columns[name].count(None) < len(columns[name])]
    return {name: np.array(columns[name], dtype=np.float64) for name in names}


def _segments(column: Sequence[Mapping[str, str] | None]) -> list[Segments] | None:
    """Return the segments of each pair; None where no pair has any."""
    if not any(column):
        return None
    return [tuple(sorted(each.items())) if each else _NO_SEGMENTS for each in column]


def _with_versions(
    counted: list[Counted], counts: Counter[Counted], last: LastVersions
) -> tuple[list[Counted], tuple[str | None, str | None]]:
    """Return `counted` with the last version known where a call names none, and the last ones."""
    first, second = last.primary, last.candidate
    if {each[:2] for each in counts} == {(first, second)}:
        return counted, (first, second)
    filled = []
    for each in counted:
        first, second = each[0] or first, each[1] or second
        is_named = each[0] == first and each[1] == second
        filled.append(each if is_named else (first, second, *each[2:]))
    return filled, (first, second)


def _combinations(
    counted: list[Counted],
    counts: Counter[Counted],
    columns: Columns,
    budget_s: float | None,
) -> Counter[Combination]:
    segments = columns.segments
    if segments is None and budget_s is None:
        return Counter({Combination(each, (), _UNKNOWN): n for each, n in counts.items()})
    late = [_UNKNOWN] * len(counted) if budget_s is None else _late(columns.numbers, budget_s)
    joined = Counter(zip(counted, segments or [_NO_SEGMENTS] * len(counted), late, strict=True))
    return Counter({Combination(*each): n for each, n in joined.items()})


def _late(numbers: dict[str, Floats], budget_s: float) -> list[tuple[bool | None, bool | None]]:
    sides = []
    for side in ("primary", "candidate"):
        latency_ms = numbers[f"{side}_latency_ms"]
        is_late = (latency_ms > budget_s * 1000.0).tolist()
        is_known = (latency_ms == latency_ms).tolist()
        sides.append([late if k else None for late, k in zip(is_late, is_known, strict=True)])
    return list(zip(*sides, strict=True))


def _spans(
    counted: list[Counted], counts: Counter[Counted], times_ms: NDArray[np.int64]
) -> dict[Version, tuple[int, int]]:
    versions = {version_of(each) for each in counts}
    if len(versions) == 1:
        return {versions.pop(): (int(times_ms.min()), int(times_ms.max()))}
    spans: dict[Version, tuple[int, int]] = {}
    for each, time_ms in zip(counted, times_ms.tolist(), strict=True):
        version = version_of(each)
        first, last = spans.get(version, (time_ms, time_ms))
        spans[version] = min(first, time_ms), max(last, time_ms)
    return spans


def _are_ok(counted: list[Counted], counts: Counter[Counted]) -> tuple[Booleans, Booleans]:
    primary, candidate = _STATUSES
    if all(each[primary] == each[candidate] == "ok" for each in counts):
        is_ok = np.ones(len(counted), dtype=np.bool_)
        return is_ok, is_ok
    return (
        np.array([each[primary] == "ok" for each in counted], dtype=np.bool_),
        np.array([each[candidate] == "ok" for each in counted], dtype=np.bool_),
    )


def has_canary(counted: Iterable[Counted]) -> bool:
    """Return whether any of these pairs was made while the candidate had a weight."""
    return any(each[_WEIGHT] for each in counted)


def _tosses(
    columns: Columns, counts: Counter[Counted]
) -> dict[tuple[str, str], list[tuple[Any, Toss]]]:
    """Return what the pairs say of the split; nothing where there is no canary."""
    found: dict[tuple[str, str], list[tuple[Any, Toss]]] = {}
    if columns.units is None or not has_canary(counts):
        return found
    known = {each: toss_of(dict(zip(COUNTED_FIELDS, each, strict=True))) for each in counts}
    # By identity: tuples do not remember their hash, and alike ones are mostly the same.
    by_id = {id(each): toss for each, toss in known.items()}
    for unit, each in zip(columns.units, columns.counted, strict=True):
        place = id(each)
        toss = by_id[place] if place in by_id else known[each]
        if toss is not None:
            key = each[_KEY[0]], each[_KEY[1]]
            found.setdefault(key, []).append((unit, toss))
    return found


def _predicted(columns: Columns, counts: Counter[Counted]) -> list[Predicted]:
    comparators = {each[_COMPARATOR] for each in counts}
    if len(comparators) == 1:
        only = comparators.pop()
        hashes = hashes_of(columns.seqs, columns.times_ms)
        return [Predicted(only, columns.primary, columns.candidate, hashes)]
    found = []
    for comparator in sorted(comparators):
        places = [n for n, each in enumerate(columns.counted) if each[_COMPARATOR] == comparator]
        sides = columns.primary, columns.candidate
        first, second = ([column[n] for n in places] for column in sides)
        hashes = hashes_of(columns.seqs[places], columns.times_ms[places])
        found.append(Predicted(comparator, first, second, hashes))
    return found


def _labelled(columns: Columns, filled: list[Counted]) -> list[Labelled]:
    segments = columns.segments or [_NO_SEGMENTS] * len(filled)
    rows = zip(
        columns.request_ids, columns.primary, columns.candidate, segments, filled, strict=True
    )
    return [
        Labelled(
            request_id, each[_COMPARATOR], primary, candidate, each[_SAMPLE_PROB], segment,
            version_of(each),
        )
        for request_id, primary, candidate, segment, each in rows
    ]  # fmt: skip
