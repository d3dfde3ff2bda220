"""From journal line to record: every field, the right comparison, and nothing that upsets it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import uuid
from ctypes import CDLL, c_size_t, c_void_p
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator

from proxy.config.resolved import Bodies, Compare, Protocol
from proxy.pairs.expand import Expander, LineError
from proxy.pairs.identity import pair_id
from proxy.pairs.record import FIELDS, STATUSES, json_schema
from tests.support.journal_lines import leg, line, record_settings, route

NAMES = [field.name for field in FIELDS]
VALIDATOR = Draft202012Validator(json_schema())
NUMERIC = Compare("outputs[0].data", "numeric", 1e-3, 0.0)


def expand(
    journal_line: dict[str, Any],
    *,
    protocol: Protocol = Protocol.JSON,
    compare: Compare | None = None,
    bodies: Bodies = Bodies.RESPONSES,
    redact_json: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the record of a line that went through the journal, checked against the schema."""
    a_route = route(protocol, compare or Compare("", "exact", 0.0, 0.0))
    expander = Expander(a_route, record_settings(bodies, redact_json), "0.1.0")
    written = orjson.dumps(journal_line)
    record = expander.expand(orjson.loads(written))
    # The short way to JSON says the same, byte for byte.
    assert expander.expand_json(orjson.loads(written))[0] == orjson.dumps(record)
    VALIDATOR.validate(record)
    assert list(record) == NAMES
    assert orjson.loads(orjson.dumps(record)) == record
    return record


def pair(primary: bytes, candidate: bytes, **options: Any) -> dict[str, Any]:
    """Return the record of two answers."""
    return expand(line(leg("primary", primary), leg("candidate", candidate)), **options)


@pytest.mark.skipif(not hasattr(CDLL(None), "malloc_usable_size"), reason="glibc tells the size")
@pytest.mark.parametrize("size", [100, 1_000, 5_000, 40_000])
def test_a_record_takes_no_more_memory_than_it_needs(size: int) -> None:
    """Its writer's buffer is larger; thousands of records are held until they are acknowledged."""
    usable_size = CDLL(None).malloc_usable_size
    usable_size.argtypes, usable_size.restype = [c_void_p], c_size_t
    expander = Expander(route(Protocol.RAW), record_settings(), "0.1.0")
    value, _ = expander.expand_json(
        line(leg("primary", b"p" * size), leg("candidate", b"c" * size))
    )
    # CPython's `id` is the address.
    assert len(value) <= usable_size(id(value)) < len(value) + 256


def test_a_pair_of_answers_that_differ() -> None:
    """Both predictions, both versions, the loss and the place."""
    primary = b'{"model_version":"1","outputs":[{"shape":[1,2],"data":[0.5,1.0]}]}'
    candidate = b'{"model_version":"2","outputs":[{"shape":[1,2],"data":[0.5,2.0]}]}'
    record = pair(primary, candidate, protocol=Protocol.OPEN_INFERENCE, compare=NUMERIC)
    assert record["primary_prediction"] == [0.5, 1.0]
    assert record["candidate_prediction"] == [0.5, 2.0]
    assert (record["primary_model_version"], record["candidate_model_version"]) == ("1", "2")
    assert (record["comparable"], record["not_comparable_reason"]) == (True, None)
    assert (record["equal"], record["loss_diff"]) == (False, 1.0)
    assert (record["abs_diff"], record["rel_diff"]) == (1.0, 0.5)
    assert record["first_diff_path"] == "outputs[0].data[1]"
    assert (record["comparator"], record["protocol"]) == ("numeric", "open-inference")


def test_times_and_identity() -> None:
    """Microseconds become RFC 3339 and milliseconds; the id is a UUIDv7 of the same instant."""
    record = expand(line())
    assert record["ts"] == "2023-11-14T22:13:20.123456Z"
    assert record["ts_ms"] == 1_700_000_000_123
    assert (record["primary_ttfb_ms"], record["primary_latency_ms"]) == (1.9, 2.0)
    assert record["sample_weight"] == 2.0
    assert (record["experiment_id"], record["proxy_version"]) == ("iris", "0.1.0")
    identity = uuid.UUID(record["pair_id"])
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert identity.int >> 80 == record["ts_ms"]


@given(ts_us=st.integers(0, 253_402_300_799_999_999))
def test_the_timestamp_is_that_of_datetime(ts_us: int) -> None:
    """Any instant until the year 9999, to the microsecond."""
    record = expand(line(ts_us=ts_us))
    text = record["ts"]
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(ts_us // 10**6, UTC).replace(
        microsecond=ts_us % 10**6
    )


def test_the_same_line_gives_the_same_record() -> None:
    """Reading the journal again after a crash makes no new pair."""
    assert expand(line()) == expand(line())


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**47),
            st.text("ab|", max_size=4),
            st.integers(0, 99),
            st.sampled_from(("v2", "v3")),
        ),
        unique=True,
        max_size=50,
    )
)
def test_other_pairs_have_other_ids(keys: list[tuple[int, str, int, str]]) -> None:
    """The id follows instance, sequence and candidate; and sorts by time."""
    ids = {
        (instance, seq, name): pair_id(ts, instance, seq, name) for ts, instance, seq, name in keys
    }
    assert len(set(ids.values())) == len(ids)
    assert pair_id(1_000, "i", 0, "v") < pair_id(2_000_000, "a", 0, "v")


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
@pytest.mark.parametrize("side", ["primary", "candidate"])
def test_a_leg_that_failed_cannot_be_compared(side: str, status: str) -> None:
    """The reason names the side; the other leg's prediction is there all the same."""
    other = "candidate" if side == "primary" else "primary"
    record = expand(line(leg(side, None, status=status, http_status=None), leg(other, b'{"y":1}')))
    word = status if status in ("cancelled", "shed", "not_sent") else "failed"
    assert record["not_comparable_reason"] == f"{side}_{word}"
    assert (record["comparable"], record["equal"], record["loss_diff"]) == (False, None, None)
    assert record[f"{other}_prediction"] == {"y": 1}
    assert record[f"{side}_prediction"] is None
    assert record[f"{side}_response_sha256"] is None


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (leg("candidate", b'{"y":', body_state="truncated"), "candidate_truncated"),
        (leg("candidate", None), "candidate_omitted"),
        (leg("candidate", None, body_state="redacted"), "candidate_redacted"),
        (leg("candidate", b"<html>"), "candidate_not_json"),
        (leg("candidate", b"null"), "candidate_no_prediction"),
        (leg("candidate", b'{"y":NaN}'), "candidate_not_finite"),
        (leg("candidate", b"[" * 300 + b"]" * 300), "candidate_too_deep"),
        (
            leg(
                "candidate",
                gzip.compress(bytes(1 << 20))[:1000],
                body_state="truncated",
                content_encoding="GZip",
            ),
            "candidate_inflates_too_large",
        ),
        (
            leg(
                "candidate",
                gzip.compress(random.Random(1).randbytes(4096))[:1000],
                body_state="truncated",
                content_encoding="gzip",
            ),
            "candidate_truncated",
        ),
        (
            leg("candidate", b"x", body_state="truncated", content_encoding="gzip"),
            "candidate_truncated",
        ),
        (leg("candidate", b"x", content_encoding="compress"), "candidate_content_encoding"),
        (leg("candidate", b"x", content_encoding="gzip"), "candidate_encoding_damaged"),
        (leg("candidate", b'{"y":1}', stream_complete=False), "candidate_stream_incomplete"),
    ],
    ids=lambda value: value if isinstance(value, str) else "answer",
)
def test_why_an_answer_cannot_be_compared(candidate: dict[str, Any], reason: str) -> None:
    """One word for each cause."""
    record = expand(line(leg("primary", b'{"y":1}'), candidate))
    assert record["not_comparable_reason"] == reason


def test_a_prediction_with_nan_is_kept_with_null_in_its_place() -> None:
    """The analyst sees which element it was."""
    record = pair(b'{"y":[1.5,NaN,-Infinity]}', b'{"y":[1.5,2]}')
    assert record["primary_prediction"] == {"y": [1.5, None, None]}
    assert record["not_comparable_reason"] == "primary_not_finite"


def test_hashes_are_of_the_bytes_that_were_on_the_wire() -> None:
    """Binary bodies come as base64 and are hashed decoded."""
    data = gzip.compress(b'{"y":1}')
    record = expand(
        line(leg("primary", b'{"y":1}'), leg("candidate", data, content_encoding="gzip"))
    )
    assert record["candidate_body_encoding"] == "base64"
    assert base64.b64decode(record["candidate_body"]) == data
    assert record["candidate_response_sha256"] == hashlib.sha256(data).hexdigest()
    assert record["primary_response_sha256"] == hashlib.sha256(b'{"y":1}').hexdigest()
    assert record["equal"] is True


def test_a_cut_or_redacted_body_has_no_hash_unless_the_worker_made_one() -> None:
    """A hash of something else would be a lie."""
    cut = leg("primary", b'{"y":', body_state="truncated")
    redacted = leg("candidate", b'{"y":1}', body_state="redacted", response_sha256="a" * 64)
    record = expand(line(cut, redacted))
    assert record["primary_response_sha256"] is None
    assert record["candidate_response_sha256"] == "a" * 64


def test_what_came_before_a_reset_is_not_hashed() -> None:
    """The worker kept all that came; the whole body it was not."""
    broken = leg("candidate", b'{"y"', status="reset", stream_complete=False)
    record = expand(line(leg("primary", b'{"y":1}'), broken))
    assert (record["candidate_response_sha256"], record["candidate_body"]) == (None, '{"y"')


def test_a_prediction_that_redaction_took_says_so() -> None:
    """Not `no_prediction`: the upstream gave one."""
    record = expand(
        line(leg("primary", b'{"y":1}'), leg("candidate", b"{}", body_state="redacted")),
        compare=Compare("y", "exact", 0.0, 0.0),
    )
    assert record["not_comparable_reason"] == "candidate_redacted"


def test_an_empty_body_is_whole_and_says_nothing() -> None:
    """204 No Content: hashed as empty, nothing to compare."""
    record = expand(line(leg("primary", b""), leg("candidate", None, body_state="full")))
    assert record["not_comparable_reason"] == "primary_not_json"
    empty = hashlib.sha256(b"").hexdigest()
    assert record["primary_response_sha256"] == record["candidate_response_sha256"] == empty


def with_replicate(candidate: bytes, replicate: dict[str, Any]) -> dict[str, Any]:
    """Return the record of an exchange with an A/A leg; the primary answered {"y":1}."""
    return expand(line(leg("primary", b'{"y":1}'), leg("candidate", candidate), replicate))


def test_the_replicate_is_the_noise_floor() -> None:
    """loss_diff is the candidate's loss minus the replicate's."""
    noisy, calm = leg("replicate", b'{"y":2}'), leg("replicate", b'{"y":1}')
    assert with_replicate(b'{"y":1}', noisy)["loss_diff"] == -1
    assert with_replicate(b'{"y":3}', noisy)["loss_diff"] == 0
    record = with_replicate(b'{"y":3}', calm)
    assert (record["loss_diff"], record["equal"], record["replicate_equal"]) == (1, False, True)
    assert record["replicate_prediction"] == {"y": 1}


def test_a_replicate_that_failed_is_recorded_and_takes_nothing_away() -> None:
    """`replicate_equal` null tells the evidence to leave the pair out."""
    failed = leg("replicate", None, status="timeout", http_status=None)
    record = with_replicate(b'{"y":3}', failed)
    assert (record["loss_diff"], record["replicate_equal"]) == (1, None)
    assert record["replicate_status"] == "timeout"


def test_without_a_replicate_its_fields_are_null() -> None:
    """Present all the same."""
    record = expand(line())
    assert all(value is None for name, value in record.items() if name.startswith("replicate_"))


def test_which_bodies_stay_in_the_log() -> None:
    """`record.bodies`: the comparison is the same whatever is kept."""
    request = {"request_body": "hello", "request_body_encoding": "utf-8"}
    kept = {}
    for bodies in Bodies:
        record = expand(line(**request), bodies=bodies)
        assert record["equal"] is True
        assert record["request_sha256"] == hashlib.sha256(b"hello").hexdigest()
        names = ("request_body", "primary_body", "candidate_body", "primary_prediction")
        kept[bodies] = {name for name in names if record[name] is not None}
        is_there = "candidate_body" in kept[bodies]
        assert record["candidate_body_state"] == ("full" if is_there else "omitted")
        assert (record["candidate_body_encoding"] is not None) is is_there
        assert record["replicate_body_state"] is None
    answers = {"primary_body", "candidate_body"}
    assert kept == {
        Bodies.FULL: answers | {"request_body", "primary_prediction"},
        Bodies.RESPONSES: answers | {"primary_prediction"},
        Bodies.PREDICTIONS: {"primary_prediction"},
        Bodies.NONE: set(),
    }


def test_a_request_that_was_cut_or_redacted_has_no_hash() -> None:
    """Its length tells a cut one; with redaction nothing is hashed here."""
    cut = line(request_body="hell", request_body_encoding="utf-8")
    assert expand(cut)["request_sha256"] is None
    redacted = line(request_body="hello", request_body_encoding="utf-8")
    assert expand(redacted, redact_json=("a",))["request_sha256"] is None


def test_a_streamed_answer_has_a_time_to_first_token() -> None:
    """Gaps and chunks as the worker measured them."""
    stream = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    primary = leg(
        "primary",
        stream,
        content_type="text/event-stream",
        itl_p50_us=250,
        itl_max_us=900,
        chunks=3,
    )
    record = expand(line(primary, leg("candidate", b"{}")), protocol=Protocol.OPENAI)
    assert (record["primary_ttft_ms"], record["candidate_ttft_ms"]) == (1.9, None)
    assert (record["primary_itl_p50_ms"], record["primary_itl_max_ms"]) == (0.25, 0.9)
    assert record["primary_prediction"] == "Hi"
    assert record["not_comparable_reason"] == "candidate_no_prediction"


CHUNK = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'


@pytest.mark.parametrize(
    ("end", "is_complete", "reason"),
    [
        (b"data: [DONE]\n\n", True, None),
        (b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n', True, None),
        (b"", False, "candidate_stream_incomplete"),
        (b'data: {"choices":[{"del', False, "candidate_stream_incomplete"),
        (b'data: {"error":{"message":"overloaded"}}\n\n', False, "candidate_stream_error"),
    ],
)
def test_a_stream_is_complete_when_its_answer_is(
    end: bytes, is_complete: bool, reason: str | None
) -> None:
    """HTTP may end well although the model broke off; the worker sees only the former."""
    whole = leg("primary", CHUNK + b"data: [DONE]\n\n", content_type="text/event-stream")
    candidate = leg("candidate", CHUNK + end, content_type="text/event-stream")
    record = expand(line(whole, candidate), protocol=Protocol.OPENAI)
    assert record["primary_stream_complete"] is True
    assert record["candidate_stream_complete"] is is_complete
    assert record["not_comparable_reason"] == reason
    assert record["candidate_prediction"] == "Hi"


def test_the_worker_may_know_better_when_the_first_token_came() -> None:
    """Its time to the first content stands before the time to the first byte."""
    sides = leg("primary", b"data: 1\n\n", content_type="text/event-stream")
    changed = line(sides, leg("candidate", b"{}")) | {"primary_ttft_us": 4200}
    assert expand(changed)["primary_ttft_ms"] == 4.2


def test_the_end_of_a_stream_that_was_too_long_to_keep_is_read_for_what_it_counts() -> None:
    """Why it ended and its tokens; the body is as truncated as ever, and not compared."""
    start = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    tail = (
        'data: {"model":"m","choices":[{"delta":{"content":"o"},"finish_reason":"stop"}]}\n\n'
        'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":900}}\n\n'
        "data: [DONE]\n\n"
    )
    primary = leg("primary", start, content_type="text/event-stream", body_state="truncated")
    changed = line(primary, leg("candidate", b"{}")) | {"primary_tail": tail}
    record = expand(changed, protocol=Protocol.OPENAI)
    assert (record["primary_finish_reason"], record["primary_output_tokens"]) == ("stop", 900)
    assert (record["primary_input_tokens"], record["primary_model_version"]) == (3, "m")
    assert (record["primary_body_state"], record["primary_prediction"]) == ("truncated", None)
    assert record["not_comparable_reason"] == "primary_truncated"
    assert "primary_tail" not in record
    assert expand(changed | {"primary_tail": "nonsense"}, protocol=Protocol.OPENAI)


def test_a_worker_may_leave_out_what_is_null_and_add_what_is_unknown() -> None:
    """Lines of an older or newer worker still make whole records."""
    whole = line()
    short = {name: value for name, value in whole.items() if value is not None}
    assert expand(short | {"new_in_2": 1, "candidate_new_us": 5}) == expand(whole)


@pytest.mark.parametrize(
    "damage",
    [
        {"sample_prob": 0.0},
        {"ts_us": None},
        {"ts_us": -1},
        {"ts_us": 10**18},
        {"primary_body": "%", "primary_body_encoding": "base64"},
        {"candidate_latency_us": "soon"},
    ],
    ids=str,
)
def test_a_line_that_no_worker_writes_is_refused(damage: dict[str, Any]) -> None:
    """One error, for the recorder to count and go on."""
    with pytest.raises(LineError, match="route 'iris'"):
        expand(line(**damage))


@pytest.mark.parametrize("name", ["seq", "ts_us", "candidate_status", "primary_backend", "method"])
def test_a_line_without_what_it_must_have_is_refused(name: str) -> None:
    """The error names the field, whichever way the record is made."""
    damaged = line()
    del damaged[name]
    expander = Expander(route(), record_settings(), "0.1.0")
    with pytest.raises(LineError, match=name):
        expander.expand(damaged)
    with pytest.raises(LineError, match=name):
        expander.expand_json(damaged)


@pytest.mark.parametrize("bodies", [Bodies.RESPONSES, Bodies.NONE])
@pytest.mark.parametrize("size", [1, 15, 16, 400])
def test_long_predictions_that_are_the_same(size: int, bodies: Bodies) -> None:
    """Written once and copied; `expand` holds the two ways together."""
    body = orjson.dumps({"y": [number / 7 for number in range(size)]})
    compare = Compare("y", "numeric", 1e-3, 0.0)
    record = pair(body, body, compare=compare, bodies=bodies)
    assert record["primary_prediction"] == record["candidate_prediction"]
    assert (record["equal"], record["abs_diff"], record["rel_diff"]) == (True, 0.0, 0.0)


# What upstreams may send: JSON of any shape, near-JSON, events, anything.
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=6)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ("outputs", "data", "shape", "choices", "message", "content", "tool_calls", "usage",
                 "function", "embedding", "predictions", "model", "index", "delta", "error", "x", "datatype",
                 "parameters", "binary_data_size", "output", "type", "response")
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)  # fmt: skip
documents = json_values.map(orjson.dumps)
streams = st.lists(documents, max_size=4).map(
    lambda chunks: b"".join(b"data: " + chunk + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
)
payloads = st.one_of(
    documents,
    streams,
    documents.map(gzip.compress),
    documents.map(lambda text: text[:-1]),
    st.tuples(documents, st.binary(max_size=20)).map(b"".join),
    st.just(b'{"x":[NaN,1e999,"\\ud800"]}'),
    st.binary(max_size=40),
)
legs = st.fixed_dictionaries(
    {
        "status": st.sampled_from(STATUSES),
        "body_state": st.sampled_from(("full", "truncated", "redacted", "omitted")),
        "content_type": st.sampled_from(
            (None, "application/json", "text/event-stream; x=y", "application/octet-stream")
        ),
        "content_encoding": st.sampled_from(
            (None, "", "gzip", "deflate", "zstd", "br", "gzip, gzip")
        ),
        "stream_complete": st.sampled_from((None, True, False)),
        "itl_p50_us": st.one_of(st.none(), st.integers(0, 10**9)),
        "http_status": st.one_of(st.none(), st.integers(100, 599)),
    }
)
EXPRESSIONS = ("", "outputs[0].data", "choices[*].message", "to_number(@)", "max(outputs)", "x")


@given(data=st.data())
@pytest.mark.parametrize("comparator", ["exact", "numeric", "label"])
@pytest.mark.parametrize("protocol", Protocol)
def test_whatever_upstreams_send_makes_a_valid_record(
    protocol: Protocol, comparator: str, data: st.DataObject
) -> None:
    """Every field, valid against the schema, no NaN; never an error."""
    sides = ["primary", "candidate", *data.draw(st.sampled_from(([], ["replicate"])))]
    bodies = [data.draw(st.one_of(st.none(), payloads)) for _ in sides]
    journal_line = line(
        *(leg(side, body, **data.draw(legs)) for side, body in zip(sides, bodies, strict=True))
    )
    compare = Compare(data.draw(st.sampled_from(EXPRESSIONS)), comparator, 1e-3, 0.0)
    record = expand(
        journal_line, protocol=protocol, compare=compare, bodies=data.draw(st.sampled_from(Bodies))
    )
    assert record["comparable"] is (record["not_comparable_reason"] is None)
    assert record["comparable"] is (record["equal"] is not None)
    assert record["loss_diff"] is None or -1 <= record["loss_diff"] <= 1


def test_tool_calls_are_compared_by_what_they_ask_for() -> None:
    """Whole or streamed, in any order, however their arguments are written; another value differs."""
    whole = _tool_calls(("a", '{"x": 1, "y": [2]}'), ("b", "{}"))
    chunks = [
        _tool_chunk(0, {"name": "b", "arguments": ""}),
        _tool_chunk(1, {"name": "a", "arguments": '{"y":[2.0],'}),
        _tool_chunk(1, {"arguments": '"x":1}'}),
        _tool_chunk(0, {"arguments": "{ }"}),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    ]
    streamed = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks)
    compare = Compare("", "json", 0.0, 0.0, unordered=("$",), inside_text=True)
    same = expand(
        line(
            leg("primary", whole),
            leg("candidate", streamed + b"data: [DONE]\n\n", content_type="text/event-stream"),
        ),
        protocol=Protocol.OPENAI,
        compare=compare,
    )
    assert (same["equal"], same["not_comparable_reason"]) == (True, None)
    other = _tool_calls(("b", "{}"), ("a", '{"x": 1, "y": [3]}'))
    found = expand(
        line(leg("primary", whole), leg("candidate", other)),
        protocol=Protocol.OPENAI,
        compare=compare,
    )
    assert (found["equal"], found["first_diff_path"]) == (False, "choices[0].message.tool_calls")


def _tool_calls(*calls: tuple[str, str]) -> bytes:
    asked = [
        {"id": f"call_{number}", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    choice = {"message": {"content": None, "tool_calls": asked}, "finish_reason": "tool_calls"}
    return orjson.dumps({"choices": [choice]})


def _tool_chunk(index: int, function: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"delta": {"tool_calls": [{"index": index, "function": function}]}}]}
