"""Some hundred pairs of one candidate, on their way to the tallies: counted, or as columns.

What has few values comes as counts of combinations, what is a number as an array; so a tally does its
work once for each combination or column, not for each pair. Batches are made of rows here, and of
Parquet's columns in `proxy.analysis.columnar`; what tallies get is the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.coded import Booleans, Coded, coded, combined, uncoded
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
from proxy.analysis.tosses import Tosses, tosses_of
from proxy.comparison.evidence import LastVersions
from proxy.comparison.sketch import Floats

_PLACES: Final = {name: place for place, name in enumerate(COUNTED_FIELDS)}
COMPARATOR: Final = _PLACES["comparator"]
SAMPLE_PROB: Final = _PLACES["sample_prob"]
_STATUSES: Final = (_PLACES["primary_status"], _PLACES["candidate_status"])
_KEY: Final = (_PLACES["experiment_id"], _PLACES["config_version"])


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
    primary: Coded
    candidate: Coded
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
        to_label: the pairs, to look labels up for; None where there are none.
        tosses: what pairs say of the split.
    """

    size: int
    counts: Counter[Counted]
    combinations: Counter[Combination]
    spans: dict[Version, tuple[int, int]]
    numbers: dict[str, Floats]
    is_ok: tuple[Booleans, Booleans]
    predicted: list[Predicted]
    differing: list[Record] = field(default_factory=list)
    to_label: ToLabel | None = None
    tosses: Tosses = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToLabel:
    """What of pairs is held against their labels.

    Attributes:
        request_ids: of each pair.
        counted: the values of `rows.COUNTED_FIELDS`, calls that name no version filled in.
        primary, candidate: predictions.
        segments: sorted.
    """

    request_ids: Sequence[Any]
    counted: Coded
    primary: Coded
    candidate: Coded
    segments: Coded


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
        counted: the values of `rows.COUNTED_FIELDS`; the fewer distinct ones, the faster.
        seqs, times_ms: shape `(n,)`.
        numbers: as in `Batch`.
        segments: None where no pair has any.
        primary, candidate: predictions.
        request_ids: needed where there are labels.
        units: hashes of the split keys; None where no pair `has_canary`.
        differing: as in `Batch`.
    """

    counted: Coded
    seqs: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    numbers: dict[str, Floats]
    segments: Coded | None
    primary: Coded
    candidate: Coded
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
            counted=coded(waiting.counted),
            seqs=np.array(columns["seq"], dtype=np.int64),
            times_ms=np.array(columns["ts_ms"], dtype=np.int64),
            numbers=_numbers(columns),
            segments=_segments(columns["segments"]),
            primary=uncoded(columns["primary_prediction"]),
            candidate=uncoded(columns["candidate_prediction"]),
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
    counted = columns.counted.in_use()
    for each in counted.values:
        fault = counted_fault(each)
        if fault is not None:
            raise BadRowError(fault)
    filled, moved = _with_versions(counted, last)
    batch = Batch(
        size=counted.codes.size,
        counts=counted.counts(),
        combinations=_combinations(filled, columns, wanted.budget_s),
        spans=_spans(filled, columns.times_ms),
        numbers=columns.numbers,
        is_ok=_are_ok(counted),
        predicted=_predicted(columns, counted),
        differing=columns.differing,
        tosses=tosses_of(columns.units, counted),
    )
    if wanted.has_labels:
        ids, segments = columns.request_ids, columns.segments or _all_alike(filled, _NO_SEGMENTS)
        batch.to_label = ToLabel(ids, filled, columns.primary, columns.candidate, segments)
    last.primary, last.candidate = moved
    return batch


_NO_SEGMENTS: Final[Segments] = ()
_UNKNOWN: Final = (None, None)
#: Whether both calls were late, by code: 3 times that of the primary's, and the candidate's.
_LATE: Final = tuple((one, other) for one in (False, True, None) for other in (False, True, None))


def _numbers(columns: Mapping[str, tuple[Any, ...]]) -> dict[str, Floats]:
    names = [*NUMBER_FIELDS]
    names += [name for name in STREAM_FIELDS if columns[name].count(None) < len(columns[name])]
    return {name: np.array(columns[name], dtype=np.float64) for name in names}


def _segments(column: Sequence[Mapping[str, str] | None]) -> Coded | None:
    """Return the segments of each pair; None where no pair has any."""
    if not any(column):
        return None
    return coded([tuple(sorted(each.items())) if each else _NO_SEGMENTS for each in column])


def _with_versions(
    counted: Coded, last: LastVersions
) -> tuple[Coded, tuple[str | None, str | None]]:
    """Return `counted` with the last version known where a call names none, and the last ones."""
    before = last.primary, last.candidate
    if {each[:2] for each in counted.values} == {before}:
        return counted, before
    sides = [_filled(counted, side, name) for side, name in enumerate(before)]
    moved = sides[0].rows()[-1], sides[1].rows()[-1]
    if all(each[0] and each[1] for each in counted.values):
        return counted, moved
    joined = combined([counted, *(side.in_use() for side in sides)])
    return Coded(joined.codes, [(*names, *each[2:]) for each, *names in joined.values]), moved


def _filled(counted: Coded, side: int, before: str | None) -> Coded:
    """Return the version of each row's call on one side, the last one known where it names none."""
    is_named = counted.where(lambda each: bool(each[side]))
    # Of each row the number of the last one so far that names one, from 1; 0: `before`.
    named = np.where(is_named, np.arange(1, is_named.size + 1), 0)
    np.maximum.accumulate(named, out=named)
    codes = np.concatenate(([0], counted.codes + 1))[named]
    return Coded(codes, [before, *(each[side] for each in counted.values)])


def _combinations(filled: Coded, columns: Columns, budget_s: float | None) -> Counter[Combination]:
    segments, late = columns.segments, None
    if budget_s is not None:
        late = _late(columns.numbers, budget_s).in_use()
    if segments is None and late is None:
        return Counter({Combination(each, (), _UNKNOWN): n for each, n in filled.counts().items()})
    parts = [
        filled,
        _all_alike(filled, _NO_SEGMENTS) if segments is None else segments.in_use(),
        _all_alike(filled, _UNKNOWN) if late is None else late,
    ]
    found: Counter[Combination] = Counter()
    for each, pairs in combined(parts).counts().items():
        found[Combination(*each)] += pairs
    return found


def _all_alike(column: Coded, value: Any) -> Coded:
    """Return a column, as long as `column`, of one value."""
    return Coded(np.zeros(column.codes.size, dtype=np.int64), [value])


def _late(numbers: dict[str, Floats], budget_s: float) -> Coded:
    """Return whether the primary's and the candidate's call were late; None: not known."""
    primary, candidate = (
        np.where(np.isnan(latency_ms), 2, latency_ms > budget_s * 1000.0)
        for latency_ms in (numbers[f"{side}_latency_ms"] for side in ("primary", "candidate"))
    )
    return Coded((3 * primary + candidate).astype(np.int64), _LATE)


def _spans(filled: Coded, times_ms: NDArray[np.int64]) -> dict[Version, tuple[int, int]]:
    versions = [version_of(each) for each in filled.values]
    if len({*versions}) == 1:
        return {versions[0]: (int(times_ms.min()), int(times_ms.max()))}
    spans: dict[Version, tuple[int, int]] = {}
    for code, version in enumerate(versions):
        times = times_ms[filled.codes == code]
        earliest, latest = int(times.min()), int(times.max())
        first, last = spans.get(version, (earliest, latest))
        spans[version] = min(first, earliest), max(last, latest)
    return spans


def _are_ok(counted: Coded) -> tuple[Booleans, Booleans]:
    primary, candidate = _STATUSES
    return (
        counted.where(lambda each: each[primary] == "ok"),
        counted.where(lambda each: each[candidate] == "ok"),
    )


def _predicted(columns: Columns, counted: Coded) -> list[Predicted]:
    hashes = hashes_of(columns.seqs, columns.times_ms)
    comparators = {each[COMPARATOR] for each in counted.values}
    if len(comparators) == 1:
        return [Predicted(comparators.pop(), columns.primary, columns.candidate, hashes)]
    found = []
    for name in sorted(comparators):
        is_such = np.array([each[COMPARATOR] == name for each in counted.values])
        rows = np.flatnonzero(is_such[counted.codes])
        sides = columns.primary.at(rows), columns.candidate.at(rows)
        found.append(Predicted(name, *sides, hashes[rows]))
    return found
