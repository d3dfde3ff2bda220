"""A strict reader of HTTP/1.1 messages, for judging what the proxy writes and what it was sent.

Regular expressions from the grammars of RFC 9110 and RFC 9112, and nothing of the proxy's own: no
parser, no table, no constant is shared with it. Where the grammar leaves a choice, this reader
takes the strict side, with one exception: a request target may hold every visible ASCII character
but `#`, because browsers send `"`, `|` and braces as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-\"$-~]+) HTTP/(1\.[01])" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [\t -~\x80-\xff]*")
_FIELD = re.compile(
    rb"(%b):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*" % _TOKEN
)
_H16 = rb"[0-9A-Fa-f]{1,4}"
_V4 = rb"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\])|(?=\]))){4}"
#: IPv6address of RFC 3986 section 3.2.2, line by line.
_V6 = b"|".join(
    part.replace(b"LS32", b"(?:%b:%b|%b)" % (_H16, _H16, _V4)).replace(b"H16", _H16)
    for part in (
        rb"(?:H16:){6}LS32", rb"::(?:H16:){5}LS32", rb"(?:H16)?::(?:H16:){4}LS32",
        rb"(?:(?:H16:){0,1}H16)?::(?:H16:){3}LS32", rb"(?:(?:H16:){0,2}H16)?::(?:H16:){2}LS32",
        rb"(?:(?:H16:){0,3}H16)?::H16:LS32", rb"(?:(?:H16:){0,4}H16)?::LS32",
        rb"(?:(?:H16:){0,5}H16)?::H16", rb"(?:(?:H16:){0,6}H16)?::",
    )
)  # fmt: skip
#: uri-host [":" port] of RFC 9110 section 7.2, without the comma that a list of two hosts would have.
_HOST = re.compile(
    rb"(?:\[(?:" + _V6 + rb")\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_TARGET = re.compile(
    rb"/[!-\"$-~]*|https?://(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%%[0-9A-Fa-f]{2})*@)?"
    rb"(?=[^/?:])%b(?:[/?][!-\"$-~]*)?" % _HOST.pattern,
    re.IGNORECASE,
)
_CHUNK_EXT = (
    rb"(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*"
    rb"(?:%b|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*" % (_TOKEN, _TOKEN)
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(%b)\r\n" % _CHUNK_EXT)
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade",
    b"proxy-authorization", b"proxy-authenticate", b"http2-settings",
}  # fmt: skip
_ASKING = {b"connection", b"upgrade"}
_NO_TRAILERS = {b"content-length", b"transfer-encoding", b"host"}


class GrammarError(Exception):
    """The bytes cannot be the start of a valid message."""


class IncompleteError(Exception):
    """The bytes may become a valid message.

    Attributes:
        has_head: the head is there, the body is not.
    """

    def __init__(self, what: str, *, has_head: bool) -> None:
        super().__init__(what)
        self.has_head = has_head


@dataclass
class Message:
    """One message; `target` and `method` are empty for an answer, `status` is 0 for a request."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    is_http10: bool = False
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    has_extensions: bool = False
    body: bytes = b""
    end: int = 0

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of the fields called `name` (lower case)."""
        return [value for key, value in self.fields if key == name]

    @property
    def keeps_alive(self) -> bool:
        """Tell whether another message may follow (RFC 9112 section 9.3)."""
        options = {x.strip() for v in self.all(b"connection") for x in v.lower().split(b",")}
        return b"close" not in options and (not self.is_http10 or b"keep-alive" in options)


def read_requests(data: bytes) -> list[Message]:
    """Return the valid requests at the start of `data`, up to the first that ends the connection."""
    found: list[Message] = []
    at = 0
    while at < len(data) and (not found or found[-1].keeps_alive):
        try:
            found.append(read_request(data, at))
        except (GrammarError, IncompleteError):
            break
        at = found[-1].end
    return found


def check_forwarded(data: bytes) -> list[Message]:
    """Return the whole requests that one upstream connection received; the last may be cut short.

    Raises:
        GrammarError: something is there that a proxy must never send.
    """
    found: list[Message] = []
    at = 0
    while at < len(data):
        try:
            message = read_request(data, at, skip_blank=False)
        except IncompleteError as exc:
            if not exc.has_head:
                raise GrammarError(f"a head that is not whole: {data[at:]!r}") from exc
            break
        _check_as_ours(message)
        found.append(message)
        at = message.end
    return found


def _check_as_ours(message: Message) -> None:
    if message.is_http10:
        raise GrammarError("a proxy speaks HTTP/1.1 upstream")
    if message.trailers or message.has_extensions:
        raise GrammarError("trailers or chunk extensions were forwarded")
    # The one upgrade that is asked for is asked for in our own words, and without a body.
    asked = [(name, value.lower()) for name, value in message.fields if name in _ASKING]
    is_upgrade = asked == [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
    allowed = _ASKING if is_upgrade and not message.body else set()
    names = {name for name, _ in message.fields} - allowed
    if names & _HOP_BY_HOP:
        raise GrammarError(f"hop-by-hop fields were forwarded: {names & _HOP_BY_HOP}")
    if not (message.target.startswith(b"/") or message.target == b"*"):
        raise GrammarError(f"{message.target!r} is not in origin form")


def read_request(data: bytes, at: int = 0, *, skip_blank: bool = True) -> Message:
    """Return the request that begins at `at`.

    Raises:
        GrammarError: it is not valid.
        IncompleteError: it is not whole.
    """
    while skip_blank and data.startswith(b"\r\n", at):  # RFC 9112 section 2.2
        at += 2
    lines, at = _head_lines(data, at)
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise GrammarError(f"request line {lines[0]!r}")
    message = Message(first[1], first[2], is_http10=first[3] == b"1.0")
    message.fields = [_field(line) for line in lines[1:]]
    _check_target(message)
    _check_host(message)
    _check_body(message)
    _read_body(message, data, at, until_close=False)
    return message


def read_answers(data: bytes, methods: list[bytes], limit: int = 0) -> list[Message]:
    """Return the final answers that a client received, validated; interim ones are skipped.

    Args:
        data: all bytes received on the connection, which has ended.
        methods: those of the requests, in order; GET beyond its end.
        limit: stop after so many answers; 0 reads all.

    Raises:
        GrammarError: the proxy wrote something that is not valid.
        IncompleteError: the last answer was cut short.
    """
    found: list[Message] = []
    at = 0
    while at < len(data):
        lines, at = _head_lines(data, at)
        first = _STATUS_LINE.fullmatch(lines[0])
        if first is None:
            raise GrammarError(f"status line {lines[0]!r}")
        message = Message(status=int(first[1]), end=at)
        message.fields = [_field(line) for line in lines[1:]]
        if message.status < 200:
            continue
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        if method != b"HEAD" and message.status not in (204, 304):
            _read_body(message, data, at, until_close=True)
        found.append(message)
        at = message.end
        if len(found) == limit:
            break
    return found


def _head_lines(data: bytes, at: int) -> tuple[list[bytes], int]:
    end = data.find(b"\r\n\r\n", at)
    head = data[at:] if end < 0 else data[at:end]
    if re.search(rb"\r(?!\n|\Z)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head):
        raise GrammarError(f"a control character in the head {head!r}")
    if end < 0:
        raise IncompleteError("head", has_head=False)
    return head.split(b"\r\n"), end + 4


def _field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise GrammarError(f"field line {line!r}")
    return found[1].lower(), found[2]


def _check_target(message: Message) -> None:
    if message.method == b"CONNECT":
        raise GrammarError("CONNECT is not for this proxy")
    is_server_wide = message.target == b"*" and message.method == b"OPTIONS"
    if not is_server_wide and _TARGET.fullmatch(message.target) is None:
        raise GrammarError(f"target {message.target!r}")


def _check_host(message: Message) -> None:
    hosts = message.all(b"host")
    if len(hosts) > 1 or (not hosts and not message.is_http10):
        raise GrammarError("RFC 9112 section 3.2: exactly one Host")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise GrammarError(f"Host {hosts[0]!r}")


def _check_body(message: Message) -> None:
    """Refuse the bodies on which servers differ: of TRACE, and in front of another protocol."""
    has_length = any(value.strip(b"0") for value in message.all(b"content-length"))
    upgrades = message.all(b"upgrade")
    if not has_length and not message.all(b"transfer-encoding"):
        return
    if message.method == b"TRACE" or (upgrades and b", ".join(upgrades).lower() != b"h2c"):
        raise GrammarError("a body after TRACE or Upgrade")


def _read_body(message: Message, data: bytes, at: int, *, until_close: bool) -> None:
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise GrammarError("RFC 9112 section 6.3: more than one framing")
    if codings:
        if codings[0].lower() != b"chunked" or message.is_http10:
            raise GrammarError(f"transfer coding {codings[0]!r}")
        _read_chunks(message, data, at)
    elif lengths:
        if re.fullmatch(rb"[0-9]{1,18}", lengths[0]) is None:
            raise GrammarError(f"Content-Length {lengths[0]!r}")
        message.end = at + int(lengths[0])
        message.body = data[at : message.end]
        if message.end > len(data):
            raise IncompleteError("body", has_head=True)
    else:
        message.end = len(data) if until_close else at
        message.body = data[at : message.end]


def _read_chunks(message: Message, data: bytes, at: int) -> None:
    while True:
        found = _CHUNK_LINE.match(data, at)
        if found is None:
            if b"\r\n" in data[at:]:
                raise GrammarError(f"chunk line {data[at : at + 40]!r}")
            raise IncompleteError("chunk line", has_head=True)
        message.has_extensions |= bool(found[2])
        size, at = int(found[1], 16), found.end()
        if size == 0:
            break
        message.body += data[at : at + size]
        at += size
        if not b"\r\n".startswith(data[at : at + 2]):
            raise GrammarError("chunk data not followed by CRLF")
        if at + 2 > len(data):
            raise IncompleteError("chunk", has_head=True)
        at += 2
    while not data.startswith(b"\r\n", at):
        end = data.find(b"\r\n", at)
        if end < 0:
            raise IncompleteError("trailers", has_head=True)
        message.trailers.append(_field(data[at:end]))
        at = end + 2
    if {name for name, _ in message.trailers} & _NO_TRAILERS:
        raise GrammarError("RFC 9110 section 6.5.1: a forbidden trailer")
    message.end = at + 2
