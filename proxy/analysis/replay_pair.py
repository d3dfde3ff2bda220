"""From a recorded pair and another model's answer to a journal line, as a worker would write it. Pure.

The primary's side, and a replicate's, are what was recorded; the candidate's is the answer of now. The
line goes through the recorder's own `Expander`, so the pair is read and compared as a live one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pybase64

from proxy.analysis.source import Record
from proxy.pairs.record import BodyState
from proxy.pairs.redact import Redactor

_TIMES: Final = ("dispatch_delay", "ttfb", "latency", "ttft", "itl_p50", "itl_max")
#: Of a recorded leg; the rest follows from the body.
_LEG_FIELDS: Final = (
    "backend", "status", "http_status", "error", "response_bytes", "response_sha256",
    "content_type", "content_encoding", "body", "body_encoding", "body_state", "chunks",
    "stream_complete",
)  # fmt: skip
_EXCHANGE_FIELDS: Final = (
    "request_id", "trace_id", "route", "assign_prob", "sample_prob", "unit_hash", "segments",
    "method", "path", "content_type", "request_bytes", "request_sha256", "request_body",
    "request_body_encoding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplayAnswer:
    """What became of one request that was sent again; times are in microseconds.

    Attributes:
        status: as a leg's.
        body: what was kept of it.
        size_bytes: of all of it that came.
        is_whole: it came to its end.
        ttft_us, itl_p50_us, itl_max_us: None where the answer did not come in pieces.
    """

    status: str
    http_status: int | None = None
    error: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    body: bytes = b""
    size_bytes: int = 0
    chunks: int = 0
    is_whole: bool = False
    ttfb_us: int | None = None
    latency_us: int | None = None
    ttft_us: int | None = None
    itl_p50_us: int | None = None
    itl_max_us: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Whose pairs these are: the replay's run, the name of its candidate and of the backend."""

    instance: str
    config_version: str
    candidate: str
    backend: str


def line_of(
    pair: Record,
    answer: ReplayAnswer,
    place: Place,
    *,
    seq: int,
    ts_us: int,
    redactor: Redactor | None,
) -> dict[str, Any]:
    """Return the journal line of one replayed request.

    Args:
        pair: the record that the request is from.
        answer: what came of it.
        place: where it belongs.
        seq: number of the pair in this replay.
        ts_us: when it was sent.
        redactor: keeps secrets out of the answer; None where nothing is redacted.
    """
    line: dict[str, Any] = {name: pair.get(name) for name in _EXCHANGE_FIELDS}
    line |= _recorded(pair, "primary") | _of_answer(answer, place.backend, redactor)
    if pair.get("replicate_status") is not None:
        line |= _recorded(pair, "replicate")
    return line | {
        "seq": seq,
        "ts_us": ts_us,
        "instance": place.instance,
        "config_version": place.config_version,
        "candidate": place.candidate,
        "span_id": None,
        "parent_span_id": None,
        "trace_sampled": False,
        "mode": "shadow",
        "served_by": "primary",
        "rescued": False,
        "ramp_step": 0,
        "ramp_weight_bp": 0,
    }


def _recorded(pair: Record, side: str) -> dict[str, Any]:
    """Return a recorded leg as the fields of a line."""
    fields = {f"{side}_{name}": pair.get(f"{side}_{name}") for name in _LEG_FIELDS}
    for name in _TIMES:
        value_ms = pair.get(f"{side}_{name}_ms")
        if value_ms is not None:
            fields[f"{side}_{name}_us"] = round(value_ms * 1000)
    return fields


def _of_answer(answer: ReplayAnswer, backend: str, redactor: Redactor | None) -> dict[str, Any]:
    """Return the candidate's leg."""
    kept: bytes | None = answer.body
    coding, state = answer.content_encoding, BodyState.FULL
    if answer.http_status is None:
        kept, state = None, BodyState.OMITTED
    elif answer.size_bytes != len(answer.body):
        state = BodyState.TRUNCATED
    if redactor is not None and kept is not None:
        redacted = None
        if state is BodyState.FULL:
            redacted = redactor.apply(kept, answer.content_type, coding)
        if redacted is not kept:
            # What was redacted has been inflated.
            kept, coding, state = redacted, None, BodyState.REDACTED
    text, encoding = _text(kept)
    return {
        "candidate_backend": backend,
        "candidate_status": answer.status,
        "candidate_http_status": answer.http_status,
        "candidate_error": answer.error,
        "candidate_response_bytes": None if answer.http_status is None else answer.size_bytes,
        "candidate_content_type": answer.content_type,
        "candidate_content_encoding": coding,
        "candidate_body": text,
        "candidate_body_encoding": encoding,
        "candidate_body_state": str(state),
        "candidate_chunks": answer.chunks,
        "candidate_stream_complete": answer.is_whole,
        "candidate_dispatch_delay_us": 0,
        "candidate_ttfb_us": answer.ttfb_us,
        "candidate_latency_us": answer.latency_us,
        "candidate_ttft_us": answer.ttft_us,
        "candidate_itl_p50_us": answer.itl_p50_us,
        "candidate_itl_max_us": answer.itl_max_us,
    }


def _text(body: bytes | None) -> tuple[str | None, str | None]:
    """Return a body as the text of a JSON string, and how that is written."""
    if body is None:
        return None, None
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return pybase64.b64encode(body).decode(), "base64"
