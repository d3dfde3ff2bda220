"""Answers' heads: what is passed on, and what cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from proxy.wire.response_head import ResponseHead, has_no_body, plain_answer, read_response_head


def read(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    """Read an answer that is good."""
    found = read_response_head(b"\r\n".join((start, *lines)))
    assert isinstance(found, ResponseHead), found
    return found


def test_only_end_to_end_fields_are_passed_on() -> None:
    """Framing and hop-by-hop fields are left out; the rest keeps its spelling."""
    head = read(
        b"Content-Length: 5", b"Connection: keep-alive, X-Hop", b"X-Hop: 1", b"Keep-Alive: x",
        b"Content-Type:text/plain ", b"X-Request-Id: q", b"X-Understudy-Mirror: 1",
    )  # fmt: skip
    assert head.lines == b"Content-Type: text/plain\r\nX-Request-Id: q\r\n"
    assert (head.length, head.content_type, head.has_request_id) == (5, b"text/plain", True)
    assert head.keep_alive


@pytest.mark.parametrize(
    ("start", "connection", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", b"close", False),
        (b"HTTP/1.1 200 OK", b"Keep-Alive, Close", False),
        (b"HTTP/1.1 200 OK", b"x", True),
        (b"HTTP/1.0 200 OK", b"x", False),
        (b"HTTP/1.0 200 OK", b"Keep-Alive", True),
    ],
)
def test_connections_persist_as_the_version_says(
    start: bytes, connection: bytes, keep_alive: bool
) -> None:
    """RFC 9112 section 9.3."""
    assert read(b"Connection: " + connection, start=start).keep_alive is keep_alive


def test_spaces_before_the_colon_are_taken_out() -> None:
    """RFC 9112 section 5.1: in a request they are refused, in an answer removed."""
    assert read(b"Server \t: x").lines == b"Server: x\r\n"
    assert read(b"Content-Length : 3").length == 3


@pytest.mark.parametrize("start", [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"\r\nHTTP/1.1 200  a \xff"])
def test_odd_status_lines_are_understood(start: bytes) -> None:
    """Without a reason, with an odd one, after an empty line."""
    assert read(start=start).status == 200


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\r\n",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1 099 X",
        b"HTTP/1.1 600 X",
        b"HTTP/1.1 20 X",
        b"HTTP/1.1\t200 X",
        b"HTTP/1.1 200 X\n",
        b"RTSP/1.1 200 X",
        b"HTTP/1.1 200 X\r\n folded: 1",
        b"HTTP/1.1 200 X\r\na b: 1",
        b"HTTP/1.1 200 X\r\nx: \x00",
        b"HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 X\r\nContent-Length: -1",
        b"HTTP/1.1 200 X\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 X\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked",
    ],
)
def test_what_two_clients_could_read_differently_is_not_passed_on(block: bytes) -> None:
    """The reader says why, in words that an operator can search for."""
    found = read_response_head(block)
    assert isinstance(found, str)
    assert found


def test_a_length_said_twice_is_one_length() -> None:
    """RFC 9112 section 6.3: the same value may be taken as one."""
    assert read(b"Content-Length: 2", b"Content-Length: 2").length == 2


def test_bodiless_answers() -> None:
    """RFC 9112 section 6.3."""
    assert has_no_body(b"HEAD", 200)
    assert has_no_body(b"GET", 304)
    assert not has_no_body(b"GET", 200)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(block: bytes) -> None:
    """It accepts or says why not; it never raises."""
    assert isinstance(read_response_head(b"HTTP/1.1 200 OK\r\n" + block), ResponseHead | str)


def test_plain_answers_are_whole_and_escaped() -> None:
    """A quote in the sentence does not break the JSON."""
    data = plain_answer(400, 'say "no"', b"connection: close\r\n")
    assert data.endswith(b'{"error": "say \\"no\\""}\n')
    assert b"connection: close\r\n" in data
    assert plain_answer(400, 'say "no"', has_body=False).endswith(b"length: 24\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"set-cookie: s3cret\0", "of set-cookie"),
        (b" s3cret: x", "of 10 bytes"),
        (b"s3cret", "of 6 bytes"),
        (b"x s3cret: x", "of 11 bytes"),
        (b"content-length: s3cret", "Content-Length of 6 bytes"),
        (b"transfer-encoding: s3cret", "Transfer-Encoding"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_told_without_a_value(line: bytes, told: str) -> None:
    """It goes into logs and records, and the value may be a session's cookie."""
    found = read_response_head(b"HTTP/1.1 200 OK\r\n" + line)
    assert isinstance(found, str)
    assert told in found
    assert "s3cret" not in found
    assert "s3cret" not in str(read_response_head(b"HTTP/1.1 s3cret"))
