"""Which pairs have been read already, and which are missing: exactly, in little memory.

The recorder delivers at least once, so a log may hold a pair twice. A pair is known by its
instance, its number there (`seq`) and its candidate: `pair_id` is made of exactly these. Numbers
are dense, so a set of them is one contiguous run plus bitmaps for what arrived out of order: a
million pairs read in order take nothing, in any other order at most 125 KB. What is left out
between the first and the last number of an instance was lost, or never written to this log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Numbers per bitmap.
CHUNK: Final = 32_768
_CHUNK_BYTES = CHUNK // 8
_ALL = (1 << CHUNK) - 1

#: Numbers that are added one by one rather than in arrays.
_FEW: Final = 16

#: Bitmaps at once, 4 KB each. 64 MiB of them hold half a billion pairs in any order; only numbers
#: scattered over the whole range of an integer, which no worker writes, use them up.
MAX_CHUNKS: Final = 16_384
#: Sets at once: one for each candidate in each run of a worker.
MAX_SETS: Final = 100_000


@dataclass(slots=True)
class ChunkBudget:
    """How many more bitmaps may be made."""

    left: int = MAX_CHUNKS

    def take(self) -> bool:
        """Take one, if there is one left."""
        self.left -= 1
        return self.left >= 0


class SequenceSet:
    """A set of non-negative integers that are mostly dense.

    Attributes:
        count: numbers in the set.
        first, last: the least and the greatest number; meaningless while the set is empty.
    """

    __slots__ = ("_budget", "_chunks", "_start", "_stop", "count", "first", "last")

    def __init__(self, budget: ChunkBudget) -> None:
        self.count = 0
        self.first = 0
        self.last = 0
        # The run is [_start, _stop). No bitmap holds _stop, or the run would include it.
        self._start = 0
        self._stop = 0
        self._chunks: dict[int, bytearray] = {}
        self._budget = budget

    def add(self, number: int) -> bool:
        """Add `number`; return whether it was new (True too when the budget is used up)."""
        if number == self._stop and self.count:
            self._stop = number + 1
            if self._chunks:
                self._absorb()
        elif self._start <= number < self._stop:
            return False
        elif not self.count:
            self._start, self._stop = number, number + 1
            self.first = self.last = number
        elif not self._add_to_chunk(number):
            return False
        self.count += 1
        if number > self.last:
            self.last = number
        elif number < self.first:
            self.first = number
        return True

    def __contains__(self, number: int) -> bool:
        if self.count and self._start <= number < self._stop:
            return True
        chunk, offset = divmod(number, CHUNK)
        bits = self._chunks.get(chunk)
        return bits is not None and bool(bits[offset >> 3] & (1 << (offset & 7)))

    def masks(self) -> Iterator[tuple[int, int]]:
        """Yield `(chunk, mask)`: bit `i` of `mask` says that `chunk * CHUNK + i` is in the set.

        A chunk may come twice, with overlapping masks; together they are complete.
        """
        for chunk, bits in self._chunks.items():
            yield chunk, int.from_bytes(bits, "little")
        for chunk in range(self._start // CHUNK, -(-self._stop // CHUNK)):
            low = max(self._start - chunk * CHUNK, 0)
            high = min(self._stop - chunk * CHUNK, CHUNK)
            yield chunk, (_ALL >> (CHUNK - high)) & (_ALL << low)

    def add_all(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add `numbers`, shape `(n,)`; return which of them `add` would call new, one by one."""
        size = numbers.size
        if not self._chunks and size and (not self.count or int(numbers[0]) == self._stop):
            first, last = int(numbers[0]), int(numbers[-1])
            if last - first == size - 1 and bool((np.diff(numbers) == 1).all()):
                self._extend_run(first, last)
                return np.ones(size, dtype=np.bool_)
        if size < _FEW:
            return np.fromiter((self.add(int(n)) for n in numbers), np.bool_, size)
        is_new = np.zeros(size, dtype=np.bool_)
        chunks = numbers // CHUNK
        for chunk in np.unique(chunks).tolist():
            places = np.flatnonzero(chunks == chunk)
            is_new[places] = self._add_in_chunk(chunk, numbers[places] % CHUNK)
        self._note_added(numbers[is_new])
        return is_new

    def overlap(self, other: SequenceSet) -> int:
        """Return how many numbers are in both sets."""
        if not self.count or not other.count or self.last < other.first or other.last < self.first:
            return 0
        mine, theirs = _joined(self.masks()), _joined(other.masks())
        return sum((mask & theirs.get(chunk, 0)).bit_count() for chunk, mask in mine.items())

    def merge(self, other: SequenceSet) -> None:
        """Add all numbers of `other`."""
        if not other.count:
            return
        count = self.count + other.count - self.overlap(other)
        first, last = other.first, other.last
        if self.count:
            first, last = min(self.first, first), max(self.last, last)
        if not self.count or (self._stop == other._start and not self._chunks):
            self._start = self._start if self.count else other._start
            self._stop = other._stop
            masks = [(c, int.from_bytes(b, "little")) for c, b in other._chunks.items()]
        elif self._start == other._stop:
            self._start = other._start
            masks = [(c, int.from_bytes(b, "little")) for c, b in other._chunks.items()]
        else:
            masks = [*other.masks()]
        for chunk, mask in masks:
            self._add_mask(chunk, mask)
        self.count, self.first, self.last = count, first, last
        self._absorb()

    def _extend_run(self, first: int, last: int) -> None:
        if not self.count:
            self._start = self.first = self.last = first
        self._stop = last + 1
        self.count += last - first + 1
        self.first, self.last = min(self.first, first), max(self.last, last)

    def _add_in_chunk(self, chunk: int, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Add numbers of one chunk; return which were new."""
        bits = self._chunks.get(chunk)
        if bits is None:
            if not self._budget.take():
                return np.ones(offsets.size, dtype=np.bool_)
            bits = bytearray(_CHUNK_BYTES)
        flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
        low, high = (min(max(end - chunk * CHUNK, 0), CHUNK) for end in (self._start, self._stop))
        in_set = flags.copy()
        in_set[low:high] = 1
        unique, firsts = np.unique(offsets, return_index=True)
        is_new = np.zeros(offsets.size, dtype=np.bool_)
        is_new[firsts] = in_set[unique] == 0
        flags[unique] = 1
        self._chunks[chunk] = bytearray(np.packbits(flags, bitorder="little").tobytes())
        return is_new

    def _note_added(self, numbers: NDArray[np.int64]) -> None:
        """Note that `numbers`, all new, are in the bitmaps."""
        if not numbers.size:
            return
        first, last = int(numbers.min()), int(numbers.max())
        if self.count:
            first, last = min(first, self.first), max(last, self.last)
        else:
            self._start = self._stop = first
        self.first, self.last = first, last
        self.count += int(numbers.size)
        self._absorb()

    def _add_mask(self, chunk: int, mask: int) -> None:
        bits = self._chunks.get(chunk)
        if bits is None:
            if not self._budget.take():
                return
        else:
            mask |= int.from_bytes(bits, "little")
        self._chunks[chunk] = bytearray(mask.to_bytes(_CHUNK_BYTES, "little"))

    def _add_to_chunk(self, number: int) -> bool:
        chunk, offset = divmod(number, CHUNK)
        bits = self._chunks.get(chunk)
        if bits is None:
            if not self._budget.take():
                return True
            bits = self._chunks[chunk] = bytearray(_CHUNK_BYTES)
        byte, bit = offset >> 3, 1 << (offset & 7)
        if bits[byte] & bit:
            return False
        bits[byte] |= bit
        return True

    def _absorb(self) -> None:
        """Extend the run over the numbers that bitmaps already hold, and drop spent bitmaps."""
        while bits := self._chunks.get(self._stop // CHUNK):
            chunk, offset = divmod(self._stop, CHUNK)
            while offset < CHUNK and bits[offset >> 3] & (1 << (offset & 7)):
                offset += 1
            self._stop = chunk * CHUNK + offset
            if offset < CHUNK:
                return
            if chunk * CHUNK >= self._start:  # else it holds numbers before the run, too
                del self._chunks[chunk]
                self._budget.left += 1


def _joined(masks: Iterable[tuple[int, int]]) -> dict[int, int]:
    found: defaultdict[int, int] = defaultdict(int)
    for chunk, mask in masks:
        found[chunk] |= mask
    return found


@dataclass(frozen=True, slots=True)
class InstanceGaps:
    """Numbers that an instance's pairs leave out.

    Attributes:
        pairs: distinct numbers seen.
        missing: numbers between the first and the last that were not seen.
    """

    instance: str
    pairs: int
    missing: int


class SeenPairs:
    """The pairs read so far, by instance, candidate and number.

    Attributes:
        duplicates: pairs that `is_new` refused.
    """

    def __init__(self, *, max_chunks: int = MAX_CHUNKS, max_sets: int = MAX_SETS) -> None:
        self.duplicates = 0
        self._budget = ChunkBudget(max_chunks)
        self._max_sets = max_sets
        self._sets: dict[tuple[str, str], SequenceSet] = {}
        self._is_overfull = False

    def is_new(self, instance: str, candidate: str, seq: int) -> bool:
        """Note a pair and return whether it is the first of its kind."""
        numbers = self._set_of(instance, candidate)
        if numbers is None or numbers.add(seq):
            return True
        self.duplicates += 1
        return False

    def new_among(
        self, instance: str, candidate: str, numbers: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Note pairs of one instance and candidate; return which are new, shape `(n,)`."""
        found = self._set_of(instance, candidate)
        if found is None:
            return np.ones(numbers.size, dtype=np.bool_)
        is_new = found.add_all(numbers)
        self.duplicates += int(numbers.size - np.count_nonzero(is_new))
        return is_new

    def holds(self, instance: str, candidate: str, seq: int) -> bool:
        """Return whether a pair has been noted."""
        numbers = self._sets.get((instance, candidate))
        return numbers is not None and seq in numbers

    def overlap(self, other: SeenPairs) -> int:
        """Return how many pairs are noted in both."""
        return sum(
            numbers.overlap(other._sets[key])
            for key, numbers in self._sets.items()
            if key in other._sets
        )

    def merge(self, other: SeenPairs) -> None:
        """Note everything that `other` has noted."""
        self.duplicates += other.duplicates
        self._is_overfull |= not other.is_exact
        for key, numbers in other._sets.items():
            mine = self._set_of(*key)
            if mine is not None:
                mine.merge(numbers)

    def _set_of(self, instance: str, candidate: str) -> SequenceSet | None:
        """Return the numbers of an instance and candidate; None where there are too many of them."""
        numbers = self._sets.get((instance, candidate))
        if numbers is None:
            if len(self._sets) >= self._max_sets:
                self._is_overfull = True
                return None
            numbers = self._sets[instance, candidate] = SequenceSet(self._budget)
        return numbers

    def among(self, other: SeenPairs) -> SeenPairs:
        """Return these pairs but for instances and candidates of which `other` has none."""
        found = SeenPairs()
        found._sets = {key: numbers for key, numbers in self._sets.items() if key in other._sets}
        return found

    @property
    def is_exact(self) -> bool:
        """Whether every pair was remembered; else duplicates may be left, and gaps are unknown."""
        return self._budget.left >= 0 and not self._is_overfull

    def gaps(self) -> tuple[InstanceGaps, ...]:
        """Return what each instance is missing, over all its candidates; most missing first."""
        by_instance: defaultdict[str, list[SequenceSet]] = defaultdict(list)
        for (instance, _), numbers in self._sets.items():
            by_instance[instance].append(numbers)
        found = (_gaps(instance, sets) for instance, sets in by_instance.items())
        return tuple(sorted(found, key=lambda gap: (-gap.missing, gap.instance)))


def _gaps(instance: str, sets: list[SequenceSet]) -> InstanceGaps:
    first, last = min(s.first for s in sets), max(s.last for s in sets)
    pairs = sets[0].count if len(sets) == 1 else _union_count(sets)
    return InstanceGaps(instance, pairs, last - first + 1 - pairs)


def _union_count(sets: Iterable[SequenceSet]) -> int:
    # Candidates of one exchange may share its number, so counts do not simply add up.
    union = _joined(mask for numbers in sets for mask in numbers.masks())
    return sum(mask.bit_count() for mask in union.values())
