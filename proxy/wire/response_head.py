"""An answer's head: read from the upstream, rebuilt for the client. Pure.

The body's framing is ours: a declared length is kept, anything else becomes chunked for an
HTTP/1.1 client and "until the connection closes" for an HTTP/1.0 one.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from proxy.wire.fields import (
    HOP_BY_HOP,
    MAX_REMEMBERED,
    PRIVATE,
    TOKEN,
    is_worth_remembering,
    split_field,
)

#: `b"HTTP/1.1 200 OK\r\n"` and so on, by status code.
STATUS_LINES: Final = {
    code: b"HTTP/1.1 %d %b\r\n"
    % (code, HTTPStatus(code).phrase.encode() if code in set(HTTPStatus) else b"")
    for code in range(100, 600)
}

#: What is done with a field: passed on, left out, refused, and from `_LENGTH` on also read here.
_PLAIN: Final = 0
_DROP: Final = 1
_BAD: Final = 2
_LENGTH: Final = 3
_TYPE: Final = 4
_ENCODING: Final = 5
_CODING: Final = 6
_CONNECTION: Final = 7
_REQUEST_ID: Final = 8
_UPGRADE: Final = 9
_BY_NAME: Final = {
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"content-encoding": _ENCODING,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"x-request-id": _REQUEST_ID,
    b"upgrade": _UPGRADE,
}
#: RFC 9112 section 4; old servers leave out the space before an empty reason.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*+)?")


class ResponseHead:
    """What an answer's head says.

    Attributes:
        status: three digits, 100 to 599.
        length: declared body length in bytes; None when chunked or until the connection closes.
        lines: end-to-end fields for the client, each ended by CRLF, without framing.
        content_type, content_encoding: as sent, or None.
        is_chunked: the upstream framed the body in chunks.
        keep_alive: the upstream connection may serve another request.
        has_request_id: the upstream set `x-request-id` itself.
        is_event_stream: the body is `text/event-stream`.
        upgrade: the protocol that a 101 changes to, else empty.
    """

    __slots__ = (
        "content_encoding", "content_type", "has_request_id", "is_chunked", "is_event_stream",
        "keep_alive", "length", "lines", "status", "upgrade",
    )  # fmt: skip

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        self.status = status
        self.keep_alive = keep_alive
        self.length: int | None = None
        self.lines = b""
        self.content_type: bytes | None = None
        self.content_encoding: bytes | None = None
        self.has_request_id = False
        self.upgrade = b""
        self.is_chunked = self.is_event_stream = False


class _FieldLine:
    """A field line: what is done with it, its value, and the line as it is passed on."""

    __slots__ = ("forwarded", "kind", "value")

    def __init__(self, kind: int, value: bytes, forwarded: bytes) -> None:
        self.kind = kind
        self.value = value
        self.forwarded = forwarded


_NAME: Final = re.compile(rb"%b[ \t]{0,8}" % TOKEN)

#: What is known of lines seen before, by the whole line.
_LINES: Final[dict[bytes, _FieldLine]] = {}


def read_response_head(block: bytes) -> ResponseHead | str:
    """Read an answer's head and rebuild its lines for the client; a string says why it cannot be.

    An answer that two clients could frame differently is not passed on (RFC 9112 section 6.3): the
    user gets 502.

    Args:
        block: the head without the empty line that ends it.
    """
    lines = block.split(b"\r\n")
    start = _STATUS_LINE.fullmatch(lines[0])
    if start is None:
        if lines[0] or not block.strip(b"\r\n"):
            return f"malformed status line of {len(lines[0])} bytes"
        return read_response_head(block[2:])  # an empty line left over from the answer before
    del lines[0]
    is_http11 = start[1] == b"1"
    head = ResponseHead(int(start[2]), keep_alive=is_http11)
    special: dict[int, bytes] = {}
    out: list[bytes] = []
    known = _LINES
    for text in lines:
        line = known.get(text) or _read_line(text)
        kind = line.kind
        if kind == _PLAIN:
            out.append(line.forwarded)
        elif kind == _BAD:
            return f"malformed field line {_name_of(text)}"
        elif kind != _DROP:
            value = line.value
            # Only equal lengths may be sent twice: chunks in chunks would be another body.
            if kind in special and (kind == _CODING or special[kind] != value):
                value = special[kind] + b", " + value  # a list, RFC 9110 section 5.3
            special[kind] = value
            out.append(line.forwarded)
    head.lines = b"".join(out)
    return _read_framing(head, special, is_http11=is_http11) or _read_others(head, special)


def _name_of(text: bytes) -> str:
    """Return what a malformed line may be told by: its name, never its value.

    What is said goes into logs and records, and the value may be a session's cookie.
    """
    name, colon, _ = text.partition(b":")
    if not colon or _NAME.fullmatch(name) is None:
        return f"of {len(text)} bytes"
    return f"of {name.strip().decode()}"


def _read_framing(head: ResponseHead, special: dict[int, bytes], *, is_http11: bool) -> str:
    """Read the framing of the body; return what is wrong with it, or nothing."""
    length = special.get(_LENGTH)
    if length is not None:
        if not (length.isdigit() and len(length) <= 18):
            return f"malformed or repeated Content-Length of {len(length)} bytes"
        head.length = int(length)
    coding = special.get(_CODING)
    if coding is not None:
        if length is not None or not is_http11 or coding.lower() != b"chunked":
            return "Transfer-Encoding with another framing or not understood"
        head.is_chunked = True
    return ""


def _read_others(head: ResponseHead, special: dict[int, bytes]) -> ResponseHead:
    head.content_type = content_type = special.get(_TYPE)
    if content_type is not None and content_type[:5].lower() == b"text/":
        head.is_event_stream = _is_event_stream(content_type)
    head.content_encoding = special.get(_ENCODING)
    head.has_request_id = _REQUEST_ID in special
    if head.status == 101:
        head.upgrade = special.get(_UPGRADE, b"")
    connection = special.get(_CONNECTION)
    if connection is not None and (connection != b"keep-alive" or not head.keep_alive):
        options = {option.strip(b" \t") for option in connection.lower().split(b",")}
        head.keep_alive = b"close" not in options and (head.keep_alive or b"keep-alive" in options)
        _drop_named(head, options)
    return head


def _is_event_stream(content_type: bytes) -> bool:
    """Tell whether a media type is that of server-sent events, whatever its parameters."""
    return content_type.partition(b";")[0].strip().lower() == b"text/event-stream"


def _drop_named(head: ResponseHead, named: set[bytes]) -> None:
    """Drop the fields that Connection names (RFC 9110 section 7.6.1)."""
    if named <= _USUAL_OPTIONS:
        return
    lines = head.lines.splitlines(keepends=True)
    head.lines = b"".join(x for x in lines if x.partition(b":")[0].lower() not in named)


_USUAL_OPTIONS: Final = frozenset({b"close", b"keep-alive"})


def _read_line(text: bytes) -> _FieldLine:
    """Read and remember a field line; the forwarded one is empty where framing is ours."""
    found = split_field(text, is_answer=True)
    if found is None:
        return _FieldLine(_BAD, b"", b"")
    name, value = found
    key = name.lower()
    kind = _BY_NAME.get(key, _PLAIN)
    if kind == _PLAIN and (key in HOP_BY_HOP or key.startswith(PRIVATE)):
        kind = _DROP
    is_ours = kind in (_LENGTH, _CODING, _CONNECTION, _UPGRADE)
    line = _FieldLine(kind, value, b"" if is_ours else b"%b: %b\r\n" % (name, value))
    if is_worth_remembering(text, key):
        if len(_LINES) >= MAX_REMEMBERED:
            _LINES.clear()
        _LINES[text] = line
    return line


def has_no_body(method: bytes, status: int) -> bool:
    """Tell whether an answer has no body whatever its fields say (RFC 9112 section 6.3)."""
    return method == b"HEAD" or status in (204, 304) or 100 <= status < 200


def plain_answer(status: int, detail: str, lines: bytes = b"", *, has_body: bool = True) -> bytes:
    """Return a whole answer made by the proxy itself: JSON with an `error`.

    Args:
        status: HTTP status code.
        detail: one sentence for the client.
        lines: further header lines, each ended by CRLF.
        has_body: False for the answer to a HEAD, which has the length and not the body.
    """
    text = detail.replace("\\", "\\\\").replace('"', '\\"')
    body = f'{{"error": "{text}"}}\n'.encode()
    return b"".join(
        (
            STATUS_LINES[status],
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            lines,
            b"\r\n",
            body if has_body else b"",
        )
    )
