"""What a candidate gets in place of what the user sent: exactly what the config says, no byte more."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.config import resolved
from proxy.config.resolved import Protocol
from proxy.state.stats_page import Kept
from proxy.wire.request_head import RequestHead, read_request_head
from proxy.wire.rewrite import MAX_REWRITTEN_BYTES, MAX_REWRITTEN_TOKENS, Rewrite

PEER = b"via: 1.1 u\r\nx-forwarded-for: 10.0.0.1\r\n"


def rewrite(protocol: Protocol = Protocol.JSON, **changes: Any) -> Rewrite:
    """Return a compiled rewrite."""
    return Rewrite(resolved.Rewrite(**changes), protocol)


def head(*lines: bytes, target: bytes = b"/x") -> RequestHead:
    """Return a checked head."""
    found = read_request_head(
        b"\r\n".join((b"POST %b HTTP/1.1" % target, b"host: h", *lines)), b"u"
    )
    assert isinstance(found, RequestHead)
    return found


def test_a_block_is_the_users_but_for_what_is_set_and_removed() -> None:
    """In the user's order and spelling; what is set comes last, once."""
    changes = rewrite(
        set_headers={"authorization": "Bearer k", "host": "other:1"}, remove_headers=("cookie",)
    )
    sent = head(b"X-A: 1", b"Authorization: user", b"COOKIE: s=1", b"authorization: again", b"b: 2")
    assert changes.block(sent, b"r", PEER) == (
        b"POST /x HTTP/1.1\r\nhost: other:1\r\nX-A: 1\r\nb: 2\r\n"
        + PEER
        + b"authorization: Bearer k\r\nx-request-id: r\r\n"
    )


def test_names_that_cgi_reads_alike_are_removed_alike() -> None:
    """WSGI servers read `X_Api_Key` as x-api-key, so a credential must not slip through as that."""
    changes = rewrite(remove_headers=("x-api-key", "x-forwarded-for"))
    sent = head(b"x-api-key: 1", b"X_Api_Key: 2", b"x-api_key: 3", b"x-api-keys: 4")
    block = changes.block(sent, b"r", PEER)
    assert block.split(b"\r\n")[2:-1] == [b"x-api-keys: 4", b"via: 1.1 u", b"x-request-id: r"]


@pytest.mark.parametrize(
    ("protocol", "target", "expected"),
    [
        ("open-inference", b"/v2/models/old/infer?a=/models/x", b"/v2/models/n%2Fw:1/infer?a=/models/x"),
        ("open-inference", b"/v2/models/old", b"/v2/models/n%2Fw:1"),
        ("open-inference", b"/v2/models/a:b/versions/3/infer", b"/v2/models/n%2Fw:1/versions/3/infer"),
        ("open-inference", b"/v2/health/ready", b"/v2/health/ready"),
        ("open-inference", b"/v2/models/", b"/v2/models/"),
        ("open-inference", b"/v2/models", b"/v2/models"),
        ("open-inference", b"/x?y=/models/old", b"/x?y=/models/old"),
        ("tfserving", b"/v1/models/old:predict", b"/v1/models/n%2Fw:1:predict"),
        ("tfserving", b"/v1/models/old/versions/2:predict?q", b"/v1/models/n%2Fw:1/versions/2:predict?q"),
        ("tfserving", b"/v1/models/:predict", b"/v1/models/:predict"),
        ("openai", b"/v1/models/old", b"/v1/models/old"),
    ],
)  # fmt: skip
def test_the_model_in_a_path(protocol: str, target: bytes, expected: bytes) -> None:
    """The segment after `/models/`, the verb of TensorFlow Serving kept, the query untouched."""
    changes = rewrite(Protocol(protocol), model="n/w:1")
    block = changes.block(head(target=target), b"r", PEER)
    assert block.startswith(b"POST %b HTTP/1.1\r\n" % expected)
    assert changes.changes_body is (protocol == "openai")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"old"}', b'{"model":"new"}'),
        (b' {\n "a" : {"model":"old"} , "model" \t:\r\n "o\\"ld" , "b":1.0e5}\n',
         b' {\n "a" : {"model":"old"} , "model" \t:\r\n "new" , "b":1.0e5}\n'),
        (b'{"x":["model",{"model":"a"}],"y":"model","z":"\\\\","model":"b","big":123456789012345678901}',
         b'{"x":["model",{"model":"a"}],"y":"model","z":"\\\\","model":"new","big":123456789012345678901}'),
        (b'{"a":"}{][","model":"b"}', b'{"a":"}{][","model":"new"}'),
        # Where it cannot be placed surely the body is encoded anew.
        (b'{"model":"a", "x":1, "model":"b"}', b'{"model":"new","x":1}'),
        (b'{"mod\\u0065l":"a", "x":1}', b'{"model":"new","x":1}'),
        (b'{"model":1, "model":"b"}', b'{"model":"new"}'),
        (b'{"model":"a","model":"b","x":[123456789012345678901,0.1,"\\u00e9"]}',
         '{"model":"new","x":[123456789012345678901,0.1,"\u00e9"]}'.encode()),
        (b'{"model":["old"], "model":"b"}', b'{"model":"new"}'),
    ],
)  # fmt: skip
def test_the_model_in_a_body(body: bytes, expected: bytes) -> None:
    """Cut out and put in, and all else byte for byte as it was."""
    assert rewrite(model="new").body(body) == expected


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", Kept.NOT_JSON),
        (b"model=old", Kept.NOT_JSON),
        (b'{"model":"old"', Kept.NOT_JSON),
        (b'\xff{"model":"old"}', Kept.NOT_JSON),
        (b"[1]", Kept.NO_MODEL),
        (b'{"model":"old","x":%b%b}' % (b"[" * 1020, b"]" * 1020), Kept.NO_PLACE),
        (b'{"model":"old","x":%b%b}' % (b"[" * 1100, b"]" * 1100), Kept.NOT_JSON),
        (b'{"model":"old","x":1e999}', Kept.NOT_JSON),
        (b'{"x":{"model":"old"}}', Kept.NO_MODEL),
        (b'{"model":null}', Kept.NO_MODEL),
        (b'{"model":"old","x":"%b"}' % bytes(MAX_REWRITTEN_BYTES).hex().encode(), Kept.TOO_LARGE),
        (b'{"model":"old","x":[%b0]}' % (b"0," * MAX_REWRITTEN_TOKENS), Kept.TOO_LARGE),
        (b'{"model":"old","x":[%b[]]}' % (b"[]," * MAX_REWRITTEN_TOKENS), Kept.TOO_LARGE),
    ],
)
def test_a_body_that_names_no_model_is_left_alone(body: bytes, kept: Kept) -> None:
    """And the reason is a counter."""
    assert rewrite(model="new").body(body) is kept


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6) | st.sampled_from(["model", '"model":"', "\\", '\\"', "{", "]"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.just("model"), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
_SPACE = st.text(" \t\r\n", max_size=2)


def _written(value: Any, draw: st.DrawFn) -> str:
    """Return a value as JSON, with white space wherever the grammar allows it."""

    def space() -> str:
        return draw(_SPACE)

    if isinstance(value, dict):
        entries = (
            f"{space()}{orjson.dumps(key).decode()}{space()}:{_written(inner, draw)}"
            for key, inner in value.items()
        )
        return f"{space()}{{{','.join(entries) or space()}}}{space()}"
    if isinstance(value, list):
        return f"{space()}[{','.join(_written(x, draw) for x in value) or space()}]{space()}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{space()}{value}{space()}"
    return f"{space()}{orjson.dumps(value).decode()}{space()}"


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return the parts of an object before and after the value of its top-level `model`."""
    inner = st.dictionaries(
        st.text(max_size=4).filter(lambda key: key != "model"), _JSON, max_size=4
    )
    before, after = draw(inner), draw(inner)
    parts = [
        ",".join(f"{orjson.dumps(k).decode()}:{_written(v, draw)}" for k, v in part.items())
        for part in (before, after)
    ]
    start = f"{draw(_SPACE)}{{{parts[0]}{',' if parts[0] else ''}{draw(_SPACE)}" + '"model"'
    end = f"{draw(_SPACE)}{',' if parts[1] else ''}{parts[1]}}}{draw(_SPACE)}"
    return f"{start}{draw(_SPACE)}:{draw(_SPACE)}".encode(), end.encode()


@given(_bodies(), st.text(max_size=8), st.text(min_size=1, max_size=8))
def test_the_rewrite_changes_nothing_but_the_model(
    parts: tuple[bytes, bytes], old: str, new: str
) -> None:
    """Whatever stands around it, in whatever spelling."""
    before, after = parts
    found = rewrite(model=new).body(before + orjson.dumps(old) + after)
    assert found == before + orjson.dumps(new) + after


def _safe(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits
        return b"{}"


@given(st.binary(max_size=60) | _JSON.map(_safe))
def test_any_body_is_rewritten_or_kept(body: bytes) -> None:
    """Never an exception: nothing that a user sends may break a leg."""
    found = rewrite(model="new").body(body)
    if isinstance(found, bytes):
        assert orjson.loads(found) == {**orjson.loads(body), "model": "new"}
