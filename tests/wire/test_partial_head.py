"""Heads in pieces: whole in the end, refused as soon as they cannot be heads, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from proxy.wire.partial_head import HeadFault, PartialHead

LIMIT = 10_000


def feed(data: bytes, size: int = 1) -> tuple[bytes, bytes] | HeadFault | None:
    """Add `data` in pieces of `size`; return the first verdict, with all that was not yet fed."""
    head = PartialHead(LIMIT)
    for at in range(0, len(data), size):
        found = head.add(data[at : at + size])
        if isinstance(found, tuple):
            return found[0], found[1] + data[at + size :]
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_head_is_put_together(size: int) -> None:
    """Empty lines before it are ignored, what follows it is returned."""
    head = b"GET / HTTP/1.1\r\nHost: a"
    assert feed(b"\r\n\r\n%b\r\n\r\nrest" % head, size) == (head, b"rest")


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\nHost", b"GET /\rx", b"\r\r\n\r\n", b"a\r\r\nb", b"\n", b"\r\n\n"]
)
def test_a_bare_line_end_is_refused_at_once(data: bytes, size: int) -> None:
    """RFC 9112 section 2.2: before the deadline, and wherever it is cut."""
    assert feed(data, size) is HeadFault.BARE_LINE_END


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_endless_heads_are_given_up(size: int) -> None:
    """At the limit, and a target at its own; never later."""
    assert feed(b"GET /" + b"a" * 20_000, size) is HeadFault.TARGET_TOO_LONG
    assert feed(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3_000, size) is HeadFault.TOO_LARGE


def test_empty_lines_are_no_head() -> None:
    """So they buy nobody more time."""
    head = PartialHead(LIMIT)
    assert head.add(b"\r\n" * 1000) is None
    assert head.is_empty
    assert head.add(b"\r") is None
    assert head.add(b"\nG") is None
    assert not head.is_empty


@given(st.text("ab:\r\n ", max_size=60).map(str.encode), st.integers(1, 9))
def test_cuts_change_nothing(data: bytes, size: int) -> None:
    """The verdict on a head does not depend on how it arrives."""
    whole, cut = feed(data, 1000), feed(data, size)
    assert cut == whole
