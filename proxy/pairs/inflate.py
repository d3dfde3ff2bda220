"""Content-Encoding undone, within bounds, for comparison only.

What users get is never decoded. A body that would grow beyond 8 MiB, or to more than 100 times
its size, is left alone: no honest prediction does that, and a gzip bomb must not hurt the
recorder. brotli is undone where its library is installed (the extra `brotli`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import zstandard

try:
    import brotli
except ImportError:
    brotli = None

LIMIT_BYTES: Final = 8 * 1024 * 1024
LIMIT_RATIO: Final = 100
#: Encodings upon encodings that are undone; RFC 9110 section 8.4 allows any number.
LIMIT_CODINGS: Final = 2

#: Reasons, as they end a `not_comparable_reason`: a coding that is not known here, or too many;
#: data that is not in the coding, or was cut; too much of it.
UNKNOWN: Final = "content_encoding"
DAMAGED: Final = "encoding_damaged"
TOO_LARGE: Final = "inflates_too_large"

#: Before version 1.2 the library cannot bound what it makes.
_HAS_BROTLI: Final = brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data")

_GZIP: Final = frozenset(("gzip", "x-gzip"))
_GZIP_WBITS = 31
_RAW_WBITS = -15

#: Made at once of gzip and deflate: 0.5 ms of a body that is nothing but zeros.
STEP_BYTES: Final = 256 * 1024

#: How much of a body is looked at before all of it: 30 us of a bomb that would take 15 ms in all.
SAMPLE_BYTES: Final = 128
#: How much of a bomb is recorded.
BOMB_BYTES: Final = 1024

#: Called between two steps, for who must not keep others waiting.
Between = Callable[[], None]


def at_once() -> None:
    """Go on: nobody waits."""


class InflateError(ValueError):
    """The body cannot be decoded; its text is `UNKNOWN`, `DAMAGED` or `TOO_LARGE`."""


def inflate(
    body: bytes,
    content_encoding: str,
    most_bytes: int = LIMIT_BYTES,
    between: Between = at_once,
) -> bytes:
    """Return `body` without its content codings (gzip, deflate, br, zstd, identity).

    Args:
        body: the body as it was on the wire.
        content_encoding: the header's value: codings in the order they were applied.
        most_bytes: of what comes out, where that is less than `LIMIT_BYTES`.
        between: called between two steps of gzip and deflate.

    Raises:
        InflateError: an unknown coding, damaged or cut data, or too much of it.
    """
    codings = [word.strip().lower() for word in content_encoding.split(",")]
    codings = [word for word in codings if word not in ("", "identity")]
    if len(codings) > LIMIT_CODINGS:
        raise InflateError(UNKNOWN)
    limit_bytes = min(most_bytes, LIMIT_BYTES, LIMIT_RATIO * len(body))
    if not body:
        return body
    try:
        for coding in reversed(codings):
            body = _decode(body, coding, limit_bytes, between)
    except (zlib.error, zstandard.ZstdError) as exc:
        raise InflateError(DAMAGED) from exc
    return body


def defused(body: bytes, content_encoding: str) -> bytes:
    """Return a whole body, or only the begin of one that is known to be too large without decoding it.

    What a bomb holds tells nobody anything, and keeping it would cost the worker as much as the request.
    """
    if len(body) <= BOMB_BYTES or content_encoding.strip().lower() not in _GZIP:
        return body
    try:
        is_bomb = _is_bomb(body, min(LIMIT_BYTES, LIMIT_RATIO * len(body)))
    except zlib.error:
        return body
    return body[:BOMB_BYTES] if is_bomb else body


def begins_like_a_bomb(body: bytes, content_encoding: str) -> bool:
    """Return whether a body in gzip alone, of which this is the begin, is compressed beyond reason."""
    try:
        return content_encoding.strip().lower() in _GZIP and _grows_beyond_reason(body)
    except zlib.error:
        return False


def _decode(body: bytes, coding: str, limit_bytes: int, between: Between) -> bytes:
    if coding in _GZIP:
        return _zlib(body, _GZIP_WBITS, limit_bytes, between)
    if coding == "deflate":
        # RFC 9110 section 8.4.1.2: zlib's format; some servers send the bare stream instead.
        has_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        wbits = zlib.MAX_WBITS if has_header else _RAW_WBITS
        return _zlib(body, wbits, limit_bytes, between)
    if coding == "zstd":
        return _zstd(body, limit_bytes)
    if coding == "br" and _HAS_BROTLI:
        return _brotli(body, limit_bytes)
    raise InflateError(UNKNOWN)


def _zlib(body: bytes, wbits: int, limit_bytes: int, between: Between) -> bytes:
    if wbits == _GZIP_WBITS and _is_bomb(body, limit_bytes):
        raise InflateError(TOO_LARGE)
    pieces = []
    room_bytes = limit_bytes
    # RFC 1952 section 2.2: a gzip file may be several members one after another.
    while True:
        decoder = zlib.decompressobj(wbits)
        while not decoder.eof:
            piece = decoder.decompress(body, min(room_bytes + 1, STEP_BYTES))
            room_bytes -= len(piece)
            if room_bytes < 0:
                raise InflateError(TOO_LARGE)
            body = decoder.unconsumed_tail
            if not piece and not body and not decoder.eof:
                raise InflateError(DAMAGED)
            pieces.append(piece)
            between()
        body = decoder.unused_data
        if wbits != _GZIP_WBITS or not body:
            return b"".join(pieces)


def _is_bomb(body: bytes, limit_bytes: int) -> bool:
    """Return whether a gzip body says that it is too large, and begins like one that is.

    The last four bytes are the length of the last member (RFC 1952 section 2.3.1), so a body of which
    they say too much is never decoded in the end. But of a body that was cut they say anything: hence
    the look at its begin, by which those that are not compressed beyond reason are called damaged.
    """
    return int.from_bytes(body[-4:], "little") > limit_bytes and _grows_beyond_reason(body)


def _grows_beyond_reason(body: bytes) -> bool:
    sample = body[:SAMPLE_BYTES]
    grown_bytes = LIMIT_RATIO * len(sample)
    return len(zlib.decompressobj(_GZIP_WBITS).decompress(sample, grown_bytes + 1)) > grown_bytes


def _zstd(body: bytes, limit_bytes: int) -> bytes:
    context = zstandard.ZstdDecompressor(max_window_size=LIMIT_BYTES)
    with context.stream_reader(body, read_across_frames=True) as reader:
        data: bytes = reader.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InflateError(TOO_LARGE)
    # The reader bounds the size and takes a cut frame for a whole one; the second decoder has no
    # bound, which is safe by now, and sees the cut.
    while body:
        decoder = context.decompressobj()
        decoder.decompress(body)
        if not decoder.eof:
            raise InflateError(DAMAGED)
        body = decoder.unused_data
    return data


def _brotli(body: bytes, limit_bytes: int) -> bytes:
    decoder = brotli.Decompressor()
    try:
        # Its buffer doubles as it grows, so that up to twice the limit is made before it stops.
        data: bytes = decoder.process(body, output_buffer_limit=limit_bytes + 1)
    except brotli.error as exc:
        raise InflateError(DAMAGED) from exc
    if len(data) > limit_bytes:
        raise InflateError(TOO_LARGE)
    if not decoder.is_finished():
        raise InflateError(DAMAGED)
    return data
