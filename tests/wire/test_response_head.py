"""Answers' heads, and the short way for mirrored answers."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, strategies as st

from proxy.wire.response_head import (
    has_no_body,
    plain_answer,
    read_response_head,
    read_whole_answer,
)


def test_only_end_to_end_fields_are_passed_on() -> None:
    """Framing and hop-by-hop fields are left out; the rest keeps its spelling."""
    headers = [
        (b"Content-Length", b"5"), (b"Connection", b"keep-alive, X-Hop"), (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"), (b"Content-Type", b"text/plain"), (b"X-Request-Id", b"q"),
    ]  # fmt: skip
    head = read_response_head(200, headers, for_client=True)
    assert head.lines == b"Content-Type: text/plain\r\nX-Request-Id: q\r\n"
    assert (head.length, head.content_type, head.has_request_id) == (5, b"text/plain", True)


def test_bodiless_answers() -> None:
    """RFC 9112 section 6.3."""
    assert has_no_body(b"HEAD", 200)
    assert has_no_body(b"GET", 304)
    assert not has_no_body(b"GET", 200)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 100 C\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
    ],
)
def test_the_short_way_leaves_everything_unusual_to_the_parser(data: bytes) -> None:
    """Incomplete, ambiguous, chunked, interim, closing or old answers."""
    assert read_whole_answer(data) is None


@given(
    st.integers(200, 599),
    st.binary(max_size=200),
    st.sampled_from([b"Content-Type: a/B\r\n", b"X-Y: 1\r\nCONTENT-TYPE:a/B \r\n", b""]),
)
def test_the_short_way_agrees_with_the_parser(status: int, body: bytes, fields: bytes) -> None:
    """Where it answers, status, type and body are what httptools reads."""

    class Seen:
        body = b""

        def on_body(self, data: bytes) -> None:
            self.body += data

    data = b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n" % (status, fields, len(body)) + body
    found = read_whole_answer(data)
    assert found is not None
    head, start = found
    seen = Seen()
    parser = httptools.HttpResponseParser(seen)
    if not has_no_body(b"POST", status):
        parser.feed_data(data)
        assert (head.status, data[start:]) == (parser.get_status_code(), seen.body)
    assert head.content_type == (b"a/B" if fields else None)


def test_plain_answers_are_whole_and_escaped() -> None:
    """A quote in the sentence does not break the JSON."""
    data = plain_answer(400, 'say "no"', close=True)
    assert data.endswith(b'{"error": "say \\"no\\""}\n')
    assert b"connection: close\r\n" in data
