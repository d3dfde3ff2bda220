"""Columns of few distinct values as codes: a tally then works once for each value, not for each pair.

Pure arithmetic on arrays; what the values mean is for whoever made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Booleans = NDArray[np.bool_]

#: Codes of several columns are made one number as long as it stays below this.
_MOST_CODES: Final = 2**62
#: A table of all codes is faster than sorting, if it is no longer than so many times the rows.
_FEW_TIMES: Final = 8


@dataclass(frozen=True, slots=True)
class Coded:
    """A column: row `n` holds `values[codes[n]]`.

    Attributes:
        codes: shape `(n,)`.
        values: not necessarily distinct, nor all in use.
    """

    codes: Codes
    values: Sequence[Any]

    def at(self, rows: Codes) -> Coded:
        """Return the column of some rows."""
        return Coded(self.codes[rows], self.values)

    def where(self, is_so: Callable[[Any], bool]) -> Booleans:
        """Return in which rows the value is so, shape `(n,)`; each value is asked about once."""
        found = np.fromiter(map(is_so, self.values), np.bool_, len(self.values))
        return found[self.codes]

    def rows(self) -> list[Any]:
        """Return the value of each row."""
        values = self.values
        return [values[code] for code in self.codes.tolist()]

    def in_use(self) -> Coded:
        """Return the same column with only the values that occur, in their order."""
        used = np.flatnonzero(np.bincount(self.codes, minlength=len(self.values)))
        if used.size == len(self.values):
            return self
        places = np.zeros(len(self.values), dtype=np.int64)
        places[used] = np.arange(used.size)
        return Coded(places[self.codes], [self.values[code] for code in used.tolist()])

    def counts(self) -> Counter[Any]:
        """Return how many rows have each value, which must be hashable and in use."""
        found: Counter[Any] = Counter()
        sizes = np.bincount(self.codes, minlength=len(self.values)).tolist()
        for value, size in zip(self.values, sizes, strict=True):
            found[value] += size
        return found


def uncoded(values: Sequence[Any]) -> Coded:
    """Return a column in which no two rows share a value."""
    return Coded(np.arange(len(values), dtype=np.int64), values)


def coded(values: Sequence[Any]) -> Coded:
    """Return a column of hashable values."""
    places: dict[Any, int] = {}
    found = [places.setdefault(value, len(places)) for value in values]
    return Coded(np.array(found, dtype=np.int64), list(places))


def combined(columns: Sequence[Coded]) -> Coded:
    """Return the column of the tuples of `columns`, at least one; all its values are in use."""
    codes: Codes = np.zeros(columns[0].codes.size, dtype=np.int64)
    size = 1
    for column in columns:
        count = len(column.values)
        if count <= 1:
            continue
        if size > _MOST_CODES // count:
            codes, size = _dense(codes, size)
        codes = codes * count + column.codes
        size *= count
    codes, size = _dense(codes, size)
    firsts = np.zeros(size, dtype=np.int64)
    firsts[codes[::-1]] = np.arange(codes.size)[::-1]
    taken = [[column.values[code] for code in column.codes[firsts].tolist()] for column in columns]
    return Coded(codes, list(zip(*taken, strict=True)))


def _dense(codes: Codes, size: int) -> tuple[Codes, int]:
    """Return codes from 0 on without gaps, in the same order, and how many there are."""
    if size > _FEW_TIMES * codes.size:
        used, found = np.unique(codes, return_inverse=True)
        return found, used.size
    is_used = np.zeros(size, dtype=np.int64)
    is_used[codes] = 1
    places = np.cumsum(is_used)
    return places[codes] - 1, int(places[-1]) if size else 0
