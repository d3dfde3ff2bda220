"""What the grammar allows, through a listening worker: exactly these bytes go on, both ways."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from tests.hostile.grammar import Message, check_forwarded, read_answers
from tests.hostile.stage import raw_upstream, usual_reply
from tests.support.dataplane import dataplane, read_answer, until

#: Fields that are the proxy's own in each request.
_OWN = {b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id", b"traceparent"}
CLOSE = b"Connection: close\r\n\r\n"


async def exchange(
    tmp_path: Path, request: bytes, answer: bytes | None = None
) -> tuple[list[Message], bytes]:
    """Play one connection; return what went upstream, and all that the client read."""
    async with raw_upstream() as up, dataplane(tmp_path, primary=up.port) as plane:
        up.reply = (lambda _: answer) if answer is not None else usual_reply
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(request)
            said = await reader.read()
        return [m for data in up.seen for m in check_forwarded(bytes(data))], said


@pytest.mark.parametrize(
    ("request_bytes", "start", "fields", "body"),
    [
        (b"GET http://b:81/p?q HTTP/1.1\r\nHost: a\r\n", b"GET /p?q", {b"host": b"b:81"}, b""),
        (b"GET http://u:p@b/p HTTP/1.1\r\nHost: a\r\n", b"GET /p", {b"host": b"b"}, b""),
        (b"GET HTTPS://B HTTP/1.1\r\nHost: a\r\n", b"GET /", {b"host": b"B"}, b""),
        (b"GET http://b?q HTTP/1.1\r\nHost: a\r\n", b"GET /?q", {b"host": b"b"}, b""),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n", b"OPTIONS *", {b"host": b"a"}, b""),
        (b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n", b"OPTIONS *", {b"host": b"b"}, b""),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n", b"TRACE /", {b"host": b"a"}, b""),
        (b"GET / HTTP/1.0\r\n", b"GET /", {b"host": b""}, b""),
        (b"GET http://b/ HTTP/1.0\r\n", b"GET /", {b"host": b"b"}, b""),
        (
            b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n",
            b"POST /", {b"host": b"", b"content-length": b"2"}, b"ok",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n",
            b"POST /", {b"host": b"a", b"content-length": b"2"},
            b'1;x="y"\r\no\r\n1\r\nk\r\n0;z\r\nAuthorization: no\r\nX-Canary: 1\r\n\r\n',
        ),
        (
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-Kept: 1\r\nX-Gone: 1\r\n"
            b"Connection: x-gone, host, content-length, x-request-id, via\r\nX-Request-Id: r\r\n"),
            b"POST /", {b"host": b"a", b"content-length": b"2", b"x-kept": b"1"}, b"ok",
        ),
        (
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nUpgrade: h2c\r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n"),
            b"POST /", {b"host": b"a", b"content-length": b"2"}, b"ok",
        ),
        (
            (b"GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: gzip\r\n"
            b"Proxy-Authorization: x\r\nProxy-Authenticate: x\r\nX-Understudy-Mirror: 1\r\n"
            b"X-Forwarded-User: root\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"),
            b"GET /", {b"host": b"a"}, b"",
        ),
    ],
    ids=[
        "absolute form", "user information", "no path", "no path but a query", "OPTIONS *",
        "OPTIONS of all", "TRACE", "HTTP/1.0", "HTTP/1.0 absolute", "HTTP/1.0 expects nothing",
        "chunks", "fields named by Connection", "h2c with a body", "hop-by-hop",
    ],
)  # fmt: skip
async def test_a_request_goes_on_rebuilt(
    tmp_path: Path, request_bytes: bytes, start: bytes, fields: dict[bytes, bytes], body: bytes
) -> None:
    """In origin form, with one framing, and without what was meant for us alone."""
    (message,), said = await exchange(tmp_path, request_bytes + CLOSE + body)
    assert b"%b %b" % (message.method, message.target) == start
    assert {name: value for name, value in message.fields if name not in _OWN} == fields
    assert message.body == (b"ok" if body else b"")
    assert {name for name, _ in message.fields} >= _OWN
    assert read_answers(said, [message.method])[0].status == 200


async def test_an_upgrade_with_a_body_is_answered_400(tmp_path: Path) -> None:
    """And what follows it on the connection is not read."""
    request = (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    seen, said = await exchange(tmp_path, request)
    assert seen == []
    assert [answer.status for answer in read_answers(said, [b"POST"])] == [400]


EXTRA = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstole"


@pytest.mark.parametrize(
    ("method", "answer", "head"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"200"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"200"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"200"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", b"204"),
        (
            b"GET",
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
            b"204",
        ),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", b"304"),
        (
            b"GET",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            b"204",
        ),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + EXTRA, b"200"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n" + EXTRA, b"204"),
    ],
)
async def test_an_answer_without_a_body_has_none(
    tmp_path: Path, method: bytes, answer: bytes, head: bytes
) -> None:
    """RFC 9112 section 6.3, whatever the backend sends; and no later user is given a piece of it."""
    async with raw_upstream() as up, dataplane(tmp_path, primary=up.port) as plane:
        up.reply = lambda _: answer
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 " + head)
            assert b"transfer-encoding" not in first.lower()
            assert (b"content-length" in first.lower()) <= (head != b"204")
            up.reply = usual_reply
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_answer(reader))[::2] == (200, b"ok")
        has_extra = not answer.endswith(b"\r\n\r\n") or b"chunked" in answer
        await until(lambda: len(up.seen) == 1 + has_extra, "the clean connection to be used again")


@pytest.mark.parametrize(
    ("method", "connections"), [(b"GET", 3), (b"HEAD", 3), (b"OPTIONS", 3), (b"POST", 1)]
)
async def test_a_backend_that_may_not_have_read_a_body_is_not_asked_again_on_that_connection(
    tmp_path: Path, method: bytes, connections: int
) -> None:
    """Where it ignores the body of a GET, that would be its next request: another user's answer."""
    async with raw_upstream() as up, dataplane(tmp_path, primary=up.port) as plane:
        for _ in range(3):
            assert (await plane.request(method, b"/", body=b"GET /smuggled"))[0] == 200
        assert len(up.seen) == connections


async def test_what_connection_names_in_an_answer_is_dropped_but_not_its_framing(
    tmp_path: Path,
) -> None:
    """Both ways the same rule (RFC 9110 section 7.6.1)."""
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: x-gone, content-length, set-cookie\r\nX-Gone: 1\r\n"
        b"Set-Cookie: a=b\r\nX-Kept: 1\r\nX-Understudy-Any: 1\r\nProxy-Authenticate: x\r\n"
        b"Trailer: x\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nok"
    )
    _, said = await exchange(tmp_path, b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE, answer)
    assert re.sub(rb"(?m)^x-request-id: .*\n", b"", said) == (
        b"HTTP/1.1 200 OK\r\nX-Kept: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    )
