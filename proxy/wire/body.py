"""Bodies: what they carry, and where they end. Pure.

A body of declared length, and the chunked transfer coding: strictly the grammar of RFC 9112 section 7.1, because a chunk size that two servers read differently
is a smuggled request. Extensions and trailers are checked, bounded and dropped.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.wire.fields import TOKEN, split_field

#: Extensions and trailers of one body together, and one line of framing; Envoy allows 16 KiB too.
MAX_EXTRA_BYTES: Final = 16 * 1024
MAX_LINE_BYTES: Final = 8 * 1024

_EXTENSIONS: Final = (
    rb"(?:[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+"
    rb"(?:%b|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+\"))?+)*+" % (TOKEN, TOKEN)
)
#: 16 digits are below 2**64; more than that is not a size but an attempt at an overflow.
_FIRST: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)(%b)\r\n" % _EXTENSIONS)
#: Any other chunk begins with the CRLF that ends the data of the one before.
_NEXT: Final = re.compile(rb"\r\n" + _FIRST.pattern)
_FIRST_SO_FAR: Final = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:[ \t;][\t -~\x80-\xff]*+)?\r?")
_NEXT_SO_FAR: Final = re.compile(rb"\r(?:\n(?:%b)?)?" % _FIRST_SO_FAR.pattern)
_TRAILER_SO_FAR: Final = re.compile(rb"[\t -~\x80-\xff]*+\r?")
#: Value of each byte as a hexadecimal digit; `_NO_DIGIT` for all others.
_NO_DIGIT: Final = 16
_DIGITS: Final = bytes(
    int(chr(byte), 16) if chr(byte) in "0123456789abcdefABCDEF" else _NO_DIGIT
    for byte in range(256)
)
#: Sizes with so many digits are read without the patterns; those of 256 MiB and more are rare.
_PLAIN_DIGITS: Final = 7
_CR: Final = 13
_LF: Final = 10

#: RFC 9110 section 6.5.1: they would change the framing or the route of a message already read.
_FORBIDDEN_TRAILERS: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})


class LengthBody:
    """Takes a body of declared length as it arrives."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def read(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Return (pieces of the body, what came after its end); None while it has not ended."""
        left = self._left
        self._left = left - len(data)
        if self._left > 0:
            return [data], None
        if not self._left:  # the whole read, without a copy
            return [data], b""
        return ([data[:left]] if left else []), data[left:]


class ChunkError(ValueError):
    """The body is not what the coding allows; the text says why, for whoever sent it."""


class ChunkedBody:
    """Takes a chunked body apart as it arrives.

    Attributes:
        extra_bytes: lines with extensions, and trailers, so far.
        has_last_chunk: the chunk of size zero has come: the data is whole (RFC 9112 section 8).
    """

    __slots__ = ("_chunk", "_held", "_left", "_so_far", "extra_bytes", "has_last_chunk")

    def __init__(self) -> None:
        self.has_last_chunk = False
        self._left = 0
        self._held = b""
        self._chunk, self._so_far = _FIRST, _FIRST_SO_FAR
        self.extra_bytes = 0

    def read(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Return (pieces of the body, what came after its end); None while it has not ended.

        Raises:
            ChunkError: the body is malformed, or has too much beside the data.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while not self.has_last_chunk:
            if self._left:
                stop = at + self._left
                if stop > size:
                    if at < size:
                        pieces.append(data[at:])
                    self._left = stop - size
                    return pieces, None
                pieces.append(data[at:stop])
                at = stop
                self._left = 0
                # The usual read ends here, with the end of a chunk: nothing to hold, nothing to match.
                if size - at >= 2 and data[at] == _CR and data[at + 1] == _LF:
                    at += 2
                    self._chunk, self._so_far = _FIRST, _FIRST_SO_FAR
            if at == size:
                return pieces, None
            begin = self._plain_size(data, at) if self._chunk is _FIRST else 0
            if not begin:
                begin = self._any_size(data, at)
                if not begin:
                    return pieces, None
            at = begin
            self._chunk, self._so_far = _NEXT, _NEXT_SO_FAR
            self.has_last_chunk = not self._left
        return pieces, self._read_trailers(data, at)

    def _plain_size(self, data: bytes, at: int) -> int:
        """Read a whole line that is a size and no more; return where its data begins, 0 if it is not.

        The pattern takes the same lines; this is the line of nearly every chunk, for a third of the time.
        """
        size, here = 0, at
        stop = min(at + _PLAIN_DIGITS, len(data) - 2)
        while here < stop:
            digit = _DIGITS[data[here]]
            if digit == _NO_DIGIT:
                break
            size = size * 16 + digit
            here += 1
        if here == at or data[here] != _CR or data[here + 1] != _LF:
            return 0
        self._left = size
        return here + 2

    def _any_size(self, data: bytes, at: int) -> int:
        """Read a line with a size, be it with extensions; return where its data begins.

        0: the line is not whole, and kept until its rest comes.
        """
        found = self._chunk.match(data, at)
        if found is None:
            self._hold(data, at)
            return 0
        self._left = int(found[1], 16)
        if found[2]:
            self._add_extra(found.end() - found.start(1))
        return found.end()

    def _read_trailers(self, data: bytes, at: int) -> bytes | None:
        """Skip the trailer section; return what follows it, or None while it has not ended."""
        self._so_far = _TRAILER_SO_FAR
        while (end := data.find(b"\r\n", at)) != at:
            if end < 0:
                self._hold(data, at)
                return None
            found = split_field(data[at:end])
            if found is None:
                raise ChunkError("a trailer is not a field (RFC 9112 section 7.1.2)")
            if found[0].lower() in _FORBIDDEN_TRAILERS:
                raise ChunkError("a trailer that must be in the head (RFC 9110 section 6.5.1)")
            self._add_extra(end + 2 - at)
            at = end + 2
        return data[at + 2 :]

    def _hold(self, data: bytes, at: int) -> None:
        """Keep the start of a line until its rest comes."""
        rest = data[at:]
        if rest and self._so_far.fullmatch(rest) is None:
            raise ChunkError("malformed chunk (RFC 9112 section 7.1)")
        if len(rest) > MAX_LINE_BYTES:
            raise ChunkError("a chunk extension or trailer is too long")
        self._held = rest

    def _add_extra(self, size: int) -> None:
        """Count a line of framing that says more than a size."""
        self.extra_bytes += size
        if size > MAX_LINE_BYTES or self.extra_bytes > MAX_EXTRA_BYTES:
            raise ChunkError("the chunk extensions or trailers are too long")
