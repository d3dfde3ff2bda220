"""What each protocol's answers say."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Answer, Extract
from proxy.pairs.protocols.extract import extract
from tests.support.answers import read, read_stream

OIP, OPENAI = Protocol.OPEN_INFERENCE, Protocol.OPENAI


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


def test_open_inference_of_language_models() -> None:
    """Triton's generate extension, whole and streamed."""
    whole = {"model_name": "llm", "model_version": "1", "text_output": "Hi there"}
    assert read(OIP, whole) == Extract("Hi there", "1", path="text_output")
    pieces = [whole | {"text_output": piece} for piece in ("Hi", "", " there")]
    assert read_stream(*pieces, protocol=OIP) == read(OIP, whole)


def test_open_inference_streams_of_whole_answers() -> None:
    """MLServer's `infer_stream`: each output's data one after another."""
    answers = [
        {"model_version": "1", "outputs": [{"shape": [1, 1], "data": [word]}, {"data": [number]}]}
        for number, word in enumerate(("a", "b"))
    ]
    found = read_stream(*answers, protocol=OIP)
    assert found == Extract(["a", "b"], "1", path="outputs[0].data")
    second = read_stream(*answers, protocol=OIP, expression="outputs[1].data")
    assert second.prediction == [0, 1]


@pytest.mark.parametrize(
    ("chunks", "prediction", "reason"),
    [
        ((), None, "no_prediction"),
        (({"text_output": "Hi"}, {"error": "out of memory"}), "Hi", "stream_error"),
        (({"text_output": "Hi"}, '{"text_ou'), "Hi", "stream_incomplete"),
        (({"text_output": 1}, {"outputs": [{"data": 1}, 2]}, []), None, "no_prediction"),
    ],
)
def test_open_inference_streams_that_did_not_end_well(
    chunks: tuple[Any, ...], prediction: Any, reason: str
) -> None:
    """What came is kept beside the reason."""
    found = read_stream(*chunks, protocol=OIP)
    assert (found.prediction, found.reason) == (prediction, reason)


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


@pytest.mark.parametrize(
    ("document", "prediction", "path"),
    [
        ({"predictions": [1, 2]}, [1, 2], "predictions"),
        ({"predictions": [{"a": 1}]}, [{"a": 1}], "predictions"),
        ({"predictions": {"a": [1]}}, {"a": [1]}, "predictions"),
        ({"predictions": "text"}, "text", "predictions"),
        ({"predictions": [1], "choices": [{"text": "a"}]}, [1], "predictions"),
        ([1, 2], [1, 2], ""),
        ({"columns": ["a"], "data": [[1]]}, {"columns": ["a"], "data": [[1]]}, ""),
        (
            {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
            {"columns": ["a"], "data": [[1]]},
            "dataframe_split",
        ),
        ({"dataframe_records": [{"a": 1}]}, [{"a": 1}], "dataframe_records"),
        ({"choices": [{"message": {"content": "Hi"}}]}, "Hi", "choices[0].message.content"),
        ({"data": [{"embedding": [0.5]}]}, [0.5], "data[0].embedding"),
    ],
)
def test_mlflow(document: Any, prediction: Any, path: str) -> None:
    """Predictions of any JSON type, tables, and language models in OpenAI's words."""
    assert read(Protocol.MLFLOW, document) == Extract(prediction, path=path)


def test_mlflow_streams_as_openai_does() -> None:
    """A chat model's chunks, with its name and tokens."""
    chunk = {"model": "m", "choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    found = read_stream(chunk, protocol=Protocol.MLFLOW)
    assert (found.prediction, found.model_version, found.reason) == ("Hi", "m", None)


@pytest.mark.parametrize("key", ["predictions", "outputs", "results", "result"])
@pytest.mark.parametrize("value", [[[1.0]], {"a": [1]}, [[["cat", 0.9]]], [{"b64": "AA=="}], 0.5])
def test_tfserving(key: str, value: Any) -> None:
    """Rows, columns, and what classify and regress answer."""
    assert read(Protocol.TFSERVING, {key: value}) == Extract(value, path=key)


def test_tfserving_writes_nan_as_it_is() -> None:
    """Which is not JSON, and still told from what is no answer at all."""
    body = b'{"predictions": [[0.5, NaN], [-Infinity, 1]]}'
    found = extract(Protocol.TFSERVING, Answer("application/json", None, body))
    assert (found.prediction, found.reason) == ([[0.5, None], [None, 1]], "not_finite")


@pytest.mark.parametrize("protocol", [OIP, OPENAI, Protocol.MLFLOW, Protocol.TFSERVING])
@pytest.mark.parametrize("error", ["no such model", {"message": "overloaded", "code": 503}])
def test_an_error_in_an_answer_of_200_is_told_from_an_empty_one(
    protocol: Protocol, error: Any
) -> None:
    """Gateways send such."""
    assert read(protocol, {"error": error}).reason == "answered_error"
    assert read(protocol, {"error": None}).reason == "no_prediction"


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
    assert extract(Protocol.JSON, Answer(None, "deflate", body)).reason == "encoding_damaged"
    assert extract(Protocol.JSON, Answer(None, "compress", body)).reason == "content_encoding"


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
        (b"[0.5, " + b"[" * 300 + b"]" * 300 + b"]", "too_deep"),
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
