"""How many connections each worker has open, for the other workers: a few words in shared memory.

The launcher makes it, workers inherit it, and it is gone with them: nothing of it is on a disk. Each
worker writes its own cache line alone, with plain stores, and reads those of the others when it is
about to accept connections (`proxy.dataplane.accepting`).
"""

from __future__ import annotations

import mmap
import os
from typing import Final

#: Of one worker: a cache line, so that what one writes does not slow the others down.
_LINE_BYTES: Final = 64
_LINE_WORDS: Final = _LINE_BYTES // 8


def make_shares(workers: int) -> int:
    """Return a descriptor of the memory for so many workers; -1 where it is not needed or not to be had.

    Linux has it (memfd_create(2)).
    """
    if workers < 2 or not hasattr(os, "memfd_create"):
        return -1
    try:
        descriptor = os.memfd_create("understudy-shares")
        # Written, not ftruncated: a store into what the kernel cannot provide would be a SIGBUS.
        os.write(descriptor, bytes(workers * _LINE_BYTES))
    except OSError:
        return -1
    return descriptor


class SharesPage:
    """The lines of all workers, as one of them has mapped them.

    Attributes:
        peers: the other workers.
    """

    __slots__ = ("_at", "_mapping", "_words", "peers")

    def __init__(self, descriptor: int, worker: int) -> None:
        """Map what `make_shares` has made."""
        size = os.fstat(descriptor).st_size
        self._mapping = mmap.mmap(descriptor, size)
        self._words = memoryview(self._mapping).cast("Q")
        self._at = worker * _LINE_WORDS
        self.peers = tuple(index for index in range(size // _LINE_BYTES) if index != worker)

    def publish(self, load: int) -> None:
        """Say that this worker accepts connections, and has `load` open."""
        self._words[self._at] = load + 1

    def leave(self) -> None:
        """Say that this worker accepts none any more."""
        self._words[self._at] = 0

    def count_accepted(self) -> None:
        """Count a connection that this worker has accepted; a sign of life, too."""
        self._words[self._at + 1] += 1

    def beat(self) -> None:
        """Say that this worker lives."""
        self._words[self._at + 2] += 1

    def load(self, worker: int) -> int:
        """Return how many connections a worker has open; -1: it accepts none."""
        return self._words[worker * _LINE_WORDS] - 1

    def accepted(self, worker: int) -> int:
        """Return how many connections the workers in this place have ever accepted."""
        return self._words[worker * _LINE_WORDS + 1]

    def signs(self, worker: int) -> int:
        """Return a number that grows as long as the worker in this place lives."""
        at = worker * _LINE_WORDS
        return self._words[at + 1] + self._words[at + 2]

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._mapping.close()
