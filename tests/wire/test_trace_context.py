"""W3C Trace Context: the cases of the specification's own test suite, and our ids of spans."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from proxy.wire.request_head import RequestHead, read_request_head
from proxy.wire.trace_context import (
    CANDIDATE,
    LEG_BITS,
    PRIMARY,
    REPLICATE,
    exchange_span_id,
    is_sampled,
    is_tracestate,
    leg_span_id,
    read_traceparent,
)

TRACE = b"12345678901234567890123456789012"
PARENT = b"1234567890123456"
GOOD = b"00-%b-%b-01" % (TRACE, PARENT)


def head(*lines: bytes) -> RequestHead:
    """Read a request with these lines."""
    found = read_request_head(b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *lines)), b"me")
    assert isinstance(found, RequestHead)
    return found


@pytest.mark.parametrize(
    "value",
    [GOOD, b"cc-" + GOOD[3:], b"cc-" + GOOD[3:] + b"-what-the-future-will-be-like", b"01-" + GOOD[3:]],
)  # fmt: skip
def test_a_valid_traceparent_is_joined(value: bytes) -> None:
    """Version 00, and later ones as far as 00 goes."""
    found = read_traceparent(value)
    assert found is not None
    assert (found.trace_id, found.parent_id, found.flags) == (TRACE, PARENT, b"01")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"junk", GOOD + b".", GOOD + b"-what-the-future-will-be-like",
        b"cc-" + GOOD[3:] + b".what-the-future-will-be-like",
        b"ff-" + GOOD[3:], b".0" + GOOD[2:], b"0." + GOOD[2:], b"000" + GOOD[2:], b"0" + GOOD[2:],
        b"00-%b-%b-01" % (b"0" * 32, PARENT), b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-.%b-%b-01" % (TRACE[1:], PARENT), b"00-%b.-%b-01" % (TRACE[1:], PARENT),
        b"00-3%b-%b-01" % (TRACE, PARENT), b"00-%b-%b-01" % (TRACE[1:], PARENT),
        b"00-%b-3%b-01" % (TRACE, PARENT), b"00-%b-%b-01" % (TRACE, PARENT[1:]),
        b"00-%b-%b-.0" % (TRACE, PARENT), b"00-%b-%b-0." % (TRACE, PARENT),
        b"00-%b-%b-001" % (TRACE, PARENT), b"00-%b-%b-1" % (TRACE, PARENT), b"00-%b-%b" % (TRACE, PARENT),
        b"00-%b-%b-01" % (b"A" * 32, PARENT), b"00-%b-%b-01" % (TRACE, b"A" * 16), b"00-%b-%b-0A" % (TRACE, PARENT),
        GOOD + b", " + GOOD, b"cc-" + GOOD[3:] + b"-x, " + GOOD,
    ],
)  # fmt: skip
def test_an_invalid_traceparent_starts_a_new_trace(value: bytes) -> None:
    """Sections 3.2.2 and 4.3."""
    assert read_traceparent(value) is None


def test_a_traceparent_sent_twice_starts_a_new_trace() -> None:
    """Whichever of the two were taken, the other's owner would be wrong."""
    twin = GOOD.replace(b"2-", b"1-", 1)
    assert head(b"traceparent: " + GOOD, b"TraceParent: " + twin).trace is None
    assert head(b"TRACEPARENT: \t" + GOOD + b" ").trace is not None


@pytest.mark.parametrize(
    ("sent", "passed"), [(b"00", b"00"), (b"01", b"01"), (b"03", b"03"), (b"ff", b"03")]
)
def test_unknown_flags_are_sent_as_zero(sent: bytes, passed: bytes) -> None:
    """Section 3.2.2.5.2."""
    found = read_traceparent(GOOD[:-2] + sent)
    assert found is not None
    assert found.flags == passed
    assert is_sampled(found.flags) == (sent != b"00")


MEMBERS = [b"bar%02d=%02d" % (number, number) for number in range(1, 34)]
ALL = bytes(range(0x20, 0x2C)) + bytes(range(0x2D, 0x3D)) + bytes(range(0x3E, 0x7F))


@pytest.mark.parametrize(
    "value",
    [
        b"foo=1", b"foo=1,bar=2", b"foo=1 \t , \t bar=2, \t baz=3", b"foo=1, ", b", foo=1",
        b",".join(MEMBERS[:32]), b"z" * 256 + b"=1", b"t" * 241 + b"@" + b"v" * 14 + b"=1",
        b"abcdefghijklmnopqrstuvwxyz0123456789_-*/=" + ALL, b"a_-*/0@a-z0-9_-*/=" + ALL, b"0a=1",
        b"foo=" + b"v" * 256, b"a=" + b"v" * 256 + b",b=" + b"v" * 256 + b",c=" + b"v" * 256,
    ],
)  # fmt: skip
def test_a_valid_tracestate_goes_on_unchanged(value: bytes) -> None:
    """To every leg, as one line."""
    assert is_tracestate(value)
    found = head(b"traceparent: " + GOOD, b"tracestate: " + value)
    assert b"tracestate: %b\r\n" % value.strip() in found.lines


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b",", b"foo =1", b"FOO=1", b"foo.bar=1", b"foo@=1,bar=2", b"@foo=1,bar=2",
        b"foo@@bar=1,bar=2", b"foo@bar@baz=1,bar=2", b",".join(MEMBERS), b"z" * 257 + b"=1",
        b"t" * 242 + b"@v=1", b"t@" + b"v" * 15 + b"=1", b"foo=bar=baz", b"foo=,bar=3", b"foo",
        b"foo=1,foo=1", b"foo=1,foo=2", b"foo=" + b"v" * 257, b"foo=\xc3\xa4",
    ],
)  # fmt: skip
def test_an_invalid_tracestate_is_dropped_whole(value: bytes) -> None:
    """The trace goes on without it (section 3.3.1)."""
    found = head(b"traceparent: " + GOOD, b"tracestate: " + value)
    assert b"tracestate" not in found.lines
    assert found.trace is not None


def test_several_tracestate_lines_are_one_list_in_their_order() -> None:
    """RFC 9110 section 5.3."""
    found = head(b"tracestate: foo=1,bar=2", b"traceparent: " + GOOD, b"TraceState: rojo=1", b"tracestate: baz=3")  # fmt: skip
    assert found.lines == b"tracestate: foo=1,bar=2, rojo=1, baz=3\r\n"


def test_a_tracestate_without_its_traceparent_is_dropped() -> None:
    """A new trace starts, to which it does not belong."""
    assert head(b"tracestate: foo=1").lines == b""
    assert head(b"tracestate: foo=1", b"traceparent: junk").lines == b""
    named = head(b"traceparent: " + GOOD, b"tracestate: foo=1", b"connection: tracestate")
    assert named.lines == b""


@given(st.integers(0, 2 ** (64 - LEG_BITS) - 1))
def test_no_two_spans_of_an_exchange_have_one_id(bits: int) -> None:
    """None is zero, and all fit in 64 bits."""
    exchange = exchange_span_id(bits)
    legs = [PRIMARY, REPLICATE, *range(CANDIDATE, CANDIDATE + 16)]
    ids = [exchange, *(leg_span_id(exchange, leg) for leg in legs)]
    assert len(set(ids)) == len(ids)
    assert all(0 < each < 2**64 for each in ids)
    assert {each >> LEG_BITS << LEG_BITS for each in ids} == {exchange}
