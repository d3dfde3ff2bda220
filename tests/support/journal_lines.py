"""Journal lines as a worker writes them, for tests of what comes after."""

from __future__ import annotations

import base64
from typing import Any

from proxy.config.resolved import (
    Bodies,
    Candidate,
    Compare,
    HashPolicy,
    Match,
    Protocol,
    Record,
    Redact,
    RedactRule,
    Route,
    Split,
    SplitKind,
)

EXACT = Compare("", "exact", 0.0, 0.0)


def route(protocol: Protocol = Protocol.JSON, compare: Compare = EXACT) -> Route:
    """Return the route `iris` with one candidate, `v2`."""
    return Route(
        name="iris",
        match=Match("", "", "/", ("POST",), {}),
        protocol=protocol,
        primary="iris-v1",
        split=Split(SplitKind.REQUEST_ID, ""),
        candidates=(Candidate("v2", "iris-v2", 10_000, 0),),
        replicate_bp=0,
        compare=compare,
        upgrades=(),
        ramp=None,
        experiment_id="iris",
    )


def record_settings(bodies: Bodies = Bodies.RESPONSES, redact_json: tuple[str, ...] = ()) -> Record:
    """Return settings of the local log."""
    return Record(None, bodies, HashPolicy.AUTO, Redact((), tuple(map(RedactRule, redact_json))))


def leg(side: str, body: bytes | None, **changes: Any) -> dict[str, Any]:
    """Return the fields of one leg that answered 200 with `body`; `changes` without the side."""
    text, encoding = _text(body)
    fields = {
        "backend": "iris-v1" if side != "candidate" else "iris-v2",
        "status": "ok",
        "http_status": 200,
        "error": None,
        "dispatch_delay_us": 150,
        "ttfb_us": 1_900,
        "latency_us": 2_000,
        "response_bytes": None if body is None else len(body),
        "content_type": "application/json",
        "content_encoding": None,
        "body": text,
        "body_encoding": encoding,
        "body_state": "omitted" if body is None else "full",
        "response_sha256": None,
        "chunks": 1,
        "itl_p50_us": None,
        "itl_max_us": None,
        "stream_complete": True,
    }
    unknown = changes.keys() - fields.keys()
    assert not unknown, f"no such leg fields: {unknown}"
    return {f"{side}_{name}": value for name, value in (fields | changes).items()}


def line(*legs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a journal line of `legs`; without any, both sides answered `{"y":1}`."""
    fields: dict[str, Any] = {
        "seq": 7,
        "ts_us": 1_700_000_000_123_456,
        "instance": "host-w0-1a2b3c4d",
        "config_version": "0123456789abcdef",
        "route": "iris",
        "candidate": "v2",
        "request_id": "r-7",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba90280",
        "parent_span_id": None,
        "trace_sampled": False,
        "mode": "shadow",
        "served_by": "primary",
        "rescued": False,
        "ramp_step": 0,
        "ramp_weight_bp": 0,
        "assign_prob": 1.0,
        "sample_prob": 0.5,
        "unit_hash": "00112233aabbccdd",
        "segments": {},
        "method": "POST",
        "path": "/v2/models/iris/infer",
        "content_type": "application/json",
        "request_bytes": 5,
        "request_sha256": None,
        "request_body": None,
        "request_body_encoding": None,
    }
    for each in legs or (leg("primary", b'{"y":1}'), leg("candidate", b'{"y":1}')):
        fields |= each
    return fields | changes


def _text(body: bytes | None) -> tuple[str | None, str | None]:
    if body is None:
        return None, None
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
