"""The pairs of a source that are asked for, each once: what `pairs` and its export read.

Memory grows with the disorder of what is read, not with its length: see `proxy.analysis.seen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxy.analysis.pair_filter import PairFilter, is_pair
from proxy.analysis.seen import SeenPairs
from proxy.analysis.source import Record


@dataclass(slots=True)
class SelectStatistics:
    """What became of the records so far.

    Attributes:
        records: JSON objects read.
        bad: those that are no pair records of a known version.
        duplicates: pairs that were delivered again, and left out.
        taken: pairs that the filter took.
        is_exact: False when the numbers of pairs were too scattered to remember them all, so that
            duplicates may be left.
    """

    records: int = 0
    bad: int = 0
    duplicates: int = 0
    taken: int = 0
    is_exact: bool = True


class Select:
    """Takes from records the pairs that a filter asks for, each once."""

    def __init__(self, wanted: PairFilter) -> None:
        self._wanted = wanted
        self._seen = SeenPairs()
        self._statistics = SelectStatistics()

    def statistics(self) -> SelectStatistics:
        """Return the live counts."""
        return self._statistics

    def pairs(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the pairs; may be called again with further records."""
        found = self._statistics
        for record in records:
            found.records += 1
            if not is_pair(record):
                found.bad += 1
            elif self._wanted.takes(record) and self._is_new(record):
                found.taken += 1
                yield record

    def _is_new(self, pair: Record) -> bool:
        is_new = self._seen.is_new(pair["instance"], pair["candidate"], pair["seq"])
        self._statistics.duplicates = self._seen.duplicates
        self._statistics.is_exact = self._seen.is_exact
        return is_new
