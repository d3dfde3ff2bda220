"""How a request's body is framed on its way upstream. Pure.

A whole body has its length; one that is still arriving has the length that the client declared, or
chunks of ours: never the client's own bytes of framing.
"""

from __future__ import annotations

from typing import Final

from proxy.wire.upstream_head import LAST_CHUNK, add_chunk, length_line

#: Methods whose requests carry a body length even when the body is empty (RFC 9110 section 8.6).
BODY_METHODS: Final = frozenset({b"POST", b"PUT", b"PATCH"})


def whole_framing(method: bytes, size: int) -> bytes:
    """Return the framing line of a whole body of `size` bytes; empty where none is needed."""
    return length_line(size) if size or method in BODY_METHODS else b""


def chunked(body: list[bytes], *, is_last: bool) -> list[bytes]:
    """Return the pieces of a body as chunks, ended when `is_last`."""
    pieces: list[bytes] = []
    for data in body:
        add_chunk(pieces, data)
    if is_last:
        pieces.append(LAST_CHUNK)
    return pieces
