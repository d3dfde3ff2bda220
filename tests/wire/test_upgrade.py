"""Which protocol a request and its answer agree on."""

from __future__ import annotations

import pytest

from proxy.wire.request_head import RequestHead, read_request_head
from proxy.wire.response_head import ResponseHead, read_response_head
from proxy.wire.upgrade import chosen_upgrade, is_chosen

ALLOWED = frozenset({b"websocket", b"x/2"})


def _asked(lines: bytes, version: bytes = b"1.1") -> bytes:
    head = read_request_head(b"GET / HTTP/%b\r\nhost: a\r\n%b" % (version, lines), b"us")
    assert isinstance(head, RequestHead)
    assert b"upgrade" not in head.fields
    assert b"pgrade" not in head.lines
    return head.upgrade


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        (b"Connection: Upgrade\r\nUpgrade: WebSocket", b"WebSocket"),
        (b"Upgrade: a\r\nConnection: close,  upgrade\r\nUpgrade: b", b"a, b"),
        (b"Connection: keep-alive\r\nUpgrade: websocket", b""),
        (b"Upgrade: websocket", b""),
        (b"Connection: upgrade", b""),
        (b"Connection: upgrades\r\nUpgrade: websocket", b""),
    ],
)
def test_upgrade_counts_where_connection_names_it(lines: bytes, asked: bytes) -> None:
    """RFC 9110 section 7.8; and it is never among the fields that are forwarded."""
    assert _asked(lines) == asked


def test_upgrade_is_ignored_in_http_1_0() -> None:
    """RFC 9110 section 7.8: a server must."""
    assert _asked(b"Connection: upgrade\r\nUpgrade: websocket", b"1.0") == b""


def test_only_allowed_protocols_are_asked_for() -> None:
    """In the order and spelling of the client."""
    assert chosen_upgrade(b"h2c, X/2 ,WebSocket,\twebsocket2", ALLOWED) == b"X/2, WebSocket"
    assert chosen_upgrade(b"h2c", ALLOWED) == b""
    assert chosen_upgrade(b"websocket", frozenset()) == b""


def test_a_101_grants_what_was_asked_for_and_nothing_else() -> None:
    """Letter case does not matter; granting nothing is granting nothing."""
    assert is_chosen(b"WebSocket", b"x, websocket")
    assert not is_chosen(b"", b"websocket")
    assert not is_chosen(b"h2c", b"websocket")
    assert not is_chosen(b"websocket, h2c", b"websocket")


def test_only_a_101_has_an_upgrade() -> None:
    """In another answer the field is an offer, which stops here."""
    for status, upgrade in ((b"101", b"websocket"), (b"426", b"")):
        block = b"HTTP/1.1 %b X\r\nUpgrade: websocket\r\nConnection: upgrade" % status
        head = read_response_head(block)
        assert isinstance(head, ResponseHead)
        assert (head.upgrade, head.lines) == (upgrade, b"")
