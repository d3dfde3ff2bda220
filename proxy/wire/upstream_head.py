"""The head that goes upstream: one shared block per request, a few lines of its own per leg."""

from __future__ import annotations

from typing import Final

from proxy.wire.request_head import RequestHead

MIRROR_LINE: Final = b"x-understudy-mirror: 1\r\n"
CHUNKED_LINE: Final = b"transfer-encoding: chunked\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
#: Up to this size it is cheaper to copy data into one piece with its framing than to write three.
JOINED_BYTES: Final = 4096


def shared_block(head: RequestHead, request_id: bytes, peer_lines: bytes) -> bytes:
    """Return the request line and the fields that all legs of an exchange have in common.

    Args:
        head: the checked head.
        request_id: the client's or ours.
        peer_lines: `Via` and `X-Forwarded-*` lines, made once per client connection.
    """
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%bx-request-id: %b\r\n" % (
        head.method,
        head.target,
        head.host,
        head.lines,
        peer_lines,
        request_id,
    )


def changed_block(
    head: RequestHead, target: bytes, host: bytes, lines: bytes, request_id: bytes
) -> bytes:
    """Return `shared_block` with another target, host and fields, the peer's lines included."""
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\n" % (
        head.method,
        target,
        host,
        lines,
        request_id,
    )


def peer_lines(pseudonym: bytes, host: bytes, scheme: bytes) -> bytes:
    """Return the lines that say who we are and whom the request came from."""
    return b"via: 1.1 %b\r\nx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\n" % (
        pseudonym,
        host,
        scheme,
    )


def leg_head(shared: bytes, trace_line: bytes, framing: bytes, *, mirror: bool) -> bytes:
    """Return the whole head of one leg; `framing` is a Content-Length or chunked line or empty."""
    return b"%b%b%b%b\r\n" % (shared, trace_line, framing, MIRROR_LINE if mirror else b"")


def length_line(length: int) -> bytes:
    """Return the Content-Length line of a body of `length` bytes."""
    return b"content-length: %d\r\n" % length


def add_chunk(pieces: list[bytes], data: bytes) -> None:
    """Add `data` framed as one chunk: small data in one piece, large data as it is, without a copy."""
    size = len(data)
    if size <= JOINED_BYTES:
        pieces.append(b"%x\r\n%b\r\n" % (size, data))
    else:
        pieces.append(b"%x\r\n" % size)
        pieces.append(data)
        pieces.append(b"\r\n")
