"""What is counted about one candidate of one route, in memory that does not grow with the pairs.

Every distribution is a sketch, every list a bounded counter or a heap, and all of them add up: two
tallies of parts of a source merge into that of the whole. Whether a record belongs here is decided
before, in `proxy.analysis.aggregate`; what is told of it, in `proxy.analysis.comparing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any, Final

from proxy.analysis.batch import Batch, Combination
from proxy.analysis.bounded import BoundedCounter, WorstPairs
from proxy.analysis.judged import Differences, JudgedTally, differences_of
from proxy.analysis.predictions import PredictionTally
from proxy.analysis.rows import CELL_FIELDS, COUNTED_FIELDS, LABEL_FIELDS, STREAM_FIELDS, Counted
from proxy.comparison.evidence import LastVersions
from proxy.comparison.sketch import QuantileSketch

#: Distinct combinations of `CELL_FIELDS`; a few dozen occur.
MAX_CELLS: Final = 10_000
#: Distinct values of a field that may say anything, such as an error text.
MAX_VALUES: Final = 1_000
#: Combinations whose differences are remembered.
_MAX_KNOWN: Final = 10_000
#: Longest error text that is counted, in characters.
ERROR_CHARS: Final = 160

SIDES: Final = ("primary", "candidate")
#: Fields that only failed legs fill.
_ERROR_FIELDS: Final = tuple(f"{side}_error" for side in SIDES)
_FIRST_CELL: Final = COUNTED_FIELDS.index(CELL_FIELDS[0])
_LABEL_PLACES: Final = {name: COUNTED_FIELDS.index(name) for name in LABEL_FIELDS}

Counts = Counter[Hashable]


class PairTally:
    """The running counts of one candidate.

    Attributes:
        pairs: how many were added.
        times_ms: earliest and latest exchange; meaningless without pairs.
        cells: pairs by `CELL_FIELDS`.
        labels: pairs by each of `LABEL_FIELDS`.
        latency_ms, streams: of calls that ended ok, by side, and by field.
        latency_difference_ms: candidate minus primary of the same exchange, both ok.
        predictions, judged: what both sides predicted; the evidence for a verdict.
        last_versions: that answered last.
    """

    def __init__(self, *, worst: int, budget_s: float | None = None) -> None:
        self.pairs = 0
        self.times_ms = (2**63, -(2**63))
        self.cells = BoundedCounter(MAX_CELLS)
        self.labels = {name: BoundedCounter(MAX_VALUES) for name in LABEL_FIELDS}
        self.latency_ms = {side: QuantileSketch() for side in SIDES}
        self.latency_difference_ms = QuantileSketch()
        self.abs_diff = QuantileSketch()
        self.rel_diff = QuantileSketch()
        self.streams: dict[str, QuantileSketch] = {}
        self.predictions = PredictionTally()
        self.judged = JudgedTally()
        self.worst = WorstPairs(worst)
        self.last_versions = LastVersions()
        self._budget_s = budget_s
        self._known: dict[Combination, Differences] = {}

    def add(self, batch: Batch) -> None:
        """Count a batch of this candidate."""
        self.pairs += batch.size
        self._count(batch.counts)
        self._judge(batch)
        self._add_numbers(batch)
        for predicted in batch.predicted:
            self.predictions.add(
                predicted.primary, predicted.candidate, predicted.hashes, predicted.comparator
            )
        for record in batch.differing:
            self.worst.offer(record)

    def merge(self, later: PairTally) -> None:
        """Count everything in `later`, whose pairs come after these in the source."""
        self.pairs += later.pairs
        self.times_ms = _joined(self.times_ms, later.times_ms)
        self.cells.merge(later.cells)
        for name, counter in later.labels.items():
            self.labels[name].merge(counter)
        for side, sketch in later.latency_ms.items():
            self.latency_ms[side].merge(sketch)
        self.latency_difference_ms.merge(later.latency_difference_ms)
        self.abs_diff.merge(later.abs_diff)
        self.rel_diff.merge(later.rel_diff)
        for name, sketch in later.streams.items():
            self.streams.setdefault(name, QuantileSketch()).merge(sketch)
        self.predictions.merge(later.predictions)
        self.judged.merge(later.judged, self.last_versions)
        self.worst.merge(later.worst)
        self.last_versions = later.last_versions.or_else(self.last_versions)

    def _count(self, counts: Counter[Counted]) -> None:
        cells: Counts = Counter()
        labels: dict[str, Counts] = {name: Counter() for name in LABEL_FIELDS}
        for counted, pairs in counts.items():
            cells[counted[_FIRST_CELL : _FIRST_CELL + len(CELL_FIELDS)]] += pairs
            for name, place in _LABEL_PLACES.items():
                value = counted[place]
                if value is not None and name in _ERROR_FIELDS:
                    value = value[:ERROR_CHARS]
                labels[name][value] += pairs
        self.cells.add(cells)
        for name, values in labels.items():
            self.labels[name].add(values)

    def _judge(self, batch: Batch) -> None:
        for combination, pairs in batch.combinations.items():
            differences = self._known.get(combination)
            if differences is None:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                differences = differences_of(combination.fields(), self._budget_s)
                self._known[combination] = differences
            self.judged.of(combination.version).add(differences, combination.segments, pairs)
        for key, tosses in batch.tosses.items():
            keys = self.judged.split_of(key)
            for unit_hash, toss in tosses:
                keys.note(unit_hash, toss)
        for version, (first_ms, last_ms) in batch.spans.items():
            self.judged.of(version).note_span(first_ms, last_ms)
            self.times_ms = _joined(self.times_ms, (first_ms, last_ms))

    def _add_numbers(self, batch: Batch) -> None:
        numbers = batch.numbers
        is_ok = dict(zip(SIDES, batch.is_ok, strict=True))
        for side in SIDES:
            self.latency_ms[side].add(numbers[f"{side}_latency_ms"][is_ok[side]])
        both = is_ok["primary"] & is_ok["candidate"]
        difference = numbers["candidate_latency_ms"][both] - numbers["primary_latency_ms"][both]
        self.latency_difference_ms.add(difference)
        self.abs_diff.add(numbers["abs_diff"])
        self.rel_diff.add(numbers["rel_diff"])
        for name in STREAM_FIELDS:
            if name in numbers:
                self.streams.setdefault(name, QuantileSketch()).add(numbers[name])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}


def _joined(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return min(first[0], second[0]), max(first[1], second[1])
