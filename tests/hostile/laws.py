"""What holds of each parser whatever the bytes, as functions that fail where it does not.

Tests give them examples from hypothesis, `fuzz_*.py` gives them what atheris finds. Each law drives
the product's own parsers without a socket, and asks `grammar`, which shares no code with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

from proxy.dataplane.connection import UpstreamConnection
from proxy.state.stats_page import Outcome
from proxy.wire.body import MAX_LINE_BYTES, ChunkedBody, ChunkError, LengthBody
from proxy.wire.forwarded import TrustedProxies
from proxy.wire.partial_head import HeadFault, PartialHead
from proxy.wire.request_head import MAX_FIELDS, Refusal, RequestHead, read_request_head
from proxy.wire.response_head import STATUS_LINES, ResponseHead, has_no_body
from proxy.wire.upstream_body import whole_framing
from proxy.wire.upstream_head import leg_head, peer_lines, shared_block
from tests.hostile.grammar import (
    GrammarError,
    IncompleteError,
    Message,
    check_forwarded,
    read_answers,
    read_requests,
)

HEAD_LIMIT = 32 * 1024
#: Of one body; what is longer is cut short, so that an example stays cheap.
BODY_LIMIT = 2**20
_PEER = b"10.0.0.9"
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")


def law_of_requests(data: bytes, size: int) -> None:
    """What goes upstream is what a strict reader finds: the same messages, each with one framing.

    Never a control character in a head, a trailer or a hop-by-hop field; never more messages than
    there are, nor fewer; and however the stream is cut, the same.

    Args:
        data: all bytes of one client connection.
        size: of the pieces in which they are read once more.
    """
    sent = list(_forwarded([data]))
    assert list(_forwarded(pieces_of(data, size))) == sent
    found = [message for each in sent for message in check_forwarded(each)]
    assert len(found) == len(sent), "one message became two"
    for each, message in zip(sent, found, strict=True):
        assert message.end == len(each)
        assert not _CONTROL.search(each[: len(each) - len(message.body)])
    parsed = read_requests(data)
    assert len(found) <= len(parsed), "more messages than there are"
    for message, strict in zip(found, parsed, strict=False):
        assert (message.method, message.body) == (strict.method, strict.body)
    assert len(found) == len(parsed) or _may_be_refused(parsed[len(found)], data)


def _may_be_refused(message: Message, data: bytes) -> bool:
    """Tell whether a request in good grammar may be refused: a limit, a loop, an expectation."""
    is_large = len(message.fields) > MAX_FIELDS or len(data) > MAX_LINE_BYTES
    expect = b", ".join(message.all(b"expect")).lower()
    has_looped = b"me" in b"".join(message.all(b"via"))
    return is_large or has_looped or expect not in (b"", b"100-continue")


def law_of_heads(data: bytes, size: int) -> None:
    """The verdict on the start of a stream does not depend on how it is cut."""
    whole = _first_verdict([data])
    assert _first_verdict(pieces_of(data, size)) == whole


def law_of_bodies(data: bytes, size: int) -> None:
    """A chunked body is what a strict reader says, with the same rest, however it is cut."""
    whole = _read_chunks([data])
    assert _read_chunks(pieces_of(data, size)) == whole
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    strict = read_requests(head + data)
    if not strict:
        assert whole is None or whole[1] is None, "not whole, or malformed"
    elif whole is not None:
        assert whole == (strict[0].body, data[strict[0].end - len(head) :])
    else:
        assert len(data) > MAX_LINE_BYTES, "the strict reader knows no limits"


def law_of_answers(data: bytes, size: int, method: bytes = b"GET") -> None:
    """An answer is passed on whole as a strict reader finds it, or the user is told that it is not.

    What the client reads has one framing and no control character in its head, and however the
    bytes are cut it is the same.

    Args:
        data: all that a backend sends before it closes.
        size: of the pieces in which it is read once more.
        method: of the request that it answers.
    """
    whole = _Answer(method).read([data])
    cut = _Answer(method).read(pieces_of(data, size))
    assert whole.verdict() == cut.verdict()
    if whole.head is None:
        return
    head = whole.rebuilt_head()
    assert not _CONTROL.search(head)
    try:
        strict = read_answers(data, [method], limit=1)
    except (GrammarError, IncompleteError):
        strict = []
    if strict and strict[0].status == whole.head.status:
        assert whole.is_whole
        assert whole.body == strict[0].body
    if whole.is_whole:
        (message,) = read_answers(head + whole.body, [method])
        assert message.body == whole.body


def law_of_forwarded(data: bytes, size: int) -> None:
    """What a trusted proxy says becomes clean lines: addresses, and the peer as the last of them."""
    del size
    head = read_request_head(b"GET / HTTP/1.1\r\nhost: a\r\n" + data, b"me")
    if isinstance(head, Refusal):
        return
    peer = TrustedProxies(["10.0.0.0/8"]).peer(_PEER, b"http", b"me")
    assert peer is not None
    client, lines = peer.read(b"GET / HTTP/1.1\r\nhost: a\r\n" + data)
    assert not _CONTROL.search(lines)
    assert re.fullmatch(rb"[0-9a-f.:]+", client)
    request = b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % lines
    (message,) = check_forwarded(request)
    (chain,) = message.all(b"x-forwarded-for")
    assert re.fullmatch(rb"(?:[0-9a-f.:]+, )*10\.0\.0\.9", chain)
    assert message.all(b"x-forwarded-proto") in ([b"http"], [b"https"])


def pieces_of(data: bytes, size: int) -> list[bytes]:
    """Return the bytes in pieces of `size`."""
    return [data[at : at + size] for at in range(0, len(data), size)]


# The product's parsers, put together as `ClientConnection` does, with all I/O left out.


def _forwarded(reads: Sequence[bytes]) -> Iterator[bytes]:
    """Yield each message that goes upstream, until one is refused, cut short, or the last."""
    waiting = list(reversed(reads))
    while waiting:
        block = _take_head(waiting)
        head = read_request_head(block, b"me") if isinstance(block, bytes) else None
        if not isinstance(head, RequestHead):
            return
        body = _take_body(head, waiting)
        if body is None:
            return
        shared = shared_block(head, head.request_id or b"r", peer_lines(b"me", _PEER, b"http"))
        framing = whole_framing(head.method, len(body))
        yield leg_head(shared, b"", framing, mirror=False) + body
        if not head.keep_alive:
            return


def _take_head(waiting: list[bytes]) -> bytes | HeadFault | None:
    """Take a head from the reads, and leave the rest; most come whole in one read."""
    data = waiting[-1]
    end = data.find(b"\r\n\r\n")
    if 0 < end <= HEAD_LIMIT:
        waiting[-1] = data[end + 4 :]
        return data[:end]
    partial = PartialHead(HEAD_LIMIT)
    while waiting:
        found = partial.add(waiting.pop())
        if isinstance(found, HeadFault):
            return found
        if found is not None:
            waiting.append(found[1])
            return found[0]
    return None


def _take_body(head: RequestHead, waiting: list[bytes]) -> bytes | None:
    """Take a body from the reads, and leave the rest; None where it is malformed or not whole."""
    body, taken = ChunkedBody() if head.length is None else LengthBody(head.length), b""
    if head.length == 0:
        return b""
    while waiting and len(taken) < BODY_LIMIT:
        data = waiting.pop()
        try:
            pieces, rest = body.read(data) if data else ([], None)
        except ChunkError:
            return None
        taken += b"".join(pieces)
        if rest is not None:
            if rest:
                waiting.append(rest)
            return taken
    return None


def _first_verdict(reads: list[bytes]) -> str | tuple[bytes, ...] | None:
    """Return what a server makes of the first head: refused, forwarded as this, or None: it waits.

    Which of several reasons a refusal has may depend on what came first.
    """
    block = _take_head(list(reversed(reads))) if reads else None
    if block is None:
        return None
    head = read_request_head(block, b"me") if isinstance(block, bytes) else block
    if not isinstance(head, RequestHead):
        return "refused"
    return head.method, head.target, head.host, head.lines, b"%r" % head.length


def _read_chunks(reads: list[bytes]) -> tuple[bytes, bytes | None] | None:
    """Return (the body, what follows its end or None), or None where it is malformed."""
    body, taken, after = ChunkedBody(), b"", None
    for data in reads:
        if after is not None:
            after += data
            continue
        try:
            pieces, after = body.read(data)
        except ChunkError:
            return None
        taken += b"".join(pieces)
    return taken, after


class _Answer:
    """What a backend's connection makes of its bytes, and what the client would read of it.

    It stands where a leg, its pool and the transport do.
    """

    is_request_sent = True
    is_reused = is_stale = False

    def __init__(self, method: bytes) -> None:
        self.exchange = SimpleNamespace(head=SimpleNamespace(method=method), received_bytes=0)
        self.head: ResponseHead | None = None
        self.body = b""
        self.is_whole = self.is_over = False
        self.chunks = 0
        self.times: object | None = None
        self._connection = UpstreamConnection(cast("Any", self))
        self._connection.connection_made(cast("Any", self))
        self._connection.begin(cast("Any", self))

    def read(self, reads: Sequence[bytes]) -> _Answer:
        """Read it all, and then an end."""
        for data in reads:
            if not self.is_over:
                self._connection.data_received(data)
        if not self.is_over:
            self._connection.eof_received()
            self._connection.connection_lost(None)
        return self

    def verdict(self) -> tuple[object, ...] | None:
        """Return a whole answer, or None for one that is not.

        How much of it the user has seen before it broke depends on the packets it came in.
        """
        if self.head is None or not self.is_whole:
            return None
        return self.head.status, self.head.lines, self.head.length, self.body

    def rebuilt_head(self) -> bytes:
        """Return the head as a client gets it, with a length."""
        assert self.head is not None
        bodiless = has_no_body(self.exchange.head.method, self.head.status)
        length = b"" if bodiless else b"content-length: %d\r\n" % len(self.body)
        return b"%b%b%b\r\n" % (STATUS_LINES[self.head.status], self.head.lines, length)

    # What a leg is told.

    def response_head(self, head: ResponseHead) -> None:
        """Keep it."""
        self.head = head

    def response_body(self, data: bytes) -> None:
        """Keep it."""
        self.body += data

    def response_end(self) -> None:
        """The answer is whole."""
        self.is_whole = self.is_over = True

    def note_arrival(self, pieces: list[bytes]) -> None:
        """When a piece came does not matter."""
        del pieces

    def switch(self, head: ResponseHead, rest: bytes) -> bool:
        """No other protocol was asked for."""
        del head, rest
        return False

    def fail(self, outcome: Outcome, reason: str, fault: object = None) -> None:
        """The answer is broken."""
        del outcome, reason, fault
        self.is_over = True

    def flush(self) -> None:
        """Nothing waits."""

    # What a pool and a transport are told.

    def release(self, connection: UpstreamConnection) -> None:
        """Nobody asks again."""
        del connection

    forget = release

    def is_closing(self) -> bool:
        """The connection is there until its end."""
        return False

    def close(self) -> None:
        """Nothing more is read."""

    abort = close
