"""The schema of the record, and its promise to readers."""

from __future__ import annotations

from pathlib import Path

from jsonschema import Draft202012Validator

from proxy.pairs.record import FIELDS, SIDES, STATUSES, json_schema, schema_text
from proxy.state.stats_page import Outcome

SCHEMA_FILE = Path(__file__).parents[2] / "config" / "pair.schema.json"

#: DESIGN's record, version 1: what consumers were promised, in their words.
EXCHANGE = (
    "schema_version", "pair_id", "request_id", "trace_id", "ts", "ts_ms", "experiment_id",
    "route", "candidate", "proxy_version", "instance", "seq", "config_version", "mode",
    "served_by", "rescued", "ramp_step", "ramp_weight_bp", "assign_prob", "sample_prob",
    "sample_weight", "unit_hash", "segments", "method", "path", "protocol", "content_type",
    "request_bytes", "request_sha256", "request_body", "comparator", "comparable",
    "not_comparable_reason", "equal", "loss_diff", "abs_diff", "rel_diff", "first_diff_path",
)  # fmt: skip
LEG = (
    "backend", "model_version", "status", "http_status", "error", "dispatch_delay_ms", "ttfb_ms",
    "latency_ms", "response_bytes", "response_sha256", "body", "body_state", "prediction",
    "input_tokens", "output_tokens", "finish_reason", "ttft_ms", "itl_p50_ms", "itl_max_ms",
    "chunks", "stream_complete",
)  # fmt: skip


def test_the_schema_file_is_current() -> None:
    """`understudy schema pair > config/pair.schema.json` mends it."""
    assert SCHEMA_FILE.read_bytes() == schema_text()


def test_the_schema_is_valid() -> None:
    """Draft 2020-12 accepts it."""
    Draft202012Validator.check_schema(json_schema())


def test_every_promised_field_is_there() -> None:
    """Fields may be added to version 1, never taken away."""
    names = [field.name for field in FIELDS]
    assert len(names) == len(set(names))
    promised = {*EXCHANGE, *(f"{side}_{word}" for side in SIDES for word in LEG)}
    assert promised <= set(names)


def test_a_leg_ends_in_the_words_of_the_stats_page() -> None:
    """The record and the counters name outcomes alike."""
    assert tuple(str(outcome) for outcome in Outcome) == STATUSES
