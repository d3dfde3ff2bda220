"""Counters by family and labels, with their sums. Pure.

A gateway has ten thousand of them, and a status document asks for hundreds of sums: each is looked up
in an index that the first one makes (20 ms), not searched for among them all (1 ms each).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from proxy.control.recent import Key


class Counters(dict[Key, int]):
    """Counters by key: the family, then its label values."""

    __slots__ = ("_by_last", "_sums")

    def __init__(self, counters: Mapping[Key, int]) -> None:
        super().__init__(counters)
        self._sums: Counter[Key] | None = None
        self._by_last: dict[Key, Counter[str]] = {}

    def sum(self, *key: str) -> int:
        """Return the sum of a family over every label value that starts with those in `key`."""
        return self._index()[key]

    def by_last(self, *key: str) -> dict[str, int]:
        """Return the sums of a family by the value of its last label, zeros left out.

        Args:
            key: the family, and the first of its labels; summed up over those in between.
        """
        self._index()
        return dict(self._by_last.get(key, {}))

    def _index(self) -> Counter[Key]:
        if self._sums is None:
            self._sums = sums = Counter[Key]()
            by_last: defaultdict[Key, Counter[str]] = defaultdict(Counter)
            for key, count in self.items():
                if count:
                    sums[key] += count
                    for end in range(1, len(key)):
                        sums[key[:end]] += count
                        by_last[key[:end]][key[-1]] += count
            self._by_last = dict(by_last)
        return self._sums
