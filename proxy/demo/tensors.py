"""The Open Inference Protocol (KServe v2) as bytes: one request in, one answer out.

Pure. It decides what a valid inference request for the digits is and how the answer is written,
in JSON and in the binary tensor data extension, where tensors follow the JSON as raw bytes and a
header says where the JSON ends. HTTP is `proxy.demo.server`'s business, the model is its caller's.

https://github.com/kserve/open-inference-protocol, `specification/protocol/inference_rest.md` and
`extension_binary_data` in Triton's copy of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

#: Says where the JSON of a binary request or answer ends.
JSON_LENGTH_HEADER: Final = "inference-header-content-length"
#: Rows of one request.
MAX_BATCH: Final = 256

Array = npt.NDArray[Any]

#: The protocol's names of the numeric types, and how they lie in memory.
_DTYPES: Final = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NAMES: Final = {np.dtype(code): name for name, code in _DTYPES.items()}


class BadRequestError(Exception):
    """The request is not a valid inference request; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that the client asked for."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request.

    Attributes:
        request_id: to be echoed, or None.
        rows: the input as `(n, features)` floats.
        wanted: the outputs asked for, in order; None means all.
        is_binary: outputs are binary unless `wanted` says otherwise.
    """

    request_id: str | None
    rows: npt.NDArray[np.float64]
    wanted: tuple[Wanted, ...] | None
    is_binary: bool


def decode_request(body: bytes, json_length: str | None, features: int) -> InferRequest:
    """Return the request in `body`.

    Args:
        body: the whole HTTP body.
        json_length: the header `Inference-Header-Content-Length`, or None.
        features: numbers in a row.

    Raises:
        BadRequestError: it is none, or its input does not fit.
    """
    end = _json_end(body, json_length)
    try:
        document = orjson.loads(body[:end])
    except orjson.JSONDecodeError as exc:
        raise BadRequestError(f"the body is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise BadRequestError("the body is not a JSON object")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequestError("id must be a string")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequestError("inputs must hold exactly one tensor")
    tensor = _tensor(inputs[0], memoryview(body)[end:])
    return InferRequest(
        request_id,
        _rows(tensor, features),
        _wanted(document),
        is_binary=_parameter(document, "binary_data_output") is True,
    )


def encode_response(
    head: dict[str, Any], outputs: dict[str, Array], request: InferRequest
) -> tuple[bytes, int | None]:
    """Return the answer's body, and the length of its JSON when it holds binary tensors.

    Args:
        head: what stands before the outputs, such as the model's name and version.
        outputs: every output of the model, in its order.
        request: what is answered.

    Raises:
        BadRequestError: an output was asked for that the model does not have.
    """
    wanted = request.wanted
    if wanted is None:
        wanted = tuple(Wanted(name, request.is_binary) for name in outputs)
    document, tail = dict(head), bytearray()
    if request.request_id is not None:
        document["id"] = request.request_id
    document["outputs"] = described = []
    for item in wanted:
        if item.name not in outputs:
            raise BadRequestError(f"the model has no output {item.name!r}")
        values = np.ascontiguousarray(outputs[item.name])
        entry: dict[str, Any] = {
            "name": item.name,
            "shape": list(values.shape),
            "datatype": _NAMES[values.dtype],
        }
        if item.is_binary:
            raw = values.tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            entry["data"] = values.reshape(-1)
        described.append(entry)
    encoded = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    is_binary = any(item.is_binary for item in wanted)
    return encoded + bytes(tail), len(encoded) if is_binary else None


def _json_end(body: bytes, json_length: str | None) -> int:
    if json_length is None:
        return len(body)
    if not json_length.isascii() or not json_length.isdecimal() or int(json_length) > len(body):
        raise BadRequestError(f"{JSON_LENGTH_HEADER} does not fit the body")
    return int(json_length)


def _parameter(document: dict[str, Any], name: str) -> Any:
    parameters = document.get("parameters")
    return parameters.get(name) if isinstance(parameters, dict) else None


def _tensor(entry: dict[str, Any], tail: memoryview) -> Array:
    """Return the input as an array of its declared shape."""
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BadRequestError("shape must be a list of sizes")
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        raise BadRequestError(f"datatype {datatype!r} is not one of {', '.join(_DTYPES)}")
    size = _parameter(entry, "binary_data_size")
    try:
        if size is not None:
            if type(size) is not int or size != len(tail):
                raise BadRequestError("binary_data_size does not fit the bytes after the JSON")
            values = np.frombuffer(tail, dtype=_DTYPES[datatype])
        else:
            values = np.asarray(entry.get("data"), dtype=_DTYPES[datatype])
        return values.reshape(shape)
    except (TypeError, ValueError, OverflowError) as exc:
        raise BadRequestError(f"the data is no {datatype} of shape {shape}") from exc


def _rows(tensor: Array, features: int) -> npt.NDArray[np.float64]:
    if tensor.ndim != 2 or tensor.shape[1] != features or not 1 <= len(tensor) <= MAX_BATCH:
        wanted = f"[n, {features}] with n from 1 to {MAX_BATCH}"
        raise BadRequestError(f"the shape must be {wanted}, not {list(tensor.shape)}")
    rows = tensor.astype(np.float64)
    if not np.isfinite(rows).all():
        raise BadRequestError("the data holds a number that is not finite")
    return rows


def _wanted(document: dict[str, Any]) -> tuple[Wanted, ...] | None:
    entries = document.get("outputs")
    if not entries:
        return None
    by_default = _parameter(document, "binary_data_output") is True
    wanted = []
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BadRequestError("each of outputs must have a name")
        choice = _parameter(entry, "binary_data")
        is_binary = choice if isinstance(choice, bool) else by_default
        wanted.append(Wanted(entry["name"], is_binary))
    return tuple(wanted)
