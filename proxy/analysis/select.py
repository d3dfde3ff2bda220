"""The pairs of a source that are asked for, each once: what `pairs` and its export read.

Memory grows with the disorder of what is read, not with its length: see `proxy.analysis.seen`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Takes from records the pairs that a filter asks for, each once.

    Attributes:
        wanted: the filter.
    """

    def __init__(self, wanted: PairFilter) -> None:
        self.wanted = wanted
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
            elif self.wanted.takes(record) and self._is_new(record):
                found.taken += 1
                yield record

    def note(self, *, records: int, bad: int) -> None:
        """Count records that were looked at by columns, and those of them that are no pairs."""
        self._statistics.records += records
        self._statistics.bad += bad

    def new_among(
        self, instance: str, candidate: str, numbers: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Take pairs of one instance and candidate; return which are new, shape `(n,)`."""
        is_new = self._seen.new_among(instance, candidate, numbers)
        self._statistics.taken += int(np.count_nonzero(is_new))
        self._note_seen()
        return is_new

    def _is_new(self, pair: Record) -> bool:
        is_new = self._seen.is_new(pair["instance"], pair["candidate"], pair["seq"])
        self._note_seen()
        return is_new

    def _note_seen(self) -> None:
        self._statistics.duplicates = self._seen.duplicates
        self._statistics.is_exact = self._seen.is_exact
