"""What is refused, and what goes on, of a request's head."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from proxy.wire.request_head import Field, Refusal, RequestHead, read_request_head

HOST: Field = (b"Host", b"a")


def read(*headers: Field, target: bytes = b"/", version: str = "1.1") -> RequestHead | Refusal:
    """Read a POST with these fields."""
    return read_request_head(b"POST", target, version, list(headers), b"understudy-1")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 400),
        ((HOST, HOST), 400),
        (((b"Host", b"a b"),), 400),
        (((b"Host", b"user@a"),), 400),
        ((HOST, (b"Content-Length", b"1"), (b"Content-Length", b"1")), 400),
        ((HOST, (b"Content-Length", b"+1")), 400),
        ((HOST, (b"Content-Length", b"1" * 19)), 400),
        ((HOST, (b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")), 400),
        ((HOST, (b"Transfer-Encoding", b"gzip, chunked")), 501),
        ((HOST, (b"Via", b"1.1 other, 1.1 understudy-1")), 508),
    ],
)
def test_what_two_servers_could_read_differently_is_refused(
    headers: tuple[Field, ...], status: int
) -> None:
    """Framing, Host and loops."""
    found = read(*headers)
    assert isinstance(found, Refusal)
    assert found.status == status


@pytest.mark.parametrize(
    "target", [b"/a b", b"/\x7f", b"/\xff", b"*", b"a", b"//\x00", b"ftp://a/"]
)
def test_targets_with_foreign_characters_or_forms_are_refused(target: bytes) -> None:
    """Only a path, or an absolute http address."""
    assert isinstance(read(HOST, target=target), Refusal)


def test_old_clients_may_leave_out_the_host_but_not_send_chunks() -> None:
    """RFC 9112 sections 3.2 and 6.1."""
    found = read(version="1.0")
    assert isinstance(found, RequestHead)
    assert not found.keep_alive
    chunked = read((b"Transfer-Encoding", b"chunked"), version="1.0")
    assert isinstance(chunked, Refusal)
    kept = read((b"Connection", b"keep-alive"), version="1.0")
    assert isinstance(kept, RequestHead)
    assert kept.keep_alive


def test_an_absolute_target_names_the_host() -> None:
    """RFC 9112 section 3.2.2: the Host field is ignored."""
    found = read(HOST, target=b"http://real:81/p?q")
    assert isinstance(found, RequestHead)
    assert (found.host, found.target, found.path) == (b"real:81", b"/p?q", b"/p")


def test_fields_that_connection_names_are_dropped() -> None:
    """And those that are hop by hop or private anyway."""
    found = read(
        HOST, (b"Connection", b"close, X-A"), (b"X-A", b"1"), (b"X-B", b"2"),
        (b"X-Understudy-Mirror", b"1"), (b"Upgrade", b"h2c"),
    )  # fmt: skip
    assert isinstance(found, RequestHead)
    assert found.lines == b"X-B: 2\r\n"
    assert not found.keep_alive


def test_repeated_fields_go_on_repeated() -> None:
    """Their order and number are the client's."""
    found = read(HOST, (b"Accept", b"a"), (b"Accept", b"b"))
    assert isinstance(found, RequestHead)
    assert found.lines == b"Accept: a\r\nAccept: b\r\n"


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", (b"a" * 32, b"01")),
        (b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", None),
        (b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", None),
        (b"junk", None),
    ],
)
def test_traceparent_is_read_or_ignored(value: bytes, trace: tuple[bytes, bytes] | None) -> None:
    """W3C Trace Context section 3.2."""
    found = read(HOST, (b"traceparent", value))
    assert isinstance(found, RequestHead)
    assert found.trace == trace


@given(
    st.lists(st.tuples(st.from_regex(rb"\A[A-Za-z-]{1,12}\Z"), st.from_regex(rb"\A[ -~]{0,20}\Z")))
)
def test_the_forwarded_lines_never_hold_a_framing_field(headers: list[Field]) -> None:
    """Whatever comes in, length, coding, host and connection are ours to write."""
    found = read(HOST, *headers)
    if isinstance(found, RequestHead):
        names = {line.partition(b":")[0].lower() for line in found.lines.split(b"\r\n")}
        assert not names & {b"content-length", b"transfer-encoding", b"host", b"connection"}
