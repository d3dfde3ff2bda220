"""What is refused, and what goes on, of a request's head."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from proxy.wire.request_head import MAX_FIELDS, Refusal, RequestHead, read_request_head

HOST = b"Host: a"


def read(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> RequestHead | Refusal:
    """Read a request with these field lines."""
    return read_request_head(b"\r\n".join((start, *lines)), b"understudy-1")


def accepted(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> RequestHead:
    """Read a request that is good."""
    found = read(*lines, start=start)
    assert isinstance(found, RequestHead), found
    return found


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((), 400),
        ((HOST, HOST), 400),
        ((b"Host: a b",), 400),
        ((b"Host: user@a",), 400),
        ((b"Host: a, b",), 400),
        ((b"Host: %zz",), 400),
        ((b"Host: [1::2::3]",), 400),
        ((b"Host: [1.2.3.4]",), 400),
        ((HOST, b"Content-Length: 1", b"Content-Length: 1"), 400),
        ((HOST, b"Content-Length: +1"), 400),
        ((HOST, b"Content-Length: 1, 1"), 400),
        ((HOST, b"Content-Length:"), 400),
        ((HOST, b"Content-Length: " + b"1" * 19), 400),
        ((HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        ((HOST, b"Transfer-Encoding: gzip, chunked"), 501),
        ((HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        ((HOST, b"Transfer-Encoding: \x0bchunked"), 400),
        ((HOST, b"Content-Length : 1"), 400),
        ((HOST, b" folded: 1"), 400),
        ((HOST, b"no colon"), 400),
        ((HOST, b": no name"), 400),
        ((HOST, b"n\xc3\xa4me: 1"), 400),
        ((HOST, b"nul: \x00"), 400),
        ((HOST, b"bare: \r"), 400),
        ((HOST, b"bare: \nx: 1"), 400),
        ((HOST, b"Via: 1.1 other, 1.1 understudy-1"), 508),
        ((HOST, b"Via: 1.1 understudy-1", b"Via: 1.1 other"), 508),
        ((HOST, b"Expect: 200-ok"), 417),
        ((HOST, *[b"a: 1"] * MAX_FIELDS), 431),
    ],
)
def test_what_two_servers_could_read_differently_is_refused(
    lines: tuple[bytes, ...], status: int
) -> None:
    """Framing, Host, loops, and lines that are no fields."""
    found = read(*lines)
    assert isinstance(found, Refusal)
    assert found.status == status


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"GET /#a HTTP/1.1", 400),
        (b"GET ftp://a/ HTTP/1.1", 400),
        (b"GET http:///a HTTP/1.1", 400),
        (b"GET http://a@b@c/ HTTP/1.1", 400),
        (b"GET http://a#b HTTP/1.1", 400),
        (b"GET http://:80/ HTTP/1.1", 400),
        (b"GET http://u@:80/ HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /", 400),
        (b"GET / RTSP/1.0", 400),
        (b"G(T / HTTP/1.1", 400),
        (b"get\x00 / HTTP/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"CONNECT a:1 HTTP/1.1", 501),
        (b"GET /" + b"a" * 8300 + b" HTTP/1.1", 414),
    ],
)
def test_request_lines_out_of_the_grammar_are_refused(start: bytes, status: int) -> None:
    """RFC 9112 section 3, whatever the fields say."""
    found = read(HOST, start=start)
    assert isinstance(found, Refusal)
    assert found.status == status


def test_old_clients_may_leave_out_the_host_but_not_send_chunks() -> None:
    """RFC 9112 sections 3.2 and 6.1."""
    start = b"POST / HTTP/1.0"
    assert not accepted(start=start).keep_alive
    assert isinstance(read(b"Transfer-Encoding: chunked", start=start), Refusal)
    assert accepted(b"Connection: keep-alive", start=start).keep_alive
    assert not accepted(b"Expect: 100-continue", start=start).expects_continue


@pytest.mark.parametrize(
    ("start", "host", "target", "path"),
    [
        (b"GET http://real:81/p?q HTTP/1.1", b"real:81", b"/p?q", b"/p"),
        (b"GET HTTP://real?q HTTP/1.1", b"real", b"/?q", b"/"),
        (b"GET http://user:pass@real/ HTTP/1.1", b"real", b"/", b"/"),
        (b"OPTIONS http://real HTTP/1.1", b"real", b"*", b"/"),
        (b"OPTIONS * HTTP/1.1", b"a", b"*", b"/"),
        (b"-ODD_ /p HTTP/1.1", b"a", b"/p", b"/p"),
    ],
)
def test_targets_have_four_forms(start: bytes, host: bytes, target: bytes, path: bytes) -> None:
    """RFC 9112 section 3.2; an address in the target beats the Host field."""
    found = accepted(HOST, start=start)
    assert (found.host, found.target, found.path) == (host, target, path)


def test_empty_lines_before_the_request_are_ignored() -> None:
    """RFC 9112 section 2.2."""
    assert accepted(HOST, start=b"\r\n\r\nGET /p HTTP/1.1").path == b"/p"
    assert isinstance(read(start=b"\r\n"), Refusal)


def test_fields_that_connection_names_are_dropped() -> None:
    """And those that are hop by hop or private anyway, also in the spelling that CGI confuses."""
    found = accepted(
        HOST, b"Connection: close, X-A", b"X-A: 1", b"X-B:2 ", b"X-Understudy-Mirror: 1",
        b"Upgrade: h2c", b"Content_Length: 5", b"X_Forwarded_For: 1", b"My_Own: 1",
    )  # fmt: skip
    assert found.lines == b"X-B: 2\r\nMy_Own: 1\r\n"
    assert found.fields == {b"x-b": b"2", b"my_own": b"1"}
    assert not found.keep_alive


@pytest.mark.parametrize(
    ("upgrade", "framing", "is_refused"),
    [
        (b"websocket", b"Content-Length: 1", True),
        (b"websocket", b"Transfer-Encoding: chunked", True),
        (b"", b"Content-Length: 1", True),
        (b"h2c, x", b"Content-Length: 1", True),
        (b"websocket", b"Content-Length: 0", False),
        (b"H2C", b"Content-Length: 1", False),
    ],
)
def test_an_upgrade_with_a_body_is_refused(
    upgrade: bytes, framing: bytes, is_refused: bool
) -> None:
    """Its body may be in either protocol; but h2c is left out, as Java sends it with each POST."""
    found = read(HOST, b"Connection: Upgrade", b"Upgrade: " + upgrade, framing)
    if is_refused:
        assert isinstance(found, Refusal)
        assert found.status == 400
    else:
        assert isinstance(found, RequestHead)
        assert found.lines == b""


def test_a_trace_with_a_body_is_refused() -> None:
    """A backend that does not read it would take it for the next request."""
    start = b"TRACE / HTTP/1.1"
    assert accepted(HOST, b"Content-Length: 0", start=start).length == 0
    for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
        assert isinstance(read(HOST, framing, start=start), Refusal)


@pytest.mark.parametrize(
    "name",
    [
        b"Content_Length", b"Transfer---Encoding", b"Transfer-_Encoding", b"X-Forwarded-For",
        b"X_Forwarded_For", b"X-Forwarded-Ssl", b"X-Forwarded-Client-Cert", b"X--Forwarded-User",
        b"Forwarded", b"X-Real-IP", b"X_Real_IP", b"X-Understudy-Mirror", b"X_Understudy__Mirror",
    ],
)  # fmt: skip
def test_what_a_backend_could_believe_is_not_passed_on(name: bytes) -> None:
    """Names of ours, of a proxy in front, and those that a gateway reads as framing."""
    found = accepted(HOST, b"%b: 1" % name, b"X_Kept: 1", b"X-Kept--Too: 1")
    assert found.lines == b"X_Kept: 1\r\nX-Kept--Too: 1\r\n"
    assert found.fields.keys() == {b"x_kept", b"x-kept--too"}


def test_repeated_fields_go_on_repeated() -> None:
    """Their order and number are the client's."""
    assert accepted(HOST, b"Accept: a", b"Accept: b").lines == b"Accept: a\r\nAccept: b\r\n"


def test_the_way_so_far_is_passed_on() -> None:
    """RFC 9110 section 7.6.3: else a loop through two proxies would never be seen."""
    assert accepted(HOST, b"Via: 1.0 a", b"Via: 1.1 b").lines == b"via: 1.0 a, 1.1 b\r\n"


def test_more_lines_than_are_remembered_change_nothing() -> None:
    """The memory of lines is bounded, and forgets without harm."""
    for number in range(10_000):
        assert accepted(HOST, b"x-n: %d" % number).fields == {b"x-n": b"%d" % number}
    assert accepted(HOST, b"x-n: 1", b"Content-Length: 3").length == 3


@given(st.lists(st.from_regex(rb"\A[A-Za-z-]{1,12}:[ -~]{0,20}\Z")))
def test_the_forwarded_lines_never_hold_a_framing_field(lines: list[bytes]) -> None:
    """Whatever comes in, length, coding, host and connection are ours to write."""
    found = read(HOST, *lines)
    if isinstance(found, RequestHead):
        names = {line.partition(b":")[0].lower() for line in found.lines.split(b"\r\n")}
        assert not names & {b"content-length", b"transfer-encoding", b"host", b"connection"}


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(block: bytes) -> None:
    """It accepts or refuses; it never raises."""
    assert isinstance(read_request_head(block, b"me"), Refusal | RequestHead)
