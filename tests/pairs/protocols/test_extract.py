"""What each protocol's answers say."""

from __future__ import annotations

import base64
import gzip
import struct
from typing import Any

import orjson
import pytest

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Answer, Extract
from proxy.pairs.protocols.extract import extract

OIP, OPENAI = Protocol.OPEN_INFERENCE, Protocol.OPENAI


def read(protocol: Protocol, value: Any, expression: str = "") -> Extract:
    """Return what a JSON answer says."""
    return extract(protocol, Answer("application/json", None, orjson.dumps(value)), expression)


def read_stream(*chunks: Any, protocol: Protocol = OPENAI, expression: str = "") -> Extract:
    """Return what a stream says; text chunks are data as they are."""
    texts = [chunk.encode() if isinstance(chunk, str) else orjson.dumps(chunk) for chunk in chunks]
    body = b"".join(b"data: " + text + b"\n\n" for text in texts)
    return extract(protocol, Answer("text/event-stream", None, body), expression)


def tensor(data: Any, shape: Any) -> dict[str, Any]:
    """Return an Open Inference answer with one output."""
    return {"model_name": "m", "model_version": "3", "outputs": [{"data": data, "shape": shape}]}


def test_open_inference() -> None:
    """The first output's data, and the version."""
    found = read(OIP, tensor([0.1, 0.9], [1, 2]))
    assert found == Extract([0.1, 0.9], "3", path="outputs[0].data")


@pytest.mark.parametrize(
    ("data", "shape", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], [2, 3], [[1, 2, 3], [4, 5, 6]]),
        ([1, 2, 3, 4], [2, 1, 2], [[[1, 2]], [[3, 4]]]),
        ([1, 2, 3], [3], [1, 2, 3]),
        ([1, 2, 3], [1, 3], [1, 2, 3]),
        ([[1, 2], [3, 4]], [2, 2], [[1, 2], [3, 4]]),
        ([1, 2, 3], [2, 2], [1, 2, 3]),
        ([1, 2], [2, -1], [1, 2]),
        ([1, 2], [2, "x"], [1, 2]),
        ([1, 2], [2**62, 2**62], [1, 2]),
        ([1, 2], None, [1, 2]),
        ([], [2, 2], []),
        ("text", [2, 2], "text"),
    ],
)
def test_a_flat_tensor_of_a_batch_gets_its_rows(data: Any, shape: Any, expected: Any) -> None:
    """The protocol sends row-major data flat; a shape that does not fit changes nothing."""
    assert read(OIP, tensor(data, shape)).prediction == expected
    assert read(OIP, tensor(data, shape), "outputs[0].data").prediction == expected


def test_an_output_that_is_not_there() -> None:
    """A path to the second output of one."""
    assert read(OIP, tensor([1], [1]), "outputs[1].data").reason == "no_prediction"


def test_a_path_of_ones_own() -> None:
    """JMESPath over the document, with the facts of the protocol."""
    found = read(OIP, tensor([1, 2], [2]), "outputs[0].data | max(@)")
    assert found == Extract(2, "3", path="outputs[0].data | max(@)")


EMPTY: tuple[Any, ...] = (
    {},
    None,
    1,
    {"choices": []},
    {"choices": [{}]},
    {"choices": [None]},
    {"choices": [{"message": 1}]},
    {"data": []},
    {"data": 1},
    {"data": [{"embedding": "?"}]},
    {"data": [{"embedding": "AAA="}]},
    {"usage": [], "choices": {}},
    {"choices": [{"message": {"tool_calls": "?"}}]},
)
NO_OUTPUT: tuple[Any, ...] = ([], {"outputs": []}, {"outputs": [1]}, {"outputs": 3})


@pytest.mark.parametrize(
    ("protocol", "value"),
    [
        *(
            (p, value)
            for p in (OIP, OPENAI, Protocol.MLFLOW, Protocol.TFSERVING)
            for value in EMPTY
        ),
        *((p, value) for p in (OIP, OPENAI) for value in NO_OUTPUT),
        (Protocol.TFSERVING, []),
    ],
    ids=str,
)
def test_answers_without_a_prediction_say_so(protocol: Protocol, value: Any) -> None:
    """Whatever their shape."""
    found = read(protocol, value)
    assert (found.prediction, found.reason) == (None, "no_prediction")


def test_openai_chat() -> None:
    """Text, model, tokens and finish reason."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    found = read(OPENAI, {"model": "m-1", "choices": [choice], "usage": usage})
    assert found == Extract("Hi", "m-1", 5, 1, "stop", None, "choices[0].message.content")


def test_openai_tool_calls() -> None:
    """Names and arguments; ids differ from call to call."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = read(OPENAI, {"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert found.prediction == [{"name": "f", "arguments": '{"a":1}'}]
    assert found.path == "choices[0].message.tool_calls"


def test_openai_completions() -> None:
    """The text of the first choice."""
    found = read(OPENAI, {"model": "m", "choices": [{"text": "a"}, {"text": "b"}]})
    assert (found.prediction, found.path) == ("a", "choices[0].text")


def test_openai_embeddings_as_numbers_and_as_base64() -> None:
    """The official client asks for base64 by default."""
    vector = [0.5, -1.25, 3.0]
    packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
    for embedding in (vector, packed):
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        found = read(OPENAI, {"object": "list", "data": [{"embedding": embedding}], "usage": usage})
        assert (found.prediction, found.path) == (vector, "data[0].embedding")
        assert (found.input_tokens, found.output_tokens) == (2, None)


def test_a_base64_embedding_with_nan_is_not_finite() -> None:
    """JSON numbers cannot hold one; float32 can."""
    packed = base64.b64encode(struct.pack("<2f", 1.0, float("nan"))).decode()
    found = read(OPENAI, {"data": [{"embedding": packed}]})
    assert (found.prediction, found.reason) == ([1.0, None], "not_finite")


def delta(content: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a streamed chat answer."""
    return {"model": "m-1", "choices": [{"index": 0, "delta": {"content": content}, **more}]}


def test_openai_chat_stream() -> None:
    """Assembled text; usage comes last and without choices."""
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    other = {"choices": [{"index": 1, "delta": {"content": "no"}}]}
    found = read_stream(
        delta("", role="assistant"), delta("Hel"), other, delta("lo"),
        delta(finish_reason="stop"), usage, "[DONE]",
    )  # fmt: skip
    assert found == Extract("Hello", "m-1", 5, 2, "stop", None, "choices[0].message.content")


def test_openai_completion_stream() -> None:
    """Text deltas."""
    chunks = [{"choices": [{"index": 0, "text": text}]} for text in ("a", "b")]
    found = read_stream(*chunks, "[DONE]")
    assert (found.prediction, found.reason, found.path) == ("ab", None, "choices[0].text")


def test_openai_tool_call_stream() -> None:
    """Arguments come in pieces, calls by index."""

    def call(index: int, name: str | None, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"choices": [{"delta": {"tool_calls": [{"index": index, "function": function}]}}]}

    found = read_stream(
        call(1, "g", ""),
        call(0, "f", '{"a"'),
        call(0, None, ":1}"),
        delta(finish_reason="tool_calls"),
    )
    assert found.prediction == [
        {"name": "f", "arguments": '{"a":1}'},
        {"name": "g", "arguments": ""},
    ]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((delta("Hel"),), "stream_incomplete"),
        ((delta("Hel"), '{"choices": [{"del'), "stream_incomplete"),
        ((delta("Hel"), {"error": {"message": "overloaded"}}, "[DONE]"), "stream_error"),
        (("hello", delta("x", finish_reason="stop")), "not_json"),
    ],
)
def test_a_stream_that_did_not_end_well_cannot_be_compared(
    chunks: tuple[Any, ...], reason: str
) -> None:
    """What came of it is kept as far as it can be read."""
    found = read_stream(*chunks)
    assert found.reason == reason
    assert found.prediction == ("Hel" if chunks[0] != "hello" else "")


def test_a_path_of_ones_own_reads_the_assembled_stream() -> None:
    """In the shape of an answer that was not streamed."""
    chunks = (delta("Hi", finish_reason="length"), "[DONE]")
    assert read_stream(*chunks, expression="choices[0].finish_reason").prediction == "length"


def test_mlflow() -> None:
    """Predictions of any JSON type, or the bare list of old servers."""
    assert read(Protocol.MLFLOW, {"predictions": [{"a": 1}]}) == Extract(
        [{"a": 1}], path="predictions"
    )
    assert read(Protocol.MLFLOW, [1, 2]) == Extract([1, 2])


def test_tfserving() -> None:
    """Rows, or columns."""
    assert read(Protocol.TFSERVING, {"predictions": [[1.0]]}).prediction == [[1.0]]
    found = read(Protocol.TFSERVING, {"outputs": {"a": [1]}})
    assert (found.prediction, found.path) == ({"a": [1]}, "outputs")


def test_json() -> None:
    """The whole document; null is no prediction; a stream is the list of its data."""
    assert read(Protocol.JSON, {"y": 1}) == Extract({"y": 1})
    assert read(Protocol.JSON, None).reason == "no_prediction"
    assert read_stream({"a": 1}, 2, "[DONE]", protocol=Protocol.JSON).prediction == [{"a": 1}, 2]
    assert read_stream("x", protocol=Protocol.JSON).reason == "not_json"


def test_raw() -> None:
    """Text where it is UTF-8, else base64; JSON is text here."""
    for body, prediction in (
        (b'{"y":1}', '{"y":1}'),
        ("ü".encode(), "ü"),
        (b"\xff", "/w=="),
        (b"", ""),
    ):
        assert extract(Protocol.RAW, Answer(None, None, body)) == Extract(prediction)


def test_a_compressed_answer_is_read_uncompressed() -> None:
    """For every protocol alike."""
    body = gzip.compress(b'{"y":1}')
    assert extract(Protocol.JSON, Answer(None, "gzip", body)).prediction == {"y": 1}
    assert extract(Protocol.RAW, Answer(None, "gzip", body)).prediction == '{"y":1}'
    assert extract(Protocol.JSON, Answer(None, "br", body)).reason == "content_encoding"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'"\\ud800"', "not_json"),
        (b'[NaN, "\\ud800"]', "not_json"),
        (b"[" * 5000 + b"NaN", "not_json"),
        (b'{"y": 1e999}', "not_finite"),
        (b"-Infinity", "not_finite"),
        (b"1" * 400, "not_finite"),
        (b"[" * 300 + b"]" * 300, "too_deep"),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else value,
)
def test_what_json_cannot_be(body: bytes, reason: str) -> None:
    """Each its own word; what json.dumps of Python writes is told from what is not JSON at all."""
    assert extract(Protocol.JSON, Answer(None, None, body)).reason == reason


def test_many_brackets_are_not_many_levels() -> None:
    """Nested, but the log can hold it."""
    rows = [[index] for index in range(300)]
    assert read(Protocol.JSON, rows).prediction == rows


def test_a_version_may_be_a_number() -> None:
    """Read as text; anything else is none."""
    assert read(OIP, {"model_version": 3}).model_version == "3"
    assert read(OIP, {"model_version": [3]}).model_version is None


def test_nan_outside_the_prediction_does_no_harm() -> None:
    """Only the prediction is compared."""
    body = b'{"loss": NaN, "big": 123456789012345678901234567890, "y": 0.5}'
    assert extract(Protocol.JSON, Answer(None, None, body), "y") == Extract(0.5, path="y")


def test_what_an_expression_makes_is_checked_too() -> None:
    """JMESPath's to_number reads `nan` and integers of any length."""
    assert read(Protocol.JSON, "nan", "to_number(@)").reason == "not_finite"
    assert read(Protocol.JSON, "9" * 30, "to_number(@)").reason == "no_prediction"
