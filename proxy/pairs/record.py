"""The pair record, version 1: its fields, their types and units, and the JSON Schema of it.

This module says what a record holds. It does not make one: the recorder does, with
`proxy.pairs.expand.Expander(route, record, proxy_version).expand(line)`, one `Expander` per route
and config revision. Both are pure.

The table is the single source: the schema in `config/pair.schema.json` is written from it, and
`Expander` starts every record from its names, so no field can be missing. Within one
`schema_version` fields may be added, never removed, renamed or retyped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from proxy.config.resolved import Protocol

SCHEMA_VERSION: Final = "1"

#: The legs of an exchange, in the order of the record.
SIDES: Final = ("primary", "candidate", "replicate")


class Kind(StrEnum):
    """The JSON type of a field; `ANY` is a whole JSON value and `MAP` is string to string."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    MAP = "object"
    ANY = "any"


class BodyState(StrEnum):
    """How much of a leg's body the record holds."""

    FULL = "full"
    TRUNCATED = "truncated"
    REDACTED = "redacted"
    OMITTED = "omitted"


class Field(NamedTuple):
    """One field: `is_required` means that it is never null, `unit` may be empty."""

    name: str
    kind: Kind
    description: str
    unit: str = ""
    is_required: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""


#: The `status` of a leg; equal to `proxy.state.stats_page.Outcome`, which is not imported because
#: it brings mmap along (a test holds them together).
STATUSES: Final = (
    "ok", "http_error", "timeout", "connect_error", "reset", "cancelled", "shed", "not_sent",
)  # fmt: skip

_HEX16 = "^[0-9a-f]{16}$"
_HEX64 = "^[0-9a-f]{64}$"
_UUID7 = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_TS = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
_ENCODINGS = ("utf-8", "base64")


def _must(
    name: str, kind: Kind, description: str, unit: str = "", choices: tuple[str, ...] = ()
) -> Field:
    return Field(name, kind, description, unit, is_required=True, choices=choices)


def _exchange_fields() -> list[Field]:
    string, integer, number = Kind.STRING, Kind.INTEGER, Kind.NUMBER
    return [
        _must("schema_version", string, "Version of this record.", choices=(SCHEMA_VERSION,)),
        Field("pair_id", string, "UUIDv7 of the pair, the same however often it is shipped.",
              is_required=True, pattern=_UUID7),
        _must("request_id", string, "The exchange's x-request-id; the key of the topic."),
        _must("trace_id", string, "W3C trace id of the exchange."),
        Field("span_id", string, "W3C span id of the exchange. Backends saw it as parent id plus "
              "1 (primary), 2 (replicate) or 3 and the candidate's place in the route.",
              pattern=_HEX16),
        Field("parent_span_id", string, "Parent id of the client's traceparent.", pattern=_HEX16),
        Field("trace_sampled", Kind.BOOLEAN, "The client's trace is sampled."),
        Field("ts", string, "When the request's head was complete: RFC 3339, UTC.",
              is_required=True, pattern=_TS),
        _must("ts_ms", integer, "The same instant since the Unix epoch.", "ms"),
        _must("experiment_id", string, "The route's experiment, the key of decisions."),
        _must("route", string, "Name of the route."),
        _must("candidate", string, "Name of the candidate inside the route."),
        _must("proxy_version", string, "Version of Understudy that expanded the record."),
        _must("instance", string, "Unique name of the worker's run that saw the exchange."),
        _must("seq", integer, "Number of the pair within its instance; a gap is a loss."),
        _must("config_version", string, "Hash of the resolved config."),
        _must("mode", string, "Whether a canary had weight.", choices=("shadow", "canary")),
        _must("served_by", string, "The leg whose answer the user got.",
              choices=("primary", "candidate")),
        _must("rescued", Kind.BOOLEAN, "The canary failed and the primary answered instead."),
        _must("ramp_step", integer, "Step of the ramp, 0 before the first."),
        _must("ramp_weight_bp", integer, "The candidate's canary weight then.", "basis points"),
        _must("assign_prob", number, "Probability that this leg serves the split key."),
        _must("sample_prob", number, "Probability that this pair is recorded."),
        _must("sample_weight", number, "1 / sample_prob, for inverse probability weighting."),
        _must("unit_hash", string, "Hash of the split key under a secret key: the same unit, "
              "the same hash, in one route."),
        _must("segments", Kind.MAP, "Allow-listed labels of the request."),
        _must("method", string, "Request method."),
        _must("path", string, "Request path without its query."),
        _must("protocol", string, "How the answers were understood.",
              choices=tuple(str(protocol) for protocol in Protocol)),
        Field("content_type", string, "Content-Type of the request."),
        _must("request_bytes", integer, "Length of the request body.", "bytes"),
        Field("request_sha256", string, "SHA-256 of the whole request body; null where bodies are "
              "redacted, because that of a short secret can be guessed.",
              pattern=_HEX64),
        Field("request_body", string, "The request body, with record.bodies: full."),
        Field("request_body_encoding", string, "How request_body is written.",
              choices=_ENCODINGS),
    ]  # fmt: skip


def _leg_fields(side: str) -> list[Field]:
    string, integer, number = Kind.STRING, Kind.INTEGER, Kind.NUMBER
    is_required = side != "replicate"
    return [
        field._replace(name=f"{side}_{field.name}")
        for field in (
            Field("backend", string, "Name of the backend.", is_required=is_required),
            Field("model_version", string, "Version that the answer names."),
            Field("status", string, "How the leg ended.", "", is_required, STATUSES),
            Field("http_status", integer, "HTTP status, null without an answer."),
            Field("error", string, "What went wrong, in one word or sentence."),
            Field("dispatch_delay_ms", number, "Request head complete to dispatch.", "ms"),
            Field("ttfb_ms", number, "Dispatch to the first byte of the answer.", "ms"),
            Field("latency_ms", number, "Dispatch to the last byte of the answer.", "ms"),
            Field("response_bytes", integer, "Length of the answer's body as received.", "bytes"),
            Field("response_sha256", string, "SHA-256 of the whole body; null of a redacted one.",
                  pattern=_HEX64),
            Field("content_type", string, "Content-Type of the answer."),
            Field("content_encoding", string, "Content-Encoding of the answer."),
            Field("body", string, "The answer's body."),
            Field("body_encoding", string, "How the body is written.", choices=_ENCODINGS),
            Field("body_state", string, "How much of the body is here.", "", is_required,
                  tuple(str(state) for state in BodyState)),
            Field("prediction", Kind.ANY, "What the answer predicts: number, label, vector, text "
                  "or JSON. NaN and infinities are null."),
            Field("input_tokens", integer, "Tokens of the prompt.", "tokens"),
            Field("output_tokens", integer, "Tokens of the answer.", "tokens"),
            Field("finish_reason", string, "Why the model stopped."),
            Field("ttft_ms", number, "Dispatch to the first event with content of an event stream; "
                  "to its first byte where no event is known to have any.", "ms"),
            Field("itl_p50_ms", number, "Median gap between the pieces of an answer that came in "
                  "several, within 1.6%; time in which the client held it back is left out.", "ms"),
            Field("itl_max_ms", number, "Longest such gap.", "ms"),
            Field("chunks", integer, "Chunks that the body arrived in."),
            Field("stream_complete", Kind.BOOLEAN, "A streamed answer reached its end."),
        )
    ]  # fmt: skip


def _comparison_fields() -> list[Field]:
    return [
        _must("comparator", Kind.STRING, "Name of the comparator."),
        _must("comparable", Kind.BOOLEAN, "Both legs answered something that can be compared."),
        Field("not_comparable_reason", Kind.STRING, "Why not, in snake_case; null if comparable."),
        Field("equal", Kind.BOOLEAN, "Candidate and primary agree; null if not comparable."),
        Field("replicate_equal", Kind.BOOLEAN, "The primary agrees with itself; null without a "
              "comparable replicate."),
        Field("loss_diff", Kind.NUMBER, "Loss of the candidate minus loss of the replicate "
              "against the primary, in [-1, 1]; positive = candidate worse."),
        Field("abs_diff", Kind.NUMBER, "Greatest absolute difference of two numbers; of rankings, "
              "vectors and texts 1 - similarity."),
        Field("rel_diff", Kind.NUMBER, "Greatest |a - b| / max(|a|, |b|), in [0, 2]."),
        Field("first_diff_path", Kind.STRING, "Where the answers first differ."),
    ]  # fmt: skip


#: Every field of the record, in order.
FIELDS: Final[tuple[Field, ...]] = (
    *_exchange_fields(),
    *(field for side in SIDES for field in _leg_fields(side)),
    *_comparison_fields(),
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record.

    Every field is required; further ones are allowed, so that a reader of version 1 accepts what
    a later release adds.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:understudy:pair:v{SCHEMA_VERSION}",
        "title": "Understudy pair record",
        "description": "One exchange and one candidate: what both legs answered, and how it "
        "compares. Every field is always present and null when absent.",
        "type": "object",
        "properties": {field.name: _property(field) for field in FIELDS},
        "required": [field.name for field in FIELDS],
    }


def schema_text() -> bytes:
    """Return `json_schema` as the bytes of `config/pair.schema.json`."""
    return orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _property(field: Field) -> dict[str, Any]:
    value: dict[str, Any] = {"description": field.description}
    if field.unit:
        value["x-unit"] = field.unit
    if field.kind is Kind.ANY:
        return value
    value["type"] = str(field.kind) if field.is_required else [str(field.kind), "null"]
    if field.kind is Kind.MAP:
        value["additionalProperties"] = {"type": "string"}
    if field.choices:
        value["enum"] = [*field.choices] if field.is_required else [*field.choices, None]
    if field.pattern:
        value["pattern"] = field.pattern
    return value
