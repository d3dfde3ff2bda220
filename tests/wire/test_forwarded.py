"""What a trusted proxy says of its client, and what a client cannot make it say."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, strategies as st

from proxy.wire.forwarded import MAX_HOPS, TrustedPeer, TrustedProxies

TRUSTED = ("10.0.0.0/8", "fd00::/8")
PEER = b"10.0.0.9"


def front(host: bytes = PEER) -> TrustedPeer:
    """Return a trusted peer."""
    found = TrustedProxies(TRUSTED).peer(host, b"http", b"me")
    assert found is not None
    return found


def read(*lines: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return (client, fields upstream) of a request with these field lines."""
    block = b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *lines, b"X-Last: 1"))
    client, upstream = front().read(block)
    fields = dict(line.split(b": ", 1) for line in upstream.split(b"\r\n")[:-1])
    assert fields.pop(b"via") == b"1.1 me"
    return client, fields


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        (b"10.0.0.1", True),
        (b"11.0.0.1", False),
        (b"fd00::1", True),
        (b"fe80::1", False),
        (b"::ffff:10.0.0.1", True),
        (b"::ffff:11.0.0.1", False),
        (b"unknown", False),
        (b"", False),
    ],
)
def test_peers_are_trusted_by_their_network(host: bytes, is_trusted: bool) -> None:
    """Also an IPv4 peer of a socket that listens on IPv6."""
    assert (TrustedProxies(TRUSTED).peer(host, b"http", b"me") is not None) is is_trusted


def test_nobody_is_trusted_by_default() -> None:
    """And then nothing is made that could cost a request anything."""
    assert TrustedProxies(()).peer(b"127.0.0.1", b"http", b"me") is None


@pytest.mark.parametrize(
    ("value", "client", "chain"),
    [
        (b"1.1.1.1", b"1.1.1.1", b"1.1.1.1, 10.0.0.9"),
        (b"1.1.1.1, 10.0.0.1", b"1.1.1.1", b"1.1.1.1, 10.0.0.1, 10.0.0.9"),
        (b"6.6.6.6, 1.1.1.1,10.0.0.1", b"1.1.1.1", b"6.6.6.6, 1.1.1.1, 10.0.0.1, 10.0.0.9"),
        (b"10.0.0.2, 10.0.0.1", b"10.0.0.2", b"10.0.0.2, 10.0.0.1, 10.0.0.9"),
        (b"1.1.1.1:4711", b"1.1.1.1", b"1.1.1.1, 10.0.0.9"),
        (b"[2001:DB8::1]:4711", b"2001:db8::1", b"2001:db8::1, 10.0.0.9"),
        (b"2001:db8::1", b"2001:db8::1", b"2001:db8::1, 10.0.0.9"),
        (b"::ffff:1.1.1.1", b"1.1.1.1", b"1.1.1.1, 10.0.0.9"),
        (b"<script>, 1.1.1.1", b"1.1.1.1", b"1.1.1.1, 10.0.0.9"),
        (b"6.6.6.6, unknown, 10.0.0.1", b"10.0.0.1", b"10.0.0.1, 10.0.0.9"),
        (b"6.6.6.6,", PEER, PEER),
        (b"", PEER, PEER),
        (b"1.1.1", PEER, PEER),
        (b"01.1.1.1", PEER, PEER),
        (b"1.1.1.1:999999", PEER, PEER),
        (b"[1.1.1.1]", PEER, PEER),
        (b"fe80::1%eth0", PEER, PEER),
        (b"\xd9\xa1.1.1.1", PEER, PEER),
    ],
)
def test_the_right_most_address_that_is_not_trusted_is_the_client(
    value: bytes, client: bytes, chain: bytes
) -> None:
    """What is malformed ends the list; what is passed on is written anew, with the peer at its end."""
    assert read(b"X-Forwarded-For: " + value) == (
        client,
        {b"x-forwarded-for": chain, b"x-forwarded-proto": b"http"},
    )


def test_several_lines_are_one_list() -> None:
    """HAProxy adds a line, nginx adds to the line (RFC 9110 section 5.3)."""
    assert read(b"X-Forwarded-For: 6.6.6.6", b"x-forwarded-for:1.1.1.1\t")[0] == b"1.1.1.1"


def test_a_chain_is_read_for_so_many_hops_only() -> None:
    """From its right end."""
    client, fields = read(b"X-Forwarded-For: 6.6.6.6" + b",10.1.1.1" * MAX_HOPS)
    assert client == b"10.1.1.1"
    assert fields[b"x-forwarded-for"].count(b",") == MAX_HOPS


@pytest.mark.parametrize(
    ("value", "client", "passed_on"),
    [
        (b"for=1.1.1.1", b"1.1.1.1", b"for=1.1.1.1, for=10.0.0.9;proto=http"),
        (
            b'For="[2001:db8::1]:47" ; PROTO=https;by=_x , for=10.0.0.1',
            b"2001:db8::1",
            b'for="[2001:db8::1]:47";proto=https;by=_x, for=10.0.0.1, for=10.0.0.9;proto=http',
        ),
        (
            rb'for=1.1.1.1;host="a\"\\b"',
            b"1.1.1.1",
            rb'for=1.1.1.1;host="a\"\\b", for=10.0.0.9;proto=http',
        ),
        (b"for=_hidden, for=1.1.1.1", b"1.1.1.1", b"for=1.1.1.1, for=10.0.0.9;proto=http"),
        (b",, for=1.1.1.1;,", b"1.1.1.1", b"for=1.1.1.1, for=10.0.0.9;proto=http"),
        (b"for=1.1.1.1, for=unknown", PEER, None),
        (b"for=1.1.1.1, by=x", PEER, None),
        (b'for="6.6.6.6, for=1.1.1.1', PEER, None),
        (b"for=6.6.6.6;for=1.1.1.1", PEER, None),
        (b"for=2001:db8::1", PEER, None),
        (b"for = 1.1.1.1", PEER, None),
        (b"for", PEER, None),
    ],
)
def test_forwarded_says_the_same_in_its_own_way(
    value: bytes, client: bytes, passed_on: bytes | None
) -> None:
    """RFC 7239; a value that is malformed anywhere is not there."""
    found, fields = read(b"Forwarded: " + value)
    assert (found, fields.get(b"forwarded")) == (client, passed_on)


def test_both_lists_may_say_the_same() -> None:
    """Then the chain is the one of X-Forwarded-For, and both go on."""
    client, fields = read(b"X-Forwarded-For: 6.6.6.6, 1.1.1.1", b"Forwarded: for=1.1.1.1")
    assert client == b"1.1.1.1"
    assert fields[b"x-forwarded-for"] == b"6.6.6.6, 1.1.1.1, 10.0.0.9"
    assert fields[b"forwarded"] == b"for=1.1.1.1, for=10.0.0.9;proto=http"


def test_neither_of_two_lists_that_contradict_each_other_is_believed() -> None:
    """One of them is the client's own: the proxy in front does not keep it."""
    client, fields = read(b"X-Forwarded-For: 1.1.1.1", b"Forwarded: for=6.6.6.6;proto=https")
    assert client == PEER
    assert fields == {b"x-forwarded-for": PEER, b"x-forwarded-proto": b"http"}


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        ((b"X-Forwarded-Proto: https",), b"https"),
        ((b"X-Forwarded-Proto: HTTPS",), b"https"),
        ((b"X-Forwarded-Proto: https, http",), b"http"),
        ((b"X-Forwarded-Proto: gopher",), b"http"),
        ((b"Forwarded: for=1.1.1.1;proto=https",), b"https"),
        ((b"Forwarded: for=6.6.6.6;proto=https, for=1.1.1.1",), b"http"),
    ],
)
def test_the_scheme_is_the_clients_where_it_is_beyond_doubt(
    lines: tuple[bytes, ...], scheme: bytes
) -> None:
    """Else the one of the connection."""
    assert read(*lines)[1][b"x-forwarded-proto"] == scheme


def test_what_else_the_proxy_says_is_passed_on() -> None:
    """Its word is taken for all of X-Forwarded-*; a host must be one."""
    lines = (b"X-Forwarded-Host: a.example", b"X-Forwarded-Prefix: /x", b"X-Real-IP: 1.1.1.1")
    fields = read(*lines, b"X_Forwarded_For: 6.6.6.6", b"X-Forwarded_User: root")[1]
    assert fields == {
        b"x-forwarded-for": PEER,
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"a.example",
        b"x-forwarded-prefix": b"/x",
        b"x-real-ip": b"1.1.1.1",
    }
    assert b"x-forwarded-host" not in read(b"X-Forwarded-Host: a, b")[1]


#: What a client may put before what the proxy in front appends.
INVENTED = st.text(
    st.sampled_from('0123456789abcdef.:,;="[]\\ for_-x\t') | st.characters(min_codepoint=33, max_codepoint=255),
    max_size=60,
).map(lambda text: text.encode("latin-1").replace(b"\x7f", b""))  # fmt: skip


@given(INVENTED)
def test_no_invention_of_the_client_changes_the_address(invented: bytes) -> None:
    """Whatever stands left of what the trusted proxy has appended, the client is who it says."""
    assert read(b"X-Forwarded-For: %b, 1.1.1.1" % invented)[0] == b"1.1.1.1"
    assert read(b"Forwarded: %b, for=1.1.1.1" % invented)[0] in (b"1.1.1.1", PEER)
    fields = (b"X-Forwarded-For: 1.1.1.1", b"Forwarded: %b" % invented)
    assert read(*fields)[0] in (b"1.1.1.1", PEER)


@given(st.lists(st.tuples(st.sampled_from([b"X-Forwarded-For", b"Forwarded"]), INVENTED)))
def test_whatever_is_said_what_goes_on_is_clean(said: list[tuple[bytes, bytes]]) -> None:
    """The client is an address, the chain is of addresses, and no line is broken."""
    client, fields = read(*(b"%b: %b" % pair for pair in said))
    chain = fields[b"x-forwarded-for"].decode().split(", ")
    assert [str(ipaddress.ip_address(hop)) for hop in chain] == chain
    assert client.decode() in chain
    assert chain[-1].encode() == PEER
