"""Limits through a listening worker: each with its own status, and each at its edge."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from proxy.wire.body import MAX_EXTRA_BYTES
from proxy.wire.request_head import MAX_FIELDS, MAX_START_LINE_BYTES
from tests.hostile.stage import raw_upstream
from tests.support.dataplane import Options, dataplane, read_answer

HEAD_LIMIT = 32 * 1024
HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n"
CHUNKED = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
MANY = b"".join(b"x-%d: %b\r\n" % (n, b"a" * 990) for n in range(40))


def head_of(size: int) -> bytes:
    """Return a request whose head is `size` bytes long, without the empty line at its end."""
    head = GET + HOST + MANY[: size - 2000].rpartition(b"\r\n")[0] + b"\r\nx-last: "
    return head + b"z" * (size - len(head)) + b"\r\n\r\n"


def target_of(size: int) -> bytes:
    """Return a request whose request line is `size` bytes long."""
    return b"GET /%b HTTP/1.1\r\n" % (b"a" * (size - 14)) + HOST + b"\r\n"


def fields_of(count: int) -> bytes:
    """Return a request of so many fields."""
    return GET + HOST + b"x: 1\r\n" * (count - 1) + b"\r\n"


def extensions_of(size: int) -> bytes:
    """Return a chunked body whose lines with extensions are `size` bytes long."""
    line = b"1;a=%b\r\n" % (b"b" * 1018)
    body = (line + b"x\r\n") * (size // 1024) + b"0\r\n\r\n"
    return CHUNKED + body


def trailers_of(size: int) -> bytes:
    """Return a chunked body whose trailers are `size` bytes long."""
    return CHUNKED + b"1\r\nx\r\n0\r\n" + (b"x: %b\r\n" % (b"a" * 1019)) * (size // 1024) + b"\r\n"


@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (head_of(HEAD_LIMIT), 200, None),
        (head_of(HEAD_LIMIT + 1), 431, "head_too_large"),
        (head_of(HEAD_LIMIT)[:-4] + b"a" * 100, 431, "head_too_large"),
        (fields_of(MAX_FIELDS), 200, None),
        (fields_of(MAX_FIELDS + 1), 431, "head_too_large"),
        (target_of(MAX_START_LINE_BYTES), 200, None),
        (target_of(MAX_START_LINE_BYTES + 1), 414, "uri_too_long"),
        (target_of(HEAD_LIMIT), 414, "uri_too_long"),
        (extensions_of(MAX_EXTRA_BYTES), 200, None),
        (extensions_of(MAX_EXTRA_BYTES + 1024), 400, "bad_request"),
        (trailers_of(MAX_EXTRA_BYTES), 200, None),
        (trailers_of(MAX_EXTRA_BYTES + 1024), 400, "bad_request"),
        (POST + HOST + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000, 200, None),
        (POST + HOST + b"Content-Length: 1001\r\n\r\n", 413, "body_too_large"),
        (POST + HOST + b"Content-Length: 999999999999999999\r\n\r\n", 413, "body_too_large"),
        (CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n", 200, None),
        (CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n", 413, "body_too_large"),
    ],
    ids=[
        "head", "head too large", "head never whole", "fields", "too many fields", "target",
        "target too long", "target far too long", "extensions", "too many extensions", "trailers",
        "too many trailers", "length", "length too large", "length absurd", "chunks", "too many chunks",
    ],
)  # fmt: skip
async def test_each_limit_has_its_status(
    tmp_path: Path, data: bytes, status: int, reason: str | None, pieces: int
) -> None:
    """At the limit a request is served; one byte or field above it, refused, counted and cut off."""
    options = Options(limits={"request_body_bytes": 1000})
    async with (
        raw_upstream() as upstream,
        dataplane(tmp_path, primary=upstream.port, options=options) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            step = len(data) // pieces + 1
            for at in range(0, len(data), step):
                writer.write(data[at : at + step])
                await writer.drain()
            assert (await read_answer(reader))[0] == status
            if reason is None:
                assert len(upstream.seen) == 1
            else:
                writer.write_eof()
                assert await reader.read() == b""
                assert plane.count("rejected", reason) == 1


async def test_a_refused_head_request_gets_no_body(tmp_path: Path) -> None:
    """RFC 9110 section 9.3.2, whatever it is refused for: a body would be the next answer."""
    starts = (
        b"HEAD / HTTP/1.1\r\n" + MANY,
        b"HEAD /" + b"a" * 9000,
        b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
        b"HEAD / HTTP/1.1\n",
    )
    options = Options(limits={"request_body_bytes": 1000})
    async with (
        raw_upstream() as upstream,
        dataplane(tmp_path, primary=upstream.port, options=options) as plane,
    ):
        for start in starts:
            reader, writer = await plane.connect()
            with closing(writer):
                writer.write(start)
                assert (await read_answer(reader, b"HEAD"))[0] >= 400
                writer.write_eof()
                assert await reader.read() == b"", start[:40]
