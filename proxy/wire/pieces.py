"""Lists of the pieces of a body that is kept. Pure.

A `bytes` of two bytes takes 48 with its place in the list: a peer that sends a body in crumbs would
cost twenty times the memory that is accounted for it.
"""

from __future__ import annotations

from typing import Final

#: A piece below this size is joined to one that is below `WHOLE_BYTES`; so what the objects
#: themselves take is at most a fifth of what is in them, and the copying some 50 ns per crumb.
CRUMB_BYTES: Final = 256
WHOLE_BYTES: Final = 2048


def add_piece(pieces: list[bytes], data: bytes) -> None:
    """Add the next piece of a body, to the last one where both are small."""
    if pieces and len(data) < CRUMB_BYTES and len(pieces[-1]) < WHOLE_BYTES:
        pieces[-1] += data
    else:
        pieces.append(data)
