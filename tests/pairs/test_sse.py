"""Events of a captured stream."""

from __future__ import annotations

import pytest

from proxy.pairs import sse


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata:b\r\rdata:  c\n\n", [b"a", b"b", b" c"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": ping\n\nevent: x\nid: 1\ndata: a\n\nretry: 5\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"data: cut", [b"cut"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n", [b"a"]),
    ],
)
def test_data_of_events(body: bytes, expected: list[bytes]) -> None:
    """Any line end, comments skipped, lines joined, what was cut off kept."""
    assert sse.data(body) == expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, False),
        ("application/json", False),
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-streams", False),
    ],
)
def test_what_a_stream_is(content_type: str | None, expected: bool) -> None:
    """By its media type alone."""
    assert sse.is_stream(content_type) is expected
