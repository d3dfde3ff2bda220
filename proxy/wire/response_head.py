"""An answer's head: read from the upstream, rebuilt for the client. Pure.

The body's framing is ours: a declared length is kept, anything else becomes chunked for an
HTTP/1.1 client and "until the connection closes" for an HTTP/1.0 one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from proxy.wire.request_head import HOP_BY_HOP, PRIVATE, Field

#: `b"HTTP/1.1 200 OK\r\n"` and so on, by status code.
STATUS_LINES: Final = {
    code: b"HTTP/1.1 %d %b\r\n"
    % (code, HTTPStatus(code).phrase.encode() if code in set(HTTPStatus) else b"")
    for code in range(100, 600)
}

#: What is done with a field, by its name as sent. Bounded, since backends choose the names.
_KINDS: dict[bytes, int] = {}
_MAX_KINDS: Final = 4096
_PLAIN, _DROP, _LENGTH, _TYPE, _ENCODING, _CODING, _CONNECTION, _REQUEST_ID = range(1, 9)
_BY_NAME: Final = {
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"content-encoding": _ENCODING,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"x-request-id": _REQUEST_ID,
}


def _learn(name: bytes) -> int:
    key = name.lower()
    kind = _BY_NAME.get(key, _PLAIN)
    if kind == _PLAIN and (key in HOP_BY_HOP or key.startswith(PRIVATE)):
        kind = _DROP
    if len(_KINDS) < _MAX_KINDS:
        _KINDS[name] = kind
    return kind


class ResponseHead:
    """What an answer's head says.

    Attributes:
        status: three digits.
        length: declared body length in bytes; None when chunked or until the connection closes.
        lines: end-to-end fields for the client, each ended by CRLF, without framing.
        content_type, content_encoding: as sent, or None.
        is_chunked: the upstream framed the body in chunks.
        has_request_id: the upstream set `x-request-id` itself.
    """

    __slots__ = (
        "content_encoding", "content_type", "has_request_id", "is_chunked", "length", "lines",
        "options", "status",
    )  # fmt: skip

    def __init__(self, status: int) -> None:
        self.status = status
        self.length: int | None = None
        self.lines = b""
        self.content_type: bytes | None = None
        self.content_encoding: bytes | None = None
        self.has_request_id = False
        self.is_chunked = False
        self.options = b""


def read_response_head(status: int, headers: list[Field], *, for_client: bool) -> ResponseHead:
    """Read an answer's fields; `for_client` also rebuilds the lines that are passed on.

    A mirrored answer is only looked at, so its lines are left empty.
    """
    head = ResponseHead(status)
    out: list[bytes] = []
    known = _KINDS.get
    for name, value in headers:
        kind = known(name) or _learn(name)
        if kind == _LENGTH:
            head.length = int(value)  # llhttp has checked it
            continue
        if kind > _DROP:
            _note(head, kind, value)
            if kind in (_CODING, _CONNECTION):
                continue
        elif kind == _DROP:
            continue
        if for_client:
            out += (name, b": ", value, b"\r\n")
    head.lines = b"".join(out)
    if head.options and for_client:
        _drop_named(head)
    return head


def _note(head: ResponseHead, kind: int, value: bytes) -> None:
    if kind == _TYPE:
        head.content_type = value
    elif kind == _ENCODING:
        head.content_encoding = value
    elif kind == _CODING:
        head.is_chunked = True
    elif kind == _REQUEST_ID:
        head.has_request_id = True
    elif kind == _CONNECTION:
        options = value.lower()
        if options not in (b"close", b"keep-alive"):
            head.options = options


def _drop_named(head: ResponseHead) -> None:
    """Drop the fields that Connection names (RFC 9110 section 7.6.1)."""
    named = {option.strip() for option in head.options.split(b",")}
    lines = head.lines.splitlines(keepends=True)
    head.lines = b"".join(x for x in lines if x.partition(b":")[0].lower() not in named)


def read_whole_answer(data: bytes) -> tuple[ResponseHead, int] | None:
    """Read a mirrored answer that came whole in one read: its head and where its body begins.

    The short way for the common case: a final status with a body of declared length, of which
    `data` holds exactly all. Anything else returns None and goes through the full parser. Only for
    answers that no user sees: it looks for the fields it needs and judges no others. It takes 2 us
    where the parser's callbacks and `read_response_head` take 10 (Python 3.11).
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or not data.startswith(b"HTTP/1.1 "):
        return None
    if data[:end] == _LAST[0]:
        head = _LAST[1]
        return (head, end + 4) if len(data) - end - 4 == head.length else None
    fields = data[:end].lower() + b"\r\n"
    length = _field(data, fields, b"\r\ncontent-length:")
    digits = data[9:12]
    if length is None or not (length.isdigit() and digits.isdigit()):
        return None
    status = int(digits)
    if (
        len(data) - end - 4 != int(length)
        or status < 200
        or b"\r\ntransfer-encoding:" in fields
        or b"\r\nconnection: close" in fields
        or fields.count(b"\r\ncontent-length:") != 1
    ):
        return None
    head = ResponseHead(status)
    head.length = int(length)
    head.content_type = _field(data, fields, b"\r\ncontent-type:")
    head.content_encoding = _field(data, fields, b"\r\ncontent-encoding:")
    _LAST[:] = data[:end], head
    return head, end + 4


#: The last head read the short way, and what it says: heads of one server often differ only in Date.
_LAST: list[Any] = [None, ResponseHead(0)]


def _field(data: bytes, fields: bytes, name: bytes) -> bytes | None:
    """Return the value of the first field called `name`.

    Args:
        data: the answer as sent.
        fields: the start of it in lower case, ended by CRLF.
        name: in lower case, with CRLF before and a colon after.
    """
    start = fields.find(name)
    if start < 0:
        return None
    start += len(name)
    return data[start : fields.find(b"\r\n", start)].strip()


def has_no_body(method: bytes, status: int) -> bool:
    """Tell whether an answer has no body whatever its fields say (RFC 9112 section 6.3)."""
    return method == b"HEAD" or status in (204, 304) or 100 <= status < 200


def plain_answer(status: int, detail: str, *extra: bytes, close: bool) -> bytes:
    """Return a whole answer made by the proxy itself: JSON with an `error`.

    Args:
        status: HTTP status code.
        detail: one sentence for the client.
        extra: further header lines, each ended by CRLF.
        close: say that the connection ends here.
    """
    text = detail.replace("\\", "\\\\").replace('"', '\\"')
    body = f'{{"error": "{text}"}}\n'.encode()
    return b"".join(
        (
            STATUS_LINES[status],
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            *extra,
            b"connection: close\r\n" if close else b"",
            b"\r\n",
            body,
        )
    )
