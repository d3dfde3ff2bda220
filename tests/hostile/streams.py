"""Good messages, and what is put into them to make them evil: for hypothesis, and as seeds."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

GOOD_REQUESTS = [
    b"GET /p?q=1 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5;x="y"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: z\r\n\r\n'
    ),
    b"GET http://b:81/p HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n",
    b"PUT /p HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n",
]  # fmt: skip
#: What smuggling is made of.
REQUEST_PARTS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\t", b" ", b"\x0b", b"\x7f", b"\xff", b":", b";", b",", b'"', b"#",
    b"0", b"5", b"f", b"+", b"-", b"_", b"0x", b"@", b"[", b"%zz", b"\r\n ", b"\r\n\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: x\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"0\r\n\r\n", b"ffffffffffffffff", b"\r\nX:",
]  # fmt: skip
GOOD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x="y"\r\nhello\r\n0\r\nX-T: z\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive, x\r\nX: y\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
]  # fmt: skip
ANSWER_PARTS = [
    *REQUEST_PARTS, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b" 204 ", b" 304 ", b" 101 ",
    b"Upgrade: x\r\n",
]  # fmt: skip
#: Of field lines that a proxy in front writes.
FORWARDED_PARTS = [
    b"X-Forwarded-For: ", b"Forwarded: ", b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Host: a\r\n",
    b"X-Forwarded-Host: ", b"X-Real-IP: ", b"\r\n", b", ", b";", b"for=", b"proto=https", b"host=", b'"', b"\\",
    b"1.1.1.1", b"10.0.0.1", b"[2001:db8::1]", b"::ffff:1.2.3.4", b":80", b"unknown", b"_x", b"=", b" ",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, good: Sequence[bytes], parts: Sequence[bytes]) -> bytes:
    """Draw good messages, one after the other, with a few bytes put in, taken out or replaced."""
    data = b"".join(draw(st.lists(st.sampled_from(good), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from([b"", *parts])) + data[at + gone :]
    return data


def damaged_requests() -> st.SearchStrategy[bytes]:
    """Return requests, pipelined and damaged."""
    return damaged(GOOD_REQUESTS, REQUEST_PARTS)
