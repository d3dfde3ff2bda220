"""How the recorder's heaps treat freed memory: C's, and Python's.

Each window of pairs takes a few megabytes and gives them back. glibc returns what is free at the
heap's end to the kernel as soon as it is 128 KiB, so the next window faults every page in again: 3
faults and 9 us for each pair, measured, a quarter of all it costs. Here the heap keeps a bounded
rest instead.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

#: Free bytes that the heap may keep: more than a window of pairs needs.
KEPT_BYTES: Final = 12 * 1024 * 1024

# mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Make the heap keep up to `KEPT_BYTES`; return whether this C library can be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False  # musl, macOS: their allocators keep what is freed anyway
    trimmed = mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    # A block above this size is mapped, and so unmapped when it is freed.
    mapped = mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
    return bool(trimmed and mapped)


def leave_garbage() -> None:
    """Look for reference cycles no more in what the start has made.

    In what comes later Python looks as often as it does by itself: the client's tasks and errors are
    cycles that hold whole batches. With rare looks (5,000 containers, 20, 100) the recorder grew from
    77 to 116 MB over a backlog of a million pairs.
    """
    gc.collect()
    gc.freeze()
