"""The binary tensor data extension: the same prediction as in JSON, or a clear reason."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, strategies as st
from tritonclient.utils import serialize_byte_tensor

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Answer, Extract
from proxy.pairs.protocols.extract import extract

NUMPY_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
DATATYPES = (*NUMPY_TYPES, "BF16", "BYTES")
PATHS = ("", "outputs[0].data", "outputs[1].data", "outputs[*].data", "outputs", "model_version")

Output = dict[str, Any]


def packed(datatype: str, values: list[Any]) -> bytes:
    """Return the raw tensor as NVIDIA's client writes it, or numpy."""
    if datatype == "BYTES":
        texts = np.array([value.encode() for value in values], dtype=np.object_)
        return bytes(serialize_byte_tensor(texts).item()) if values else b""
    if datatype == "BF16":
        return (np.array(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.array(values, NUMPY_TYPES[datatype]).tobytes()


def answer(*outputs: Output, separator: bytes = b"", tail: bytes = b"") -> bytes:
    """Return a body in which every output with `raw` is binary."""
    described, raw = [], b""
    for output in outputs:
        entry = dict(output)
        if "raw" in entry:
            raw += entry["raw"]
            entry["parameters"] = {"binary_data_size": len(entry.pop("raw"))}
        described.append(entry)
    head = {"model_name": "m", "model_version": "3", "outputs": described}
    return json.dumps(head).encode() + separator + raw + tail


def output(datatype: str, shape: list[int], raw: bytes, **more: Any) -> Output:
    """Return a binary output."""
    return {"name": "y", "datatype": datatype, "shape": shape, "raw": raw, **more}


def read(body: bytes, path: str = "", content_type: str = "application/octet-stream") -> Extract:
    """Return what an answer says."""
    return extract(Protocol.OPEN_INFERENCE, Answer(content_type, None, body), path)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    """Return values that the datatype holds exactly."""
    if datatype == "BYTES":
        return st.text(max_size=6)
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BF16":
        bits = st.integers(0, 2**16 - 1).map(lambda upper: np.uint32(upper << 16))
        return bits.map(lambda word: float(word.view(np.float32)))
    dtype = np.dtype(NUMPY_TYPES[datatype])
    if dtype.kind == "f":
        return st.floats(width=dtype.itemsize * 8)  # type: ignore[arg-type]
    return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


@st.composite
def twins(draw: st.DrawFn) -> tuple[Output, Output]:
    """Return an output in JSON, and the same in binary or, some of the time, in JSON too."""
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size = math.prod(shape)
    values = draw(st.lists(elements(datatype), min_size=size, max_size=size))
    plain = {"name": "y", "datatype": datatype, "shape": shape, "data": values}
    if draw(st.integers(0, 3)) == 0:
        return plain, plain
    return plain, output(datatype, shape, packed(datatype, values))


@given(pairs=st.lists(twins(), max_size=3), path=st.sampled_from(PATHS))
@example(
    pairs=[
        (
            {"name": "y", "datatype": "UINT8", "shape": [2, 2], "data": [32, 10, 13, 9]},
            output("UINT8", [2, 2], b" \n\r\t"),
        )
    ],
    path="",
)
@example(
    pairs=[
        (
            {"name": "y", "datatype": "INT8", "shape": [1], "data": [1]},
            output("INT8", [1], b"\x01"),
        )
    ],
    path="outputs",
)
@example(
    pairs=[
        (
            {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, math.nan]},
            output("FP32", [2], np.array([1.5, math.nan], "<f4").tobytes()),
        )
    ],
    path="outputs[0].data",
)
def test_a_binary_answer_says_what_its_twin_in_json_says(
    pairs: list[tuple[Output, Output]], path: str
) -> None:
    """Every datatype and shape, several outputs, NaN, binary beside JSON, any path."""
    in_json = read(answer(*(plain for plain, _ in pairs)), path, "application/json")
    in_binary = read(answer(*(binary for _, binary in pairs)), path)
    assert in_binary == in_json
    assert repr(in_binary) == repr(in_json)  # 1 is not True, nor 1.0


@pytest.mark.parametrize(
    ("datatype", "raw", "expected"),
    [
        ("BOOL", b"\x00\x01", [False, True]),
        ("UINT64", b"\xff" * 16, [2**64 - 1] * 2),
        ("INT8", b"\x80\x7f", [-128, 127]),
        ("FP16", b"\x00\x3c\x00\xc2", [1.0, -3.0]),
        ("BF16", b"\x80\x3f\x20\xc0", [1.0, -2.5]),
        ("FP64", np.array([0.1, -2.0], "<f8").tobytes(), [0.1, -2.0]),
        ("BYTES", b"\x01\x00\x00\x00a\x00\x00\x00\x00", ["a", ""]),
        ("BYTES", b"\x02\x00\x00\x00\xc3\xbc\x01\x00\x00\x00\xff", ["ü", "/w=="]),
    ],
)
def test_tensors_by_their_bytes(datatype: str, raw: bytes, expected: list[Any]) -> None:
    """As the specification lays them out; bytes that are no text become base64."""
    found = read(answer(output(datatype, [2], raw)))
    assert found == Extract(expected, "3", path="outputs[0].data")
    assert [type(value) for value in found.prediction] == [type(value) for value in expected]


def test_a_batch_gets_its_rows_by_any_output() -> None:
    """Labels first, then probabilities, as scikit-learn's models answer."""
    labels = output("INT64", [2], packed("INT64", [3, 1]))
    scores = output("FP32", [2, 3], packed("FP32", [0.0, 0.5, 1.0, 0.25, 0.5, 0.25]))
    body = answer(labels, scores)
    assert read(body).prediction == [3, 1]
    assert read(body, "outputs[1].data").prediction == [[0.0, 0.5, 1.0], [0.25, 0.5, 0.25]]
    assert read(body, "outputs[2].data").reason == "no_prediction"


RAW = packed("FP32", [1.0, 2.0])
SIZED = {"name": "y", "datatype": "FP32", "shape": [2]}


def sized(size: Any, **more: Any) -> bytes:
    """Return an answer whose one output claims `size` bytes and has eight."""
    return answer({**SIZED, "parameters": {"binary_data_size": size}, **more}, tail=RAW)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (answer(output("FP32", [2], RAW))[:-1], "binary_truncated"),
        (sized(9), "binary_truncated"),
        (sized(2**62), "binary_truncated"),
        (answer(output("FP32", [2], RAW), tail=b"\n"), "binary_trailing_bytes"),
        (sized(4, shape=[1]), "binary_trailing_bytes"),
        (answer(SIZED, tail=RAW), "binary_trailing_bytes"),
        (sized(8, shape=[3]), "binary_size_mismatch"),
        (sized(8, shape=[2**62, 2**62]), "binary_size_mismatch"),
        (sized(8, shape=[1] * 65), "binary_size_mismatch"),
        (sized(8, shape=[2, -1]), "binary_size_mismatch"),
        (sized(8, shape="2"), "binary_size_mismatch"),
        (sized(8, shape=[2.0]), "binary_size_mismatch"),
        (sized(-8), "binary_size_mismatch"),
        (sized("8"), "binary_size_mismatch"),
        (sized(True), "binary_size_mismatch"),
        (sized(8, data=[1.0, 2.0]), "binary_size_mismatch"),
        (sized(8, datatype="FP8"), "binary_datatype"),
        (sized(8, datatype=None), "binary_datatype"),
        (sized(8, datatype=["FP32"]), "binary_datatype"),
        (answer(output("BYTES", [1], b"\x05\x00\x00\x00abcd")), "binary_bytes_malformed"),
        (answer(output("BYTES", [1], b"\xff\xff\xff\xff")), "binary_bytes_malformed"),
        (answer(output("BYTES", [1], b"\x00\x00\x00")), "binary_bytes_malformed"),
        (answer(output("BYTES", [2], b"\x00\x00\x00\x00")), "binary_size_mismatch"),
        (b"", "not_json"),
        (b" \r\n", "not_json"),
        (b"[1]", "not_json"),
        (b'{"outputs":', "not_json"),
        (b"\x89PNG\r\n", "not_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "not_json"),
        (b'{"a":' * 200_000, "too_deep"),
        (b'{"a":"\\ud800"}', "not_json"),
        (b'{"outputs":{}}', "no_prediction"),
        (b'{"outputs":[1,null,{"parameters":[]}]}', "no_prediction"),
        (b'{"error":"no such model"}', "answered_error"),
    ],
    ids=lambda value: repr(value[-40:]) if isinstance(value, bytes) else value,
)
def test_what_is_not_such_an_answer_says_why(body: bytes, expected: str) -> None:
    """Sizes that lie, shapes without end, too few bytes, too many: one word, and no exception."""
    assert read(body).reason == expected


def test_what_could_be_read_is_told_beside_the_reason() -> None:
    """The version, and outputs in JSON."""
    plain = {"name": "x", "datatype": "INT64", "shape": [1], "data": [7]}
    found = read(answer(plain, output("FP32", [2], RAW))[:-1])
    assert found == Extract([7], "3", reason="binary_truncated", path="outputs[0].data")


@pytest.mark.parametrize("separator", [b"\n", b"\r\n  "])
def test_space_after_the_json_is_no_tensor(separator: bytes) -> None:
    """Some JSON writers end their text with a line feed; the sizes tell which bytes are meant."""
    raw = b"\n\n  "
    found = read(answer(output("UINT8", [4], raw), separator=separator))
    assert found.prediction == [10, 10, 32, 32]


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "Application/Octet-Stream;a=b"]
)
def test_the_content_type_may_be_wrong(content_type: str) -> None:
    """What is no JSON and begins with an object is read all the same."""
    assert read(answer(output("FP32", [2], RAW)), "", content_type).prediction == [1.0, 2.0]


def test_other_protocols_know_no_binary_tensors() -> None:
    """Their answers are JSON or they are not."""
    body = answer(output("FP64", [1], b"\xff" * 8))
    assert (
        extract(Protocol.JSON, Answer("application/octet-stream", None, body)).reason == "not_json"
    )


@given(cut=st.integers(0, 400), noise=st.binary(max_size=40), at=st.integers(0, 400))
def test_no_damage_upsets_it(cut: int, noise: bytes, at: int) -> None:
    """A prediction that the record can hold, or a reason."""
    whole = answer(
        output("BYTES", [2], packed("BYTES", ["a", "bc"])), output("BF16", [1, 2], b"\x80\x3f" * 2)
    )
    for body in (whole[:cut] + noise, whole[:at] + noise + whole[at + len(noise) :]):
        for path in PATHS:
            found = read(body, path)
            assert found.reason is None or found.reason.isidentifier()
            orjson.dumps(found.prediction)


def nested(depth: int) -> tuple[bytes, bytes]:
    """Return an answer of `depth` dimensions in JSON and in binary."""
    shape = [2] + [1] * (depth - 1)
    plain = {"name": "y", "datatype": "UINT8", "shape": shape, "data": [1, 2]}
    return answer(plain), answer(output("UINT8", shape, b"\x01\x02"))


def test_a_shape_cannot_nest_rows_without_end() -> None:
    """64 dimensions, as numpy has; the record could not hold more than 250 levels."""
    for body in nested(64):
        prediction = read(body, content_type="application/json").prediction
        assert np.array(prediction).shape == (2, *[1] * 63)
    in_json, in_binary = nested(65)
    assert read(in_json, content_type="application/json").prediction == [1, 2]
    assert read(in_binary).reason == "binary_size_mismatch"
