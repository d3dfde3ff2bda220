"""The segments that a reader has in hand: open, and held so that the writer drops none of them.

It decides whether a file still is the segment of its number, and how many of a segment's pairs cannot
be read. How long one is held, the reader says.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from proxy.journal.scan import count_lines
from proxy.journal.segments import Position, segment_path


class HeldSegments:
    """Open segments by number.

    Args:
        directory: the journal.
        pairs_of: how many pairs were written into a segment; None when nobody knows.

    Attributes:
        directory: the journal.
    """

    def __init__(self, directory: Path, pairs_of: Callable[[int], int | None]) -> None:
        self.directory = directory
        self._pairs_of = pairs_of
        self._descriptors: dict[int, int] = {}

    @property
    def numbers(self) -> list[int]:
        """The segments that are held."""
        return list(self._descriptors)

    def read(self, number: int, size: int, offset: int) -> bytes:
        """Return up to `size` bytes of a segment, held from now on; none when it is gone.

        Raises:
            OSError: it exists and cannot be read.
        """
        descriptor = self._hold(number)
        return b"" if descriptor is None else os.pread(descriptor, size, offset)

    def damaged_pairs(self, end: Position) -> int:
        """Return how many pairs of a segment that has been read to its end cannot be read.

        Counted where fewer were read than it should hold. One that is gone was dropped by the writer,
        which has counted what was not shipped of it.

        Raises:
            OSError: it cannot be read at all.
        """
        known = self._pairs_of(end.segment) or 0
        path = segment_path(self.directory, end.segment)
        if end.pairs >= known or not path.exists():
            return 0
        return max(0, known - max(end.pairs, count_lines(path, 0)))

    def let_go(self, numbers: Iterable[int]) -> None:
        """Hold these no longer; harmless for those that are not held."""
        for number in numbers:
            descriptor = self._descriptors.pop(number, None)
            if descriptor is not None:
                os.close(descriptor)

    def _hold(self, number: int) -> int | None:
        """Return a segment, held so that the writer does not drop it; None when it is gone."""
        if number in self._descriptors:
            return self._descriptors[number]
        path = segment_path(self.directory, number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        # Waits where the writer is about to drop it, some milliseconds; then it has another name.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            is_here = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            is_here = False
        if not is_here:
            os.close(descriptor)
            return None
        self._descriptors[number] = descriptor
        return descriptor
