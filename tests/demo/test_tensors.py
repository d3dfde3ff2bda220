"""The Open Inference Protocol's bodies: what is read, what is refused, what is written."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.demo.tensors import (
    BadRequestError,
    InferRequest,
    Wanted,
    decode_request,
    encode_response,
)

HEAD = {"model_name": "m", "model_version": "1"}


def _body(**changes: Any) -> bytes:
    tensor: dict[str, Any] = {"name": "x", "shape": [2, 3], "datatype": "FP64"}
    tensor["data"] = [1, 2, 3, 4, 5, 6]
    tensor.update(changes.pop("tensor", {}))
    return orjson.dumps({"inputs": [tensor], **changes})


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_data_may_be_flat_or_nested(data: list[Any]) -> None:
    """The protocol allows both."""
    request = decode_request(_body(tensor={"data": data}), None, 3)
    assert request.rows.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_unknown_parameters_are_tolerated_and_the_id_is_kept() -> None:
    """Clients may add parameters on the request and on the tensor."""
    body = _body(id="seven", parameters={"priority": 3}, tensor={"parameters": {"x": 1}})
    assert decode_request(body, None, 3).request_id == "seven"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "exactly one tensor"),
        (_body(id=7), "id must be a string"),
        (_body(tensor={"shape": [1, 3]}), "no FP64 of shape"),
        (_body(tensor={"shape": [3, 2]}), "the shape must be"),
        (_body(tensor={"shape": [-2, -3]}), "list of sizes"),
        (_body(tensor={"datatype": "BYTES"}), "datatype 'BYTES'"),
        (_body(tensor={"data": ["a"] * 6}), "no FP64 of shape"),
        (_body(tensor={"data": [None] * 6}), "not finite"),
        (_body(tensor={"data": None}), "no FP64 of shape"),
        (_body(tensor={"datatype": "UINT8", "data": [300] * 6}), "no UINT8 of shape"),
        (_body(tensor={"parameters": {"binary_data_size": 48}}), "binary_data_size"),
        (_body(outputs=[{}]), "must have a name"),
        (_body(outputs="label"), "must have a name"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(body: bytes, words: str) -> None:
    """Never a wrong shape, a lost digit or a traceback."""
    with pytest.raises(BadRequestError, match=words):
        decode_request(body, None, 3)


@pytest.mark.parametrize("length", ["99999", "-1", "x", "²", ""])
def test_a_json_length_that_does_not_fit_is_refused(length: str) -> None:
    """The header comes from outside."""
    with pytest.raises(BadRequestError, match="does not fit"):
        decode_request(_body(), length, 3)


def test_an_output_that_does_not_exist_is_refused() -> None:
    """Instead of being left out silently."""
    request = InferRequest(
        None, np.zeros((1, 3)), (Wanted("nope", is_binary=False),), is_binary=False
    )
    with pytest.raises(BadRequestError, match="no output 'nope'"):
        encode_response(HEAD, {"label": np.array([1])}, request)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250).map(str))
def test_no_bytes_break_the_decoder(body: bytes, length: str | None) -> None:
    """It returns a request or refuses; nothing else."""
    with contextlib.suppress(BadRequestError):
        decode_request(body, length, 3)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.booleans(),
)
def test_binary_outputs_come_back_bit_for_bit(labels: list[int], is_binary: bool) -> None:
    """What a client cuts from behind the JSON is the tensor."""
    request = InferRequest("r", np.zeros((1, 3)), None, is_binary=is_binary)
    values = np.array(labels, dtype=np.int64)
    body, length = encode_response(HEAD, {"label": values}, request)
    document = orjson.loads(body[:length])
    (output,) = document["outputs"]
    assert document["id"] == "r"
    assert output["datatype"] == "INT64"
    assert output["shape"] == [len(labels)]
    if is_binary:
        assert length is not None
        assert np.frombuffer(body[length:], dtype="<i8").tolist() == labels
        assert output["parameters"]["binary_data_size"] == len(body) - length
    else:
        assert length is None
        assert output["data"] == labels
