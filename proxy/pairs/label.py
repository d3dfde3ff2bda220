"""Ground truth that arrives later: what a label is, as people send it and as it is recorded. Pure.

A label says what the right answer to one request was. It is known by the request's id, like the
pairs of that request, and the latest one (by its own time) replaces those before.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

LABEL_VERSION: Final = "1"

#: A line with more is no label; a batch of a thousand vectors fits.
MAX_LINE_BYTES: Final = 256 * 1024
#: What the proxy takes for an x-request-id.
MAX_ID_CHARS: Final = 128
MAX_SOURCE_CHARS: Final = 200
#: The year 2200: what is later is a clock in other units.
_LAST_MS: Final = 7_258_118_400_000

#: What a sender may say; the last two are those of records that are sent again.
_KEYS: Final = ("request_id", "label", "ts", "source", "weight", "ts_ms", "schema_version")


class LabelError(ValueError):
    """A line is no label; says what is wrong and how to mend it, without its place."""


class Label(NamedTuple):
    """One label, recorded.

    Attributes:
        request_id: of the request that it is about; the key of the topic.
        ts_ms: when it was found, milliseconds since the epoch; the latest of a request counts.
        value: the whole record as JSON.
    """

    request_id: str
    ts_ms: int
    value: bytes

    @property
    def event_id(self) -> str:
        """The same however often the label is shipped."""
        return hashlib.blake2b(self.value, digest_size=16).hexdigest()


def read_line(line: bytes, now_ms: int) -> Label:
    """Return the label that a line of JSON holds, `ts` being `now_ms` where it has none.

    Raises:
        LabelError: it is none.
    """
    if len(line) > MAX_LINE_BYTES:
        raise LabelError(f"is longer than {MAX_LINE_BYTES} bytes")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise LabelError(f"is not JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise LabelError("is not a JSON object")
    return make(fields, now_ms)


def make(fields: dict[str, Any], now_ms: int) -> Label:
    """Return the label that `fields` say, `ts` being `now_ms` where they have none.

    Raises:
        LabelError: a key is unknown or missing, or its value makes no sense.
    """
    _check_keys(fields)
    request_id, weight = fields.get("request_id"), fields.get("weight")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID_CHARS:
        raise LabelError(f"request_id: must be a text of 1 to {MAX_ID_CHARS} characters")
    if fields.get("label") is None:
        raise LabelError("label: is missing; it is any JSON value but null")
    source = fields.get("source")
    if source is not None and not (isinstance(source, str) and len(source) <= MAX_SOURCE_CHARS):
        raise LabelError(f"source: must be a text of at most {MAX_SOURCE_CHARS} characters")
    if weight is not None and not _is_weight(weight):
        raise LabelError("weight: must be a number of 0 or more")
    ts_ms = _instant_ms(fields, now_ms)
    record = {
        "schema_version": LABEL_VERSION,
        "request_id": request_id,
        "label": fields["label"],
        "ts": timestamp(ts_ms),
        "ts_ms": ts_ms,
        "source": source,
        "weight": weight,
    }
    return Label(request_id, ts_ms, orjson.dumps(record))


def timestamp(ts_ms: int) -> str:
    """Return milliseconds since the epoch as RFC 3339, UTC."""
    return f"{datetime.fromtimestamp(ts_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a line that `POST /api/v1/labels` takes."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:understudy:label:v{LABEL_VERSION}",
        "title": "Understudy label",
        "description": "The right answer to one request. Recorded with every field, null when absent.",
        "type": "object",
        "additionalProperties": False,
        "required": ["request_id", "label"],
        "properties": {
            "schema_version": {"description": "Version of the record.", "enum": [LABEL_VERSION]},
            "request_id": {
                "description": "The request's x-request-id; the key of the topic.",
                "type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS,
            },
            "label": {"description": "The right answer, as the prediction has it: any JSON value but null."},
            "ts": {
                "description": "When it was found: RFC 3339. The latest label of a request counts.",
                "type": ["string", "null"], "format": "date-time",
            },
            "ts_ms": {
                "description": "The same instant since the Unix epoch, in place of ts.",
                "type": ["integer", "null"], "x-unit": "ms",
            },
            "source": {
                "description": "Who or what found it.",
                "type": ["string", "null"], "maxLength": MAX_SOURCE_CHARS,
            },
            "weight": {
                "description": "How much it counts; kept for your own analysis.",
                "type": ["number", "null"], "minimum": 0,
            },
        },
    }  # fmt: skip


def schema_text() -> bytes:
    """Return `json_schema` as the bytes of `config/label.schema.json`."""
    return orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _check_keys(fields: dict[str, Any]) -> None:
    for key in fields:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(_KEYS)}"
            raise LabelError(f"{str(key)[:40]}: no such key; {hint}")
    version = fields.get("schema_version", LABEL_VERSION)
    if version != LABEL_VERSION:
        raise LabelError(f"schema_version: only {LABEL_VERSION} is known")


def _is_weight(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 and math.isfinite(value)


def _instant_ms(fields: dict[str, Any], now_ms: int) -> int:
    """Return when the label was found; of two times, the one that people read."""
    text, ts_ms = fields.get("ts"), fields.get("ts_ms")
    if text is not None:
        ts_ms = _parsed_ms(text)
    if ts_ms is None:
        return now_ms
    if isinstance(ts_ms, bool) or not isinstance(ts_ms, int) or not 0 <= ts_ms < _LAST_MS:
        raise LabelError("ts_ms: must be milliseconds since 1970")
    return ts_ms


def _parsed_ms(text: object) -> int:
    try:
        instant = datetime.fromisoformat(text)  # type: ignore[arg-type]  # raises for no text
    except (TypeError, ValueError):
        raise LabelError("ts: must be a time such as 2026-03-01T12:00:00Z") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)
