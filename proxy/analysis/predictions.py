"""What both sides predicted, pair by pair: numbers or labels, counted in bounded memory.

Decides what a prediction is: a list of one means what is in it; where the comparator is `numeric`, or
the prediction a fraction, it is a number (of a vector: each of its numbers); of a vector of scores it
is the label of the greatest; else what is short is a label. Embeddings and long texts are neither.
Columns of one type, which is what models answer, are taken at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.analysis.bounded import BoundedCounter
from proxy.analysis.coded import Coded, combined
from proxy.comparison.sketch import Floats, QuantileSketch

#: Pairs of labels that are told apart.
MAX_LABEL_PAIRS: Final = 2_000
#: Longest label, in characters of its JSON.
LABEL_CHARS: Final = 40
#: Longest vector whose numbers are taken one by one.
MAX_NUMBERS: Final = 64
#: Pairs of numbers that are kept for a plot, each as likely as any other.
MAX_POINTS: Final = 512

_NUMBERS: Final = frozenset({int, float})
_SCALARS: Final = frozenset({int, float, str, bool})

Hashes = NDArray[np.uint64]


class Paired(NamedTuple):
    """The predictions of a batch that both sides made, one below the other.

    Attributes:
        numbers: primary, candidate and hash of each pair, shape `(n,)`; None without numbers.
        labels: pairs by both labels, as JSON.
    """

    numbers: tuple[Floats, Floats, Hashes] | None
    labels: Counter[tuple[str, str]]


class PredictionTally:
    """The predictions of one candidate and its primary."""

    def __init__(self) -> None:
        self.numbers = NumberTally()
        self.labels = BoundedCounter(MAX_LABEL_PAIRS)

    def add(self, primary: Coded, candidate: Coded, hashes: Hashes, comparator: str) -> None:
        """Count predictions; those of a pair in which a side made none are left out.

        Args:
            primary: as recorded.
            candidate: likewise, of the same length.
            hashes: of the pairs, evenly spread; they choose what is kept of many.
            comparator: of all these pairs.
        """
        found = paired(primary, candidate, hashes, comparator)
        if found.numbers is not None:
            self.numbers.add(*found.numbers)
        self.labels.add(found.labels)

    def merge(self, other: PredictionTally) -> None:
        """Count everything that `other` has counted."""
        self.numbers.merge(other.numbers)
        self.labels.merge(other.labels)


class NumberTally:
    """Pairs of numbers: both distributions, the moments of the difference, and a sample of pairs.

    Attributes:
        pairs: how many were added.
        mean_diff: of candidate minus primary.
        squares: sum of the squared deviations from it.
        primary, candidate: either distribution.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.mean_diff = 0.0
        self.squares = 0.0
        self.primary = QuantileSketch()
        self.candidate = QuantileSketch()
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._points: Floats = np.empty((0, 2))

    def add(self, primary: Floats, candidate: Floats, hashes: Hashes) -> None:
        """Count pairs; those that are not finite are left out."""
        is_finite = np.isfinite(primary) & np.isfinite(candidate)
        if not is_finite.all():
            primary, candidate, hashes = primary[is_finite], candidate[is_finite], hashes[is_finite]
        if not primary.size:
            return
        self.primary.add(primary)
        self.candidate.add(candidate)
        differences = candidate - primary
        mean = float(differences.mean())
        self._add_moments(primary.size, mean, float(((differences - mean) ** 2).sum()))
        if self._hashes.size == MAX_POINTS:
            is_kept = hashes < self._hashes[-1]
            primary, candidate, hashes = primary[is_kept], candidate[is_kept], hashes[is_kept]
        if hashes.size:
            means = (primary + candidate) / 2
            self._keep(hashes, np.stack([means, candidate - primary], axis=1))

    def merge(self, other: NumberTally) -> None:
        """Count everything that `other` has counted."""
        self.primary.merge(other.primary)
        self.candidate.merge(other.candidate)
        self._add_moments(other.pairs, other.mean_diff, other.squares)
        self._keep(other._hashes, other._points)

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation of the differences; None for fewer than two."""
        return math.sqrt(self.squares / (self.pairs - 1)) if self.pairs > 1 else None

    def points(self) -> list[tuple[float, float]]:
        """Return the mean and the difference of the kept pairs, in the order of their hashes."""
        return [(float(mean), float(difference)) for mean, difference in self._points]

    def _add_moments(self, pairs: int, mean: float, squares: float) -> None:
        """Add moments (Chan, Golub and LeVeque, 1979), exact but for rounding in any split."""
        total = self.pairs + pairs
        if not pairs:
            return
        delta = mean - self.mean_diff
        self.squares += squares + delta * delta * self.pairs * pairs / total
        self.mean_diff += delta * pairs / total
        self.pairs = total

    def _keep(self, hashes: Hashes, points: Floats) -> None:
        """Keep the pairs with the least hashes: the same ones however the source was split."""
        hashes = np.concatenate([self._hashes, hashes])
        points = np.concatenate([self._points, points])
        order = np.argsort(hashes, kind="stable")[:MAX_POINTS]
        self._hashes, self._points = hashes[order], points[order]


def hashes_of(numbers: NDArray[np.int64], times_ms: NDArray[np.int64]) -> Hashes:
    """Return a hash of each pair by its number and time (splitmix64's finalizer, S. Vigna)."""
    mixed = numbers.astype(np.uint64) + times_ms.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Hashes = mixed ^ (mixed >> np.uint64(31))
    return found


def paired(primary: Coded, candidate: Coded, hashes: Hashes, comparator: str) -> Paired:
    """Return what `primary` and `candidate` predict where both do; see `PredictionTally.add`."""
    if comparator == "vector":
        return Paired(None, Counter())
    is_made = primary.where(_is_made) & candidate.where(_is_made)
    if not is_made.all():
        rows = np.flatnonzero(is_made)
        primary, candidate, hashes = primary.at(rows), candidate.at(rows), hashes[rows]
    primary, candidate = _unwrapped(primary.in_use()), _unwrapped(candidate.in_use())
    types = {*map(type, primary.values), *map(type, candidate.values)}
    if not types:
        return Paired(None, Counter())
    is_numeric = comparator == "numeric"
    if types <= _NUMBERS and (is_numeric or (float in types and comparator != "label")):
        first, second = (_floats(side.values)[side.codes] for side in (primary, candidate))
        return Paired((first, second, hashes), Counter())
    if types <= _SCALARS and not is_numeric:
        return Paired(None, _as_json(combined([primary, candidate])))
    first_rows, second_rows = primary.rows(), candidate.rows()
    if types == {list}:
        found = _of_vectors(first_rows, second_rows, hashes, is_numeric=is_numeric)
        if found is not None:
            return found
    return _one_by_one(first_rows, second_rows, hashes, is_numeric=is_numeric)


def _is_made(prediction: Any) -> bool:
    return prediction is not None


def _floats(values: Sequence[Any]) -> Floats:
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # integers of JSON have no end
        return np.array([_float(value) for value in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _unwrapped(column: Coded) -> Coded:
    values = column.values
    while values and {*map(type, values)} == {list} and {*map(len, values)} == {1}:
        values = [value[0] for value in values]
    return Coded(column.codes, values)


def _of_vectors(
    primary: Sequence[Any], candidate: Sequence[Any], hashes: Hashes, *, is_numeric: bool
) -> Paired | None:
    """Return what vectors of one length predict; None where they are not that."""
    lengths = {*map(len, primary), *map(len, candidate)}
    if len(lengths) > 1 or not lengths <= {*range(1, MAX_NUMBERS + 1)}:
        return None
    try:
        first, second = np.array(primary), np.array(candidate)
    except (ValueError, OverflowError):
        return None
    if first.ndim != 2 or second.ndim != 2 or {first.dtype.kind, second.dtype.kind} - {*"if"}:
        return None
    if is_numeric:
        places = np.arange(first.shape[1], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        numbers = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
        return Paired((*numbers, (hashes[:, np.newaxis] ^ places).ravel()), Counter())
    if _has_whole_rows(first) or _has_whole_rows(second):
        return None
    labels = [Coded(side.argmax(axis=1), range(side.shape[1])) for side in (first, second)]
    return Paired(None, _as_json(combined([side.in_use() for side in labels])))


def _has_whole_rows(vectors: NDArray[Any]) -> bool:
    """Return whether any row holds whole numbers alone, which are no scores."""
    return bool((vectors == np.rint(vectors)).all(axis=1).any())


def _one_by_one(
    primary: Sequence[Any], candidate: Sequence[Any], hashes: Hashes, *, is_numeric: bool
) -> Paired:
    """Return what predictions of many kinds say; those that are no numbers or labels are left."""
    if is_numeric:
        both = [(n, single(p), single(candidate[n])) for n, p in enumerate(primary)]
        usable = [each for each in both if {type(each[1]), type(each[2])} <= _NUMBERS]
        first, second = ([each[side] for each in usable] for side in (1, 2))
        kept = hashes[[each[0] for each in usable]] if usable else hashes[:0]
        return Paired((_floats(first), _floats(second), kept), Counter())
    labels: Counter[tuple[str, str]] = Counter()
    for p, c in zip(primary, candidate, strict=True):
        names = label_of(p), label_of(c)
        if names[0] is not None and names[1] is not None:
            labels[names[0], names[1]] += 1
    return Paired(None, labels)


def _as_json(labels: Coded) -> Counter[tuple[str, str]]:
    """Return pairs by both labels, of a column of the two."""
    found: Counter[tuple[str, str]] = Counter()
    sizes = np.bincount(labels.codes, minlength=len(labels.values)).tolist()
    for (primary, candidate), pairs in zip(labels.values, sizes, strict=True):
        names = label_of(primary), label_of(candidate)
        if names[0] is not None and names[1] is not None:
            found[names[0], names[1]] += pairs
    return found


def single(value: Any) -> Any:
    """Return what is in a list of one, however deep; anything else as it is."""
    while type(value) is list and len(value) == 1:
        value = value[0]
    return value


def label_of(prediction: object) -> str | None:
    """Return the label that a prediction means, as JSON; None where it is no single, short one."""
    prediction = single(prediction)
    if type(prediction) is list:
        prediction = greatest(prediction)
    if prediction is None or isinstance(prediction, list | dict):
        return None
    text = orjson.dumps(prediction).decode()
    return text if len(text) <= LABEL_CHARS else None


def greatest(scores: list[Any]) -> int | None:
    """Return the label that a vector of scores means, as the `label` comparator reads it."""
    if not scores or not {*map(type, scores)} <= _NUMBERS:
        return None
    if all(float(score).is_integer() for score in scores):
        return None
    return scores.index(max(scores))
