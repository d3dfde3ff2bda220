"""Chunked bodies, whole and in every piecemeal way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from proxy.wire.body import MAX_EXTRA_BYTES, MAX_LINE_BYTES, ChunkedBody, ChunkError


def decode(data: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes | None] | str:
    """Return (body, what follows its end or None), or why it is malformed."""
    body, out, rest = ChunkedBody(), b"", None
    edges = [0, *sorted(cut for cut in cuts or [] if 0 < cut < len(data)), len(data)]
    try:
        for start, stop in itertools.pairwise(edges):
            if rest is None:
                pieces, rest = body.read(data[start:stop])
                out += b"".join(pieces)
            else:
                rest += data[start:stop]
    except ChunkError as exc:
        return str(exc)
    return out, rest


@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
        (b"00A\r\n0123456789\r\n1\r\n.\r\n000\r\n\r\n", b"0123456789.", b""),
        (b'1;a;b=c ; d = "e;\\"\r"\r\n', None, None),
        (b'1;a;b=c ; d = "e;\\"f"\r\nx\r\n0;z\r\n\r\n', b"x", b""),
        (b"1\r\nx\r\n0\r\nA: 1\r\nAuthorization: no\r\n\r\n", b"x", b""),
        (b"1\r\nx\r\n0\r\n", b"x", None),
    ],
)
def test_bodies_are_taken_apart(data: bytes, body: bytes | None, rest: bytes | None) -> None:
    """Sizes, extensions and trailers as in RFC 9112 section 7.1."""
    found = decode(data)
    assert isinstance(found, str) if body is None else found == (body, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"+1\r\nx", b"-1\r\nx", b"0x1\r\nx", b"1_0\r\nx", b" 1\r\nx", b"1 \r\nx", b"1\nx", b"\r\n",
        b"1\r\rx", b"g\r\n", b"1;\r\nx", b"1;a=\r\nx", b'1;a="b\r\nx', b"1;a\nb\r\nx", b"1;a\x00\r\n",
        b"11111111111111111\r\n", b"1\r\nxy", b"1\r\nx\n0\r\n\r\n", b"1\r\nx\r\n\r\n",
        b"0\r\nHost: a\r\n\r\n", b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\ntransfer-encoding: x\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n", b"0\r\nx : 1\r\n\r\n", b"0\r\nx\r\n\r\n", b"0\r\nx: \x00\r\n\r\n",
        b"1;" + b"a" * MAX_LINE_BYTES + b"\r\nx\r\n" + b"1;" + b"a" * MAX_LINE_BYTES + b"\r\nx\r\n",
        b"0\r\n" + b"a: 1\r\n" * (MAX_EXTRA_BYTES // 4 + 1) + b"\r\n",
        b"0;" + b"a" * (MAX_LINE_BYTES + 1),
    ],
)  # fmt: skip
def test_anything_else_is_malformed(data: bytes) -> None:
    """In one piece and byte by byte."""
    assert isinstance(decode(data), str)
    assert isinstance(decode(data, list(range(len(data)))), str)


@pytest.mark.parametrize("digits", range(1, 17))
def test_a_size_is_the_same_however_many_digits_it_has(digits: int) -> None:
    """Few of them are read without the pattern, more with it; 16 are what fits into 64 bits."""
    data = b"%0*x\r\nhello world\r\n%0*X\r\n0123456789\r\n0\r\n\r\n" % (digits, 11, digits, 10)
    assert decode(data) == (b"hello world0123456789", b"")
    assert decode(data, list(range(len(data)))) == (b"hello world0123456789", b"")


def test_what_lines_with_extensions_count_does_not_depend_on_cuts() -> None:
    """The line itself counts, and not the end of the chunk before it."""
    data, counted = b"1;a\r\nx\r\n2;bc\r\nyz\r\n0;d\r\n", []
    for cut in range(len(data)):
        body = ChunkedBody()
        for part in (data[:cut], data[cut:]):
            body.read(part)
        counted.append(body.extra_bytes)
    assert set(counted) == {len(b"1;a\r\n2;bc\r\n0;d\r\n")}


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from([b"", b";a", b' ; b="c"']))
    ),
    st.sampled_from([b"", b"x-t: 1\r\n"]),
    st.binary(max_size=10),
    st.lists(st.integers(1, 500)),
)
def test_cuts_change_nothing(
    chunks: list[tuple[bytes, bytes]], trailer: bytes, after: bytes, cuts: list[int]
) -> None:
    """However the bytes arrive, the body and what follows it are the same."""
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), ext, chunk) for chunk, ext in chunks)
    data += b"0\r\n%b\r\n%b" % (trailer, after)
    assert decode(data, cuts) == (b"".join(chunk for chunk, _ in chunks), after)


@given(
    st.integers(-3, 3),
    st.sampled_from([b"1;%b\r\nx\r\n0\r\n\r\n", b"0;%b\r\n\r\n", b"0\r\n%b: y\r\n\r\n"]),
    st.lists(st.integers(1, MAX_LINE_BYTES + 10), max_size=4),
)
def test_cuts_do_not_change_what_is_too_long(more: int, line: bytes, cuts: list[int]) -> None:
    """A line at its limit is judged by its length, not by the packets that it came in."""
    data = line % (b"a" * (MAX_LINE_BYTES - 6 + more))
    assert decode(data, cuts) == decode(data)


@given(st.binary(max_size=60), st.lists(st.integers(1, 60)))
def test_cuts_change_nothing_for_garbage_either(data: bytes, cuts: list[int]) -> None:
    """What is malformed in one piece is malformed in many, and the other way round."""
    whole, cut = decode(b"5\r\nhello\r\n" + data), decode(b"5\r\nhello\r\n" + data, cuts)
    assert isinstance(whole, str) == isinstance(cut, str)
    if not isinstance(whole, str):
        assert whole == cut
