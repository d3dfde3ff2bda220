"""What a label is: read strictly, recorded whole, and the same when it is sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.pairs.label import MAX_LINE_BYTES, LabelError, json_schema, read_line, schema_text

NOW_MS = 1_700_000_000_123
PUBLISHED = Path(__file__).parents[2] / "config" / "label.schema.json"

JSON = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


def line(**fields: Any) -> bytes:
    """Return a line with the least that a label needs, and `fields`."""
    return orjson.dumps({"request_id": "r-1", "label": 3, **fields})


def test_every_field_is_recorded_and_null_when_absent() -> None:
    """The time is that of the arrival, where the sender says none."""
    label = read_line(line(), NOW_MS)
    assert (label.request_id, label.ts_ms) == ("r-1", NOW_MS)
    assert orjson.loads(label.value) == {
        "schema_version": "1", "request_id": "r-1", "label": 3, "ts": "2023-11-14T22:13:20.123Z",
        "ts_ms": NOW_MS, "source": None, "weight": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ts", "ts_ms"),
    [
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14", 1_699_920_000_000),
    ],
)
def test_times_are_read_as_utc_unless_they_say_otherwise(ts: str, ts_ms: int) -> None:
    """As in the pairs."""
    assert read_line(line(ts=ts), NOW_MS).ts_ms == ts_ms
    assert read_line(line(ts_ms=ts_ms), NOW_MS).ts_ms == ts_ms


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"{}", "request_id: must be a text"),
        (line(request_id=""), "request_id: must be a text"),
        (line(request_id="x" * 129), "request_id: must be a text of 1 to 128"),
        (line(request_id=7), "request_id: must be a text"),
        (line(label=None), "label: is missing"),
        (line(lable=1), "lable: no such key; did you mean label?"),
        (line(ts="yesterday"), "ts: must be a time such as"),
        (line(ts=17), "ts: must be a time"),
        (line(ts_ms=-1), "ts_ms: must be milliseconds"),
        (line(ts_ms=1e9), "ts_ms: must be milliseconds"),
        (line(ts_ms=1_700_000_000_000_000), "ts_ms: must be milliseconds"),
        (line(weight=-1), "weight: must be a number"),
        (line(weight=True), "weight: must be a number"),
        (line(source=["a"]), "source: must be a text"),
        (line(schema_version="2"), "schema_version: only 1"),
        (line(label="x" * MAX_LINE_BYTES), "is longer than"),
    ],
)
def test_what_is_no_label_says_why(text: bytes, told: str) -> None:
    """In words that fit behind `line 7 …`."""
    with pytest.raises(LabelError, match=told):
        read_line(text, NOW_MS)


@given(JSON, st.integers(0, 2**42), st.floats(0, 1e6) | st.none(), st.text(max_size=20) | st.none())
def test_a_record_read_again_is_the_same(
    label: Any, ts_ms: int, weight: float | None, source: str | None
) -> None:
    """So a topic can be written out and imported again, and delivered twice is once."""
    first = read_line(line(label=label, ts_ms=ts_ms, weight=weight, source=source), NOW_MS)
    again = read_line(first.value, NOW_MS + 1)
    assert (again, again.event_id) == (first, first.event_id)
    jsonschema.Draft202012Validator(json_schema()).validate(orjson.loads(first.value))


def test_the_published_schema_is_current() -> None:
    """`make schemas` mends it."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert PUBLISHED.read_bytes() == schema_text()
