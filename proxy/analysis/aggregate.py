"""One pass over pairs, in memory that does not grow with their number.

Decides which records count (pair records of a known version, each once, inside the selection) and
hands them, in batches, to the `proxy.analysis.tally` of their route and candidate. Aggregates of the
parts of a source add up, so that several processes can read it (`proxy.analysis.parallel`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from proxy.analysis.batch import BadRowError, Batch, Waiting, Wanted, batch_of
from proxy.analysis.judging import DEFAULTS, Judging
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import LabelledTally
from proxy.analysis.rows import KEY_FIELDS, completed, counted_of, fault_of, row_fault, row_of
from proxy.analysis.seen import SeenPairs
from proxy.analysis.source import Record
from proxy.analysis.summary import Selection
from proxy.analysis.tally import PairTally
from proxy.comparison.correctness import TOLERANCE
from proxy.pairs.record import SCHEMA_VERSION

#: Large enough to spread the cost of numpy's calls, small enough to stay in the cache.
BATCH_ROWS: Final = 1024
#: Routes and candidates in one report. Real ones are a handful.
MAX_GROUPS: Final = 256

_KEY_COUNT = len(KEY_FIELDS)


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels, where they came from, and how far off a number may be and still be right."""

    store: LabelStore
    source: str
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked of a reading.

    Attributes:
        selection: which pairs to take.
        judging: how candidates are judged; it says which calls are late.
        labels: to hold predictions against; all have been read.
    """

    selection: Selection = EVERYTHING
    judging: Judging = DEFAULTS
    labels: Labels | None = None


class Group:
    """A candidate of a route: what was counted, and the rows that wait to be."""

    __slots__ = ("labelled", "tally", "waiting", "wanted")

    def __init__(self, worst: int, wanted: Wanted) -> None:
        self.wanted = wanted
        self.tally = PairTally(worst=worst, budget_s=wanted.budget_s)
        self.labelled = LabelledTally()
        self.waiting = Waiting()

    def merge(self, later: Group) -> None:
        """Count everything in `later`, whose pairs come after these in the source."""
        self.tally.merge(later.tally)
        self.labelled.merge(later.labelled)


class Aggregate:
    """The running counts of one reading, or of a part of it.

    Attributes:
        seen: the pairs read.
        groups: what was counted, by route and candidate.
        records, selected, bad, not_tabulated: records read; pairs counted; records that are no
            pairs, with `bad_example`; pairs of candidates beyond `MAX_GROUPS`.
    """

    def __init__(self, reading: Reading, known: SeenPairs | None = None) -> None:
        """Start without pairs; those in `known` count as seen, elsewhere."""
        self.seen = SeenPairs()
        self.groups: dict[tuple[str, str], Group] = {}
        self.records = 0
        self.selected = 0
        self.not_tabulated = 0
        self.bad = 0
        self.bad_example: str | None = None
        self._reading = reading
        self._known = known
        selection = reading.selection
        self._is_everything = selection == Selection(worst=selection.worst)
        self._waiting = 0

    def add(self, record: Record) -> None:
        """Count `record` if it is a pair, new and selected."""
        self.records += 1
        try:
            row = row_of(record)
            counted = counted_of(record)
        except KeyError:
            self._add_incomplete(record)
            return
        version, instance, candidate, seq, route, ts_ms = row[:_KEY_COUNT]
        is_numbered = type(instance) is str and type(seq) is int and 0 <= seq < 2**63
        try:
            if version != SCHEMA_VERSION or not is_numbered:
                self.reject(fault_of(record))
            elif self._is_new(instance, candidate, seq) and (
                self._is_everything or self.is_selected(route, candidate, ts_ms)
            ):
                group = self.group(route, candidate)
                if group is not None:
                    self._enqueue(group, row, counted, record)
        except TypeError:
            self.reject(fault_of(record))

    def merge(self, later: Aggregate) -> None:
        """Count everything in `later`, which is flushed and of what comes next in the source."""
        self.seen.merge(later.seen)
        for key, theirs in later.groups.items():
            mine = self.groups.get(key)
            if mine is not None:
                mine.merge(theirs)
            elif len(self.groups) < MAX_GROUPS:
                self.groups[key] = theirs
            else:
                self.not_tabulated += theirs.tally.pairs
        self.records += later.records
        self.selected += later.selected
        self.not_tabulated += later.not_tabulated
        self.bad += later.bad
        if self.bad_example is None:
            self.bad_example = later.bad_example

    def flush(self) -> None:
        """Count the rows that wait."""
        for group in self.groups.values():
            if group.waiting.rows:
                waiting, group.waiting = group.waiting, Waiting()
                self._count(group, waiting)
        self._waiting = 0

    def group(self, route: Any, candidate: Any) -> Group | None:
        """Return the group of a candidate; None, and counted, where there are too many.

        Raises:
            TypeError: the names are none.
        """
        group = self.groups.get((route, candidate))
        if group is None:
            if not (isinstance(route, str) and isinstance(candidate, str)):
                raise TypeError("a route and a candidate have names")
            if len(self.groups) >= MAX_GROUPS:
                self.not_tabulated += 1
                return None
            wanted = Wanted(
                budget_s=self._reading.judging.budget_of(route, candidate),
                has_labels=self._reading.labels is not None,
            )
            group = Group(self._reading.selection.worst, wanted)
            self.groups[route, candidate] = group
        return group

    def count(self, group: Group, batch: Batch) -> None:
        """Count a batch of a group."""
        group.tally.add(batch)
        labels = self._reading.labels
        if labels is not None:
            group.labelled.add(batch.labelled, group.tally.judged, labels.store, labels.tolerance)
        self.selected += batch.size

    def reject(self, fault: str | None) -> None:
        """Count a record that is no pair, and why."""
        self.bad += 1
        if self.bad_example is None:
            self.bad_example = fault

    def is_selected(self, route: str, candidate: str, ts_ms: int) -> bool:
        """Return whether the selection takes a pair."""
        wanted = self._reading.selection
        return (
            (not wanted.route or route == wanted.route)
            and (not wanted.candidate or candidate == wanted.candidate)
            and (wanted.since_ms is None or ts_ms >= wanted.since_ms)
            and (wanted.until_ms is None or ts_ms < wanted.until_ms)
        )

    def _is_new(self, instance: str, candidate: str, seq: int) -> bool:
        if not self.seen.is_new(instance, candidate, seq):
            return False
        if self._known is None or not self._known.holds(instance, candidate, seq):
            return True
        self.seen.duplicates += 1
        return False

    def _add_incomplete(self, record: Record) -> None:
        """Count a record that leaves out what is not required, such as a narrow Parquet file's."""
        whole = completed(record)
        if whole is None:
            self.reject(fault_of(record))
        else:
            self.records -= 1
            self.add(whole)

    def _enqueue(self, group: Group, row: Any, counted: Any, record: Record) -> None:
        waiting = group.waiting
        if record["equal"] is False and group.tally.worst.takes(record["abs_diff"]):
            waiting.differing.append((len(waiting.rows), record))
        waiting.rows.append(row)
        waiting.counted.append(counted)
        self._waiting += 1
        if self._waiting >= BATCH_ROWS:
            self.flush()

    def _count(self, group: Group, waiting: Waiting) -> None:
        try:
            batch = batch_of(waiting, group.tally.last_versions, group.wanted)
        except BadRowError:
            # Looking at every field costs more than counting, so only a batch that does not
            # count is looked at.
            faults = [*map(row_fault, waiting.rows, waiting.counted)]
            for fault in filter(None, faults):
                self.reject(fault)
            good = waiting.without([fault is not None for fault in faults])
            if not good.rows:
                return
            batch = batch_of(good, group.tally.last_versions, group.wanted)
        self.count(group, batch)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None, "_reading": Reading()}


def add_all(aggregate: Aggregate, records: Iterable[Record]) -> None:
    """Count all `records`."""
    add = aggregate.add
    for record in records:
        add(record)
    aggregate.flush()
