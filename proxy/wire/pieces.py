"""Lists of the pieces of a body that is kept. Pure.

A `bytes` of two bytes takes 48 with its place in the list: a peer that sends a body in crumbs would
cost twenty times the memory that is accounted for it.
"""

from __future__ import annotations

from typing import Final

#: A piece below this size is joined to the one before it, up to `WHOLE_BYTES` together; so what the
#: objects themselves take is at most a fifth of what is in them. What is joined stays within what
#: Python's own allocator takes (512 bytes, 33 of them the object's): beyond it each crumb would cost
#: a call of malloc and the copy of a kilobyte that no cache holds.
CRUMB_BYTES: Final = 256
WHOLE_BYTES: Final = 479


def add_piece(pieces: list[bytes], data: bytes) -> None:
    """Add the next piece of a body, to the last one where both are small."""
    size = len(data)
    if size < CRUMB_BYTES and pieces:
        last = pieces[-1]
        if len(last) + size <= WHOLE_BYTES:
            pieces[-1] = last + data
            return
    pieces.append(data)
