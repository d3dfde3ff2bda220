"""Labels of requests: read from headers and JSON bodies, bounded, and never an error."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.config.resolved import Segment, Split, SplitKind
from proxy.routing.segments import MAX_BODY_BYTES, MAX_CHARS, SegmentReader

READER = SegmentReader(
    (
        Segment("tier", Split(SplitKind.HEADER, "X-Tier")),
        Segment("language", Split(SplitKind.JSON, "parameters.language")),
        Segment("beams", Split(SplitKind.JSON, "parameters.beams")),
    )
)


def labels(fields: dict[bytes, bytes], *pieces: bytes) -> dict[str, str]:
    """Return what the reader says."""
    found: dict[str, str] = orjson.loads(READER.read(fields, list(pieces)))
    return found


def test_headers_and_places_in_the_body_become_labels() -> None:
    """A body may come in pieces; numbers and truth values are written as JSON writes them."""
    body = b'{"parameters": {"language": "de", "beams": 4}}'
    assert labels({b"x-tier": b"gold"}, body[:9], body[9:]) == {
        "tier": "gold",
        "language": "de",
        "beams": "4",
    }
    assert labels({}, b'{"parameters": {"beams": true}}') == {"beams": "true"}


@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"[1]", b'{"parameters": {"language": ["de"], "beams": null}}', b'"text"'],
)
def test_what_a_request_does_not_say_is_left_out(body: bytes) -> None:
    """Nor is what is no scalar a label."""
    assert labels({b"x-tier": b""}, body) == {}
    assert READER.read({}, None) == b"{}"


def test_labels_and_bodies_are_bounded() -> None:
    """A long value is cut, a large body is not parsed."""
    assert labels({b"x-tier": b"x" * 500})["tier"] == "x" * MAX_CHARS
    body = b'{"parameters": {"language": "de"}, "pad": "%b"}'
    assert labels({}, body % b"x") == {"language": "de"}
    assert labels({}, body % (b"x" * MAX_BODY_BYTES)) == {}


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_request_breaks_it(header: bytes, body: bytes) -> None:
    """Whatever a client sends, the labels are a JSON object of short texts."""
    found = labels({b"x-tier": header}, body)
    assert all(len(value) <= MAX_CHARS for value in found.values())
