"""One pass over pairs, in memory that does not grow with their number.

Decides which records count (pair records of a known version, each once, inside the selection) and
hands them, in batches of rows, to the `proxy.analysis.tally` of their route and candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import Asked, LabelledTally, asked
from proxy.analysis.rows import EQUAL, KEY_FIELDS, Row, fault_of, row_fault, row_of
from proxy.analysis.seen import SeenPairs
from proxy.analysis.sources import Record, Source, SourceStatistics
from proxy.analysis.summary import FORMAT, Gaps, Health, LabelsRead, Selection, Summary
from proxy.analysis.tally import BadRowError, PairTally
from proxy.comparison.correctness import TOLERANCE
from proxy.pairs.record import SCHEMA_VERSION

#: Large enough to spread the cost of numpy's calls, small enough to stay in the cache.
BATCH_ROWS: Final = 256
#: Routes and candidates in one report. Real ones are a handful.
MAX_GROUPS: Final = 256
#: Instances named in the report.
MAX_GAPS: Final = 5

_KEY_COUNT = len(KEY_FIELDS)


def summarise(
    records: Iterable[Record],
    selection: Selection | None = None,
    *,
    labels: Labels | None = None,
    on_batch: Callable[[], object] | None = None,
) -> Summary:
    """Return the comparison of all candidates in `records`.

    Args:
        records: pair records, such as `open_source` gives; read once.
        selection: which of them to take; all by default.
        labels: to hold predictions against; all have been read.
        on_batch: called after every few hundred records, to show progress.

    Raises:
        SourceError: the source cannot be read.
    """
    aggregate = Aggregate(selection or Selection(), labels)
    for count, record in enumerate(records, 1):
        aggregate.add(record)
        if on_batch is not None and count % BATCH_ROWS == 0:
            on_batch()
    return aggregate.summary(records.statistics() if isinstance(records, Source) else None)


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels, where they came from, and how far off a number may be and still be right."""

    store: LabelStore
    source: str
    tolerance: float = TOLERANCE


class _Group:
    """A candidate of a route: what was counted, and the rows that wait to be."""

    __slots__ = ("asked", "differing", "labelled", "rows", "tally")

    def __init__(self, worst: int, labels: Labels | None) -> None:
        self.tally = PairTally(worst=worst)
        self.labelled = None if labels is None else LabelledTally(labels.store, labels.tolerance)
        self.asked: list[Asked] = []
        self.rows: list[Row] = []
        self.differing: list[tuple[Row, Record]] = []


class Aggregate:
    """The running counts of one reading."""

    def __init__(self, selection: Selection, labels: Labels | None = None) -> None:
        self._selection = selection
        self._labels = labels
        self._is_everything = selection == Selection(worst=selection.worst)
        self._seen = SeenPairs()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._waiting = 0
        self._records = 0
        self._selected = 0
        self._not_tabulated = 0
        self._bad = 0
        self._bad_example: str | None = None

    def add(self, record: Record) -> None:
        """Count `record` if it is a pair, new and selected."""
        self._records += 1
        try:
            row = row_of(record)
            version, instance, candidate, seq, route, ts_ms = row[:_KEY_COUNT]
            is_numbered = type(instance) is str and type(seq) is int and 0 <= seq < 2**63
            if version != SCHEMA_VERSION or not is_numbered:
                self._reject(fault_of(record))
            elif self._seen.is_new(instance, candidate, seq) and (
                self._is_everything or self._is_selected(route, candidate, ts_ms)
            ):
                self._enqueue((route, candidate), row, record)
        except (KeyError, TypeError):
            self._reject(fault_of(record))

    def summary(self, source: SourceStatistics | None = None) -> Summary:
        """Return what has been counted so far; `source` says where it came from."""
        self._flush()
        comparisons = tuple(
            group.tally.comparison(
                route, candidate, None if group.labelled is None else group.labelled.correctness()
            )
            for (route, candidate), group in sorted(self._groups.items())
            if group.tally.pairs
        )
        health = self._health(source)
        return Summary(
            FORMAT, source, self._selection, health, comparisons, _labels_read(self._labels)
        )

    def _is_selected(self, route: str, candidate: str, ts_ms: int) -> bool:
        wanted = self._selection
        return (
            (not wanted.route or route == wanted.route)
            and (not wanted.candidate or candidate == wanted.candidate)
            and (wanted.since_ms is None or ts_ms >= wanted.since_ms)
            and (wanted.until_ms is None or ts_ms < wanted.until_ms)
        )

    def _enqueue(self, key: tuple[Any, Any], row: Row, record: Record) -> None:
        group = self._groups.get(key)
        if group is None:
            if not (isinstance(key[0], str) and isinstance(key[1], str)):
                self._reject(fault_of(record))
                return
            if len(self._groups) >= MAX_GROUPS:
                self._not_tabulated += 1
                return
            group = self._groups[key] = _Group(self._selection.worst, self._labels)
        group.rows.append(row)
        if group.labelled is not None:
            group.asked.append(asked(record))
        if row[EQUAL] is False:
            group.differing.append((row, record))
        self._waiting += 1
        if self._waiting >= BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        for group in self._groups.values():
            if group.rows:
                self._count(group)
                group.rows, group.differing, group.asked = [], [], []
        self._waiting = 0

    def _count(self, group: _Group) -> None:
        rows, differing = group.rows, group.differing
        try:
            group.tally.add(rows, [record for _, record in differing])
        except BadRowError:
            # Looking at every field costs more than counting, so only a batch that does not
            # count is looked at.
            faults = [row_fault(row) for row in rows]
            for fault in filter(None, faults):
                self._reject(fault)
            rows = [row for row, fault in zip(rows, faults, strict=True) if fault is None]
            if rows:
                group.tally.add(rows, [r for row, r in differing if row_fault(row) is None])
            whole = zip(group.asked, faults, strict=False)
            group.asked = [each for each, fault in whole if fault is None]
        if group.labelled is not None:
            group.labelled.add(group.asked)
        self._selected += len(rows)

    def _reject(self, fault: str | None) -> None:
        self._bad += 1
        if self._bad_example is None:
            self._bad_example = fault

    def _health(self, source: SourceStatistics | None) -> Health:
        gaps = self._seen.gaps()
        knows_gaps = self._seen.is_exact and not (source and source.is_window)
        return Health(
            records=self._records,
            bad_records=self._bad,
            bad_example=self._bad_example,
            duplicates=self._seen.duplicates,
            selected=self._selected,
            not_tabulated=self._not_tabulated,
            instances=len(gaps),
            missing=sum(gap.missing for gap in gaps) if knows_gaps else None,
            gaps=tuple(
                Gaps(gap.instance, gap.pairs, gap.missing)
                for gap in gaps[:MAX_GAPS]
                if gap.missing and knows_gaps
            ),
            is_exact=self._seen.is_exact,
        )


def _labels_read(labels: Labels | None) -> LabelsRead | None:
    if labels is None:
        return None
    store = labels.store
    return LabelsRead(labels.source, store.read, store.requests(), store.bad, store.bad_example)
