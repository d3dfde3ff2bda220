"""One pass over pairs, in memory that does not grow with their number.

Decides which records count (pair records of a known version, each once, inside the selection) and
hands them, in batches, to the `proxy.analysis.tally` of their route and candidate. Aggregates of the
parts of a source add up, so that several processes can read it (`proxy.analysis.parallel`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.batch import BadRowError, Columns, Waiting, Wanted, batch_of, columns_of
from proxy.analysis.judging import DEFAULTS, Judging
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import LabelledTally
from proxy.analysis.rows import (
    CANDIDATE,
    INSTANCE,
    ROUTE,
    SEQ,
    TS_MS,
    Place,
    are_sound,
    completed,
    counted_of,
    fault_of,
    place_fault,
    place_of,
    row_fault,
    row_of,
)
from proxy.analysis.seen import SeenPairs
from proxy.analysis.source import Record
from proxy.analysis.summary import Selection
from proxy.analysis.tally import PairTally
from proxy.comparison.correctness import TOLERANCE

#: Large enough to spread the cost of numpy's calls, small enough to stay in the cache.
BATCH_ROWS: Final = 1024
#: Distinct tuples that are remembered to be the same.
MAX_ALIKE: Final = 20_000
#: Routes and candidates in one report. Real ones are a handful.
MAX_GROUPS: Final = 256


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
        self._places: list[Place] = []
        self._alike: dict[Any, Any] = {}
        self._same = self._alike.setdefault
        self._arrived = Waiting()

    def add(self, record: Record) -> None:
        """Count `record` if it is a pair, new and selected; at the latest when flushed."""
        self.records += 1
        try:
            place, row, counted = place_of(record), row_of(record), counted_of(record)
            # One tuple for all alike, while their strings are in the cache: counting a thousand of
            # them later, each with strings of its own, took twice as long.
            place, counted = self._same(place, place), self._same(counted, counted)
        except KeyError:
            self._add_incomplete(record)
            return
        except TypeError:
            self.reject(fault_of(record))
            return
        if record["equal"] is False and self._may_be_worst(record):
            self._arrived.differing.append((len(self._places), record))
        self._places.append(place)
        self._arrived.rows.append(row)
        self._arrived.counted.append(counted)
        if len(self._places) >= BATCH_ROWS:
            self._take()

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
        """Count all that waits."""
        self._take()
        for group in self.groups.values():
            self._count_waiting(group)

    def group(self, route: str, candidate: str, pairs: int) -> Group | None:
        """Return the group of a candidate; where there are too many, None, and count its `pairs`."""
        group = self.groups.get((route, candidate))
        if group is None:
            if len(self.groups) >= MAX_GROUPS:
                self.not_tabulated += pairs
                return None
            wanted = Wanted(
                budget_s=self._reading.judging.budget_of(route, candidate),
                has_labels=self._reading.labels is not None,
            )
            group = Group(self._reading.selection.worst, wanted)
            self.groups[route, candidate] = group
        return group

    def count(self, group: Group, columns: Columns) -> None:
        """Count pairs of a group.

        Raises:
            BadRowError: a value has a wrong type; nothing was counted.
        """
        batch = batch_of(columns, group.tally.last_versions, group.wanted)
        group.tally.add(batch)
        labels = self._reading.labels
        if labels is not None and batch.to_label is not None:
            group.labelled.add(batch.to_label, group.tally.judged, labels.store, labels.tolerance)
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

    @property
    def has_labels(self) -> bool:
        """Return whether predictions are held against labels."""
        return self._reading.labels is not None

    def are_selected(
        self, route: str, candidate: str, times_ms: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which pairs of one candidate the selection takes, shape `(n,)`."""
        wanted = self._reading.selection
        since_ms = -(2**63) if wanted.since_ms is None else wanted.since_ms
        until_ms = 2**63 - 1 if wanted.until_ms is None else wanted.until_ms
        is_candidate = (wanted.route or route, wanted.candidate or candidate) == (route, candidate)
        found: NDArray[np.bool_] = (times_ms >= since_ms) & (times_ms < until_ms) & is_candidate
        return found

    def new_among(
        self, instance: str, candidate: str, numbers: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Note pairs of one instance and candidate; return which are new here and elsewhere."""
        is_new = self.seen.new_among(instance, candidate, numbers)
        if self._known is not None:
            holds = self._known.holds
            is_known = [holds(instance, candidate, int(number)) for number in numbers]
            self.seen.duplicates += int((is_new & is_known).sum())
            is_new &= ~np.array(is_known, dtype=np.bool_)
        return is_new

    def _may_be_worst(self, record: Record) -> bool:
        try:
            group = self.groups.get((record["route"], record["candidate"]))
        except TypeError:
            return False
        return group is None or group.tally.worst.takes(record["abs_diff"])

    def _add_incomplete(self, record: Record) -> None:
        """Count a record that leaves out what is not required, such as a narrow Parquet file's."""
        whole = completed(record)
        if whole is None:
            self.reject(fault_of(record))
        else:
            self.records -= 1
            self.add(whole)

    def _take(self) -> None:
        """Hand the pairs that have arrived and count to their groups; count groups with enough."""
        places, arrived = self._places, self._arrived
        self._places, self._arrived = [], Waiting()
        self._renew_alike()
        if not places:
            return
        if not are_sound({*places}, *arrived.column(SEQ, TS_MS)):
            places, arrived = self._sound(places, arrived)
        is_new = self._are_new(places, arrived)
        for (route, candidate), numbers in _numbers_by(places, ROUTE, CANDIDATE).items():
            taken = [n for n in numbers if is_new[n]]
            if not self._is_everything:
                rows = arrived.rows
                taken = [n for n in taken if self.is_selected(route, candidate, rows[n][TS_MS])]
            group = self.group(route, candidate, len(taken)) if taken else None
            if group is not None:
                group.waiting.extend(arrived if len(taken) == len(places) else arrived.only(taken))
                if len(group.waiting.rows) >= BATCH_ROWS:
                    self._count_waiting(group)

    def _renew_alike(self) -> None:
        """Forget tuples that were seen, when there are too many."""
        if len(self._alike) > MAX_ALIKE:
            self._alike = {}
            self._same = self._alike.setdefault

    def _sound(self, places: list[Place], arrived: Waiting) -> tuple[list[Place], Waiting]:
        """Return what can be counted, and count what cannot."""
        faults = [
            place_fault(place, row[SEQ], row[TS_MS])
            for place, row in zip(places, arrived.rows, strict=True)
        ]
        for fault in filter(None, faults):
            self.reject(fault)
        sound = [number for number, fault in enumerate(faults) if fault is None]
        return [places[number] for number in sound], arrived.only(sound)

    def _are_new(self, places: list[Place], arrived: Waiting) -> list[bool]:
        """Note pairs and return which of them are new."""
        is_new = np.ones(len(places), dtype=np.bool_)
        for (instance, candidate), numbers in _numbers_by(places, INSTANCE, CANDIDATE).items():
            seqs = np.array([arrived.rows[number][SEQ] for number in numbers], dtype=np.int64)
            is_new[numbers] = self.new_among(instance, candidate, seqs)
        found: list[bool] = is_new.tolist()
        return found

    def _count_waiting(self, group: Group) -> None:
        waiting, group.waiting = group.waiting, Waiting()
        if not waiting.rows:
            return
        try:
            self.count(group, columns_of(waiting))
        except BadRowError:
            # Looking at every field costs more than counting, so only a batch that does not
            # count is looked at.
            faults = [*map(row_fault, waiting.rows, waiting.counted)]
            for fault in filter(None, faults):
                self.reject(fault)
            good = waiting.only([place for place, fault in enumerate(faults) if fault is None])
            if good.rows:
                self.count(group, columns_of(good))

    def __getstate__(self) -> dict[str, Any]:
        """Return what was counted; an aggregate that was sent elsewhere can only be merged."""
        dropped: dict[str, Any] = {
            "_known": None,
            "_reading": Reading(),
            "_alike": {},
            "_same": None,
        }
        return {**self.__dict__, **dropped}


def _numbers_by(places: list[Place], first: int, second: int) -> dict[tuple[str, str], list[int]]:
    """Return where in `places` each two of their fields are, in the order of their first."""
    names = {id(place): (place[first], place[second]) for place in places}
    if len({*names.values()}) <= 1:
        return {name: [*range(len(places))] for name in names.values()}
    found: dict[tuple[str, str], list[int]] = {name: [] for name in names.values()}
    for number, place in enumerate(places):
        found[names[id(place)]].append(number)
    return found


def add_all(aggregate: Aggregate, records: Iterable[Record]) -> None:
    """Count all `records`."""
    add = aggregate.add
    for record in records:
        add(record)
    aggregate.flush()
