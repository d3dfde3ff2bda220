"""What is counted about one candidate of one route, in memory that does not grow with the pairs.

Every distribution is a sketch, every list a bounded counter or a heap. Whether a record belongs
here is decided before, in `proxy.analysis.aggregate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.analysis.bounded import OTHER, BoundedCounter, WorstPairs
from proxy.analysis.rows import CELL_FIELDS, LABEL_FIELDS, NUMBER_FIELDS, Columns, Row
from proxy.analysis.sources import Record
from proxy.analysis.summary import (
    Comparison,
    Confusion,
    Correctness,
    Leg,
    Quantiles,
    proportion,
)
from proxy.analysis.wording import headline
from proxy.comparison.sketch import Floats, QuantileSketch

#: Distinct combinations of the fields in `_CELL`; a few dozen occur.
MAX_CELLS: Final = 10_000
#: Distinct values of a field that may say anything, such as an error text.
MAX_VALUES: Final = 1_000
#: How many of them are reported.
TOP: Final = 10
#: Longest label and error text that are counted, in characters.
LABEL_CHARS: Final = 40
ERROR_CHARS: Final = 160

#: Legs that were tried and failed. Shed, cancelled and unsent legs are nobody's failure.
FAILED: Final = frozenset({"http_error", "timeout", "connect_error", "reset"})

_SIDES: Final = ("primary", "candidate")
#: Fields that only failed legs fill.
_ERROR_FIELDS: Final = tuple(f"{side}_error" for side in _SIDES)

Counts = Counter[Hashable]


class BadRowError(ValueError):
    """A batch holds a value of a wrong type; nothing of the batch was counted."""


class PairTally:
    """The running counts of one candidate.

    Attributes:
        pairs: how many were added.
    """

    def __init__(self, *, worst: int) -> None:
        self.pairs = 0
        self._times_ms: list[int] = []
        self._cells = BoundedCounter(MAX_CELLS)
        self._labels = {name: BoundedCounter(MAX_VALUES) for name in LABEL_FIELDS}
        self._latency = {side: QuantileSketch() for side in _SIDES}
        self._latency_difference = QuantileSketch()
        self._abs_diff = QuantileSketch()
        self._rel_diff = QuantileSketch()
        self._confusion = BoundedCounter(MAX_VALUES)
        self._worst = WorstPairs(worst)

    def add(self, rows: list[Row], differing: list[Record]) -> None:
        """Count pairs of this candidate, at least one.

        Args:
            rows: one for each pair.
            differing: the whole records of those whose `equal` is false.

        Raises:
            BadRowError: a value has a wrong type; nothing was counted.
        """
        columns = Columns(rows)
        try:
            cells: Counts = Counter(zip(*(columns[name] for name in CELL_FIELDS), strict=True))
            labels: dict[str, Counts] = {name: Counter(columns[name]) for name in LABEL_FIELDS}
            numbers = {name: np.array(columns[name], dtype=np.float64) for name in NUMBER_FIELDS}
            times = [*self._times_ms, *columns["ts_ms"]]
            self._times_ms = [min(times), max(times)]
        except (TypeError, ValueError, OverflowError) as exc:
            raise BadRowError(repr(exc)) from exc
        self.pairs += len(rows)
        self._cells.add(cells)
        for name, counts in labels.items():
            self._labels[name].add(_shortened(counts) if name in _ERROR_FIELDS else counts)
        self._add_numbers(numbers, columns)
        for record in differing:
            self._worst.offer(record)
        confused = map(_confused, differing)
        self._confusion.add(Counter(pair for pair in confused if pair is not None))

    def comparison(
        self, route: str, candidate: str, correctness: Correctness | None = None
    ) -> Comparison:
        """Return what has been counted so far, under the names given, and what labels say of it."""
        cells = _Cells(self._cells.ranked(MAX_CELLS + 1))
        is_comparable = cells.where("comparable", value=True)
        agreement = proportion(is_comparable.count("equal", value=True), is_comparable.total)
        repeated, noisy = (cells.count("replicate_equal", value=v) for v in (True, False))
        legs = {side: self._leg(side, cells) for side in _SIDES}
        return Comparison(
            route=route,
            candidate=candidate,
            headline=headline(
                f"{route}/{candidate}",
                self.pairs,
                agreement,
                legs["primary"],
                legs["candidate"],
                correctness,
            ),
            pairs=self.pairs,
            first_ts_ms=self._times_ms[0],
            last_ts_ms=self._times_ms[1],
            modes=cells.by("mode"),
            served_by=cells.by("served_by"),
            rescued=cells.count("rescued", value=True),
            comparators=cells.by("comparator"),
            agreement=agreement,
            self_agreement=proportion(repeated, repeated + noisy),
            not_comparable=cells.where("comparable", value=False).by("not_comparable_reason"),
            primary_leg=legs["primary"],
            candidate_leg=legs["candidate"],
            latency_difference_ms=_quantiles(self._latency_difference),
            abs_diff=_quantiles(self._abs_diff),
            rel_diff=_quantiles(self._rel_diff),
            confusion=tuple(
                Confusion(key[0], key[1], pairs)
                for key, pairs in self._confusion.ranked(TOP + 1)
                if key != OTHER
            )[:TOP],
            worst=self._worst.ranked(),
            config_versions=self._labels["config_version"].top(TOP),
            experiments=self._labels["experiment_id"].top(TOP),
            sample_probabilities=self._labels["sample_prob"].top(TOP),
            correctness=correctness,
        )

    def _add_numbers(self, numbers: dict[str, Floats], columns: Columns) -> None:
        primary_ms, candidate_ms = numbers["primary_latency_ms"], numbers["candidate_latency_ms"]
        is_primary_ok = _equals(columns["primary_status"], "ok")
        is_candidate_ok = _equals(columns["candidate_status"], "ok")
        both = is_primary_ok & is_candidate_ok
        self._latency["primary"].add(primary_ms[is_primary_ok])
        self._latency["candidate"].add(candidate_ms[is_candidate_ok])
        self._latency_difference.add(candidate_ms[both] - primary_ms[both])
        self._abs_diff.add(numbers["abs_diff"])
        self._rel_diff.add(numbers["rel_diff"])

    def _leg(self, side: str, cells: _Cells) -> Leg:
        statuses = cells.by(f"{side}_status")
        failed = sum(statuses.get(status, 0) for status in FAILED)
        return Leg(
            statuses=statuses,
            http_statuses=cells.by(f"{side}_http_status"),
            errors=proportion(failed, failed + statuses.get("ok", 0)),
            top_errors=self._labels[f"{side}_error"].top(TOP),
            latency_ms=_quantiles(self._latency[side]),
            truncated_bodies=cells.count(f"{side}_body_state", value="truncated"),
            model_versions=self._labels[f"{side}_model_version"].top(TOP),
        )


class _Cells:
    """Counts by combination of fields, to be asked by one field at a time."""

    def __init__(self, cells: Iterable[tuple[Any, int]]) -> None:
        # OTHER, the one key that is no tuple, stands for combinations beyond the limit.
        self._cells = [(cell, count) for cell, count in cells if cell != OTHER]
        self.total = sum(count for _, count in self._cells)

    def where(self, name: str, *, value: object) -> _Cells:
        index = CELL_FIELDS.index(name)
        return _Cells(item for item in self._cells if item[0][index] is value)

    def count(self, name: str, *, value: object) -> int:
        index = CELL_FIELDS.index(name)
        return sum(count for cell, count in self._cells if cell[index] == value)

    def by(self, name: str) -> dict[str, int]:
        index = CELL_FIELDS.index(name)
        counts: Counter[str] = Counter()
        for cell, count in self._cells:
            if cell[index] is not None:
                counts[str(cell[index])] += count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _equals(values: Sequence[object], value: object) -> NDArray[np.bool_]:
    return np.array([each == value for each in values], dtype=np.bool_)


def _shortened(counts: Counts) -> Counts:
    short: Counts = Counter()
    for key, count in counts.items():
        short[str(key)[:ERROR_CHARS] if key is not None else None] += count
    return short


def _quantiles(sketch: QuantileSketch) -> Quantiles:
    has_values = sketch.count > 0
    return Quantiles(
        count=sketch.count,
        mean=sketch.mean(),
        minimum=sketch.minimum if has_values else None,
        p50=sketch.quantile(0.5),
        p90=sketch.quantile(0.9),
        p99=sketch.quantile(0.99),
        maximum=sketch.maximum if has_values else None,
    )


def _confused(record: Record) -> tuple[str, str] | None:
    """Return both labels as JSON, or None when a side holds no single, short label."""
    if record["comparator"] == "numeric":
        return None
    primary = _label(record.get("primary_prediction"))
    candidate = _label(record.get("candidate_prediction"))
    return None if primary is None or candidate is None else (primary, candidate)


def _label(prediction: object) -> str | None:
    while type(prediction) is list and len(prediction) == 1:
        prediction = prediction[0]
    if type(prediction) is list:
        prediction = _argmax(prediction)
    if prediction is None or isinstance(prediction, list | dict):
        return None
    text = orjson.dumps(prediction).decode()
    return text if len(text) <= LABEL_CHARS else None


def _argmax(scores: list[Any]) -> int | None:
    """Return the label that a vector of scores means, as the `label` comparator reads it."""
    if not scores or not {*map(type, scores)} <= {int, float}:
        return None
    if all(float(score).is_integer() for score in scores):
        return None
    return scores.index(max(scores))
