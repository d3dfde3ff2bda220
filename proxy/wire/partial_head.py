"""A head that does not come in one read: kept, bounded, and given up as soon as it cannot be one.

Only what no head can hold is refused before the head is whole: a CR or LF by itself, and a size over
the limit. Everything else is judged once, on the whole head, by the same code as any other. Pure.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from proxy.wire.request_head import MAX_START_LINE_BYTES

_BARE: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*+")


class HeadFault(Enum):
    """Why a head is given up before it is whole."""

    TOO_LARGE = "too large"
    TARGET_TOO_LONG = "target too long"
    BARE_LINE_END = "a CR or LF by itself"


class PartialHead:
    """The bytes of a head so far.

    Adding n bytes in pieces costs O(n), however small the pieces are.

    Attributes:
        is_empty: nothing but empty lines has come (RFC 9112 section 2.2: they are ignored).
    """

    __slots__ = ("_bytes", "_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._bytes = bytearray()
        self._limit = limit
        self._seen = 0

    @property
    def is_empty(self) -> bool:
        """Tell whether no head has begun."""
        return not self._bytes

    @property
    def is_of_head_request(self) -> bool:
        """Tell whether an answer to it has no body (RFC 9110 section 9.3.2)."""
        return self._bytes.startswith(b"HEAD ")

    def add(self, data: bytes) -> tuple[bytes, bytes] | HeadFault | None:
        """Return (head without its empty line, what came after it), a fault, or None: not whole."""
        held, seen = self._bytes, self._seen
        held += data
        if seen <= 1 and held.startswith(b"\r\n"):
            found = _EMPTY_LINES.match(held)
            assert found is not None
            del held[: found.end()]
        end = held.find(b"\r\n\r\n", max(0, seen - 3))
        if _BARE.search(held, max(0, seen - 1), len(held) if end < 0 else end + 2):
            return HeadFault.BARE_LINE_END
        if 0 <= end <= self._limit:
            return bytes(held[:end]), bytes(held[end + 4 :])
        self._seen = size = len(held)
        if size > MAX_START_LINE_BYTES + 1 and held.find(b"\r\n", 0, MAX_START_LINE_BYTES + 2) < 0:
            return HeadFault.TARGET_TOO_LONG
        return HeadFault.TOO_LARGE if end >= 0 or size > self._limit else None
