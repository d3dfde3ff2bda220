"""Which recorded requests are sent again, and why the others are not."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
import pytest

from proxy.analysis.replay_request import ReplayRequest, Skip, finder_of, request_of
from proxy.config.resolved import Protocol, RedactAction, RedactRule
from proxy.pairs.redact import compile_rules
from tests.support.records import pair

LIMIT = 2**20
RULES = [RedactRule("ssn", RedactAction.MASK), RedactRule("card", RedactAction.HASH)]


def recorded(body: bytes | None, **changes: Any) -> dict[str, Any]:
    """Return a pair with a request body; without `changes` it is whole, and hashed."""
    text, encoding = None, None
    if body is not None:
        try:
            text, encoding = body.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(body).decode(), "base64"
    return pair(1) | {
        "request_body": text,
        "request_body_encoding": encoding,
        "request_bytes": len(body or b""),
        "request_sha256": None if body is None else hashlib.sha256(body).hexdigest(),
        **changes,
    }


@pytest.mark.parametrize("body", [b'{"x":1}', "é\u2028".encode(), b"\xff\x00\x01", b""])
def test_a_whole_body_is_sent_as_it_was(body: bytes) -> None:
    """Byte for byte, text or not."""
    asked = request_of(recorded(body), None)
    assert isinstance(asked, ReplayRequest)
    assert asked.body == body
    assert asked.path == b"/v2/models/iris/infer"
    assert asked.fields == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (recorded(None, request_bytes=7), Skip.NO_BODY),
        (recorded(b'{"x":1', request_sha256="0" * 64), Skip.TRUNCATED),
        (recorded(b"{}", request_sha256=None, request_bytes=30), Skip.REDACTED),
        (recorded(b"{}", path="/score;key=***"), Skip.REDACTED),
        (recorded(b"{}", request_body="no base64!", request_body_encoding="base64"), Skip.DAMAGED),
        (recorded(b"{}", request_body=7), Skip.DAMAGED),
        (recorded(b"{}", request_bytes="2"), Skip.DAMAGED),
        (recorded(b"{}", method=None), Skip.DAMAGED),
        (recorded(b"{}", path="/\u20ac"), Skip.DAMAGED),
    ],
)
def test_what_is_not_whole_is_not_sent(record: dict[str, Any], reason: Skip) -> None:
    """The reason is counted."""
    assert request_of(record, None) is reason


def test_a_get_without_a_body_is_sent() -> None:
    """With or without `record.bodies: full`."""
    asked = request_of(recorded(None, method="GET", content_type=None), None)
    assert isinstance(asked, ReplayRequest)
    assert (asked.body, asked.fields) == (b"", {})


@pytest.mark.parametrize(
    "sent", [{"ssn": "123", "x": 1}, {"card": "4" * 37, "x": 1}, {"card": 7}, {"x": 2, "ssn": ""}]
)
def test_what_redaction_has_changed_is_not_sent(sent: dict[str, Any]) -> None:
    """Also where the length is the same by chance."""
    body = orjson.dumps(sent)
    kept = compile_rules(RULES, "key").apply(body)
    assert kept is not None
    for size in (len(body), len(kept)):
        record = recorded(kept, request_sha256=None, request_bytes=size)
        assert request_of(record, finder_of(RULES, Protocol.JSON, LIMIT)) is Skip.REDACTED


def test_what_redaction_has_left_alone_is_sent() -> None:
    """A route with redaction has no hash of any request."""
    record = recorded(b'{"x":1}', request_sha256=None)
    assert isinstance(request_of(record, finder_of(RULES, Protocol.JSON, LIMIT)), ReplayRequest)
    assert finder_of([], Protocol.JSON, LIMIT) is None


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_binary_tensors_get_their_header_back(end: bytes) -> None:
    """It is not recorded, and follows from the sizes."""
    tensor = {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    head = orjson.dumps({"inputs": [tensor]}) + end
    record = recorded(
        head + b"\x00\x00\x80\x3f" * 2, content_type="application/octet-stream",
        protocol="open-inference",
    )  # fmt: skip
    asked = request_of(record, None)
    assert isinstance(asked, ReplayRequest)
    assert asked.fields["inference-header-content-length"] == str(len(head))
