"""The binary tensor data extension of the Open Inference Protocol: tensors as raw bytes.

An answer is a JSON object followed by the bytes of every output that has the parameter
`binary_data_size`, in the order of the outputs: little-endian, row-major, nothing in between
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html).
Here it becomes the document that the same answer would have been in JSON, or a reason why not.

The header `Inference-Header-Content-Length` says where the JSON ends. It is not needed: a JSON
object ends itself, and the sizes say how many bytes must follow. So the worker need not carry it.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import pybase64

from proxy.pairs import documents

MEDIA_TYPE: Final = "application/octet-stream"

#: Reasons, as they end a `not_comparable_reason`: the tensors are longer than what came; something
#: follows them; a size is none, or is not that of the datatype and shape; no such datatype; the
#: lengths inside a tensor of BYTES do not add up.
TRUNCATED: Final = "binary_truncated"
TRAILING: Final = "binary_trailing_bytes"
SIZE_MISMATCH: Final = "binary_size_mismatch"
UNKNOWN_DATATYPE: Final = "binary_datatype"
BAD_ELEMENTS: Final = "binary_bytes_malformed"

#: numpy's limit. A shape of more has no honest use, and rows within rows without end.
MAX_DIMENSIONS: Final = 64

#: Codes of `struct` by datatype; BF16 and BYTES have none.
_CODES: Final = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
    "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_ITEM_BYTES: Final = {name: struct.calcsize(f"<{code}") for name, code in _CODES.items()} | {
    "BF16": 2
}
_LENGTH: Final = struct.Struct("<I")
_JSON_SPACE: Final = b" \t\r\n"
_SCANNER: Final = json.JSONDecoder()


class _TensorError(ValueError):
    """The bytes are not the tensor that the JSON describes; the text is a reason."""


def is_binary(content_type: str | None) -> bool:
    """Return whether a Content-Type is that of answers with binary tensors."""
    return content_type is not None and (
        content_type.partition(";")[0].strip().lower() == MEDIA_TYPE
    )


def unpack(body: bytes) -> tuple[Any, str | None]:
    """Return (document, None) as in JSON, or (what could be read, the reason why not).

    Numbers become Python's, FP16, BF16 and FP32 as the double of the same value; elements of BYTES
    become text, or base64 where they are not UTF-8.
    """
    document, end, reason = _header(body)
    if reason is not None:
        return document, reason
    outputs = document.get("outputs")
    entries = outputs if isinstance(outputs, list) else []
    try:
        tensors = _tensors([entry for entry in entries if isinstance(entry, dict)], body, end)
    except _TensorError as exc:
        return document, str(exc)
    for entry, data in tensors:
        _put(entry, data)
    return document, None


def request_header_bytes(body: bytes) -> int | None:
    """Return the `Inference-Header-Content-Length` of a request, None where `body` is none.

    All that its binary inputs do not take: some JSON writers end with a line feed.
    """
    document, end, reason = _header(body)
    inputs = document.get("inputs") if reason is None else None
    try:
        sizes = [_size(entry) or 0 for entry in inputs or () if isinstance(entry, dict)]
    except (_TensorError, TypeError):
        return None
    length = len(body) - sum(sizes)
    return length if reason is None and length >= end else None


def count(shape: Any) -> int | None:
    """Return how many elements a tensor of `shape` has; None for what is no shape."""
    if type(shape) is not list or len(shape) > MAX_DIMENSIONS:
        return None
    elements = 1
    for size in shape:
        if type(size) is not int or size < 0:
            return None
        elements *= size
    return elements


def _header(body: bytes) -> tuple[Any, int, str | None]:
    """Return the JSON object at the front, where it ends, and why it cannot be read."""
    start = len(body) - len(body.lstrip(_JSON_SPACE))
    try:
        # Latin-1 gives one character for each byte, so that the end is right; what lies between
        # quotes does not matter to it.
        end = _SCANNER.raw_decode(body.decode("latin-1"), start)[1]
    except ValueError:
        return None, 0, documents.NOT_JSON
    except RecursionError:
        return None, 0, documents.TOO_DEEP
    document = documents.parse(body[start:end])
    if not isinstance(document, dict):
        return None, 0, documents.NOT_JSON
    return document, end, None


def _tensors(
    entries: list[dict[str, Any]], body: bytes, end: int
) -> list[tuple[dict[str, Any], list[Any]]]:
    """Return each output that is binary with its elements, flat.

    Raises:
        _TensorError: the bytes after the JSON are not these tensors.
    """
    binary = [(entry, size) for entry in entries if (size := _size(entry)) is not None]
    position = len(body) - sum(size for _, size in binary)
    if position < end:
        raise _TensorError(TRUNCATED)
    # Some JSON writers end with a line feed. Tensors may be followed by nothing.
    if body[end:position].strip(_JSON_SPACE):
        raise _TensorError(TRAILING)
    found = []
    for entry, size in binary:
        found.append((entry, _elements(entry, body[position : position + size])))
        position += size
    return found


def _size(entry: dict[str, Any]) -> int | None:
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        return None
    if type(size) is not int or size < 0 or "data" in entry:
        raise _TensorError(SIZE_MISMATCH)
    return size


def _elements(entry: dict[str, Any], raw: bytes) -> list[Any]:
    datatype, elements = entry.get("datatype"), count(entry.get("shape"))
    if elements is None:
        raise _TensorError(SIZE_MISMATCH)
    if datatype == "BYTES":
        return _texts(raw, elements)
    item_bytes = _ITEM_BYTES.get(datatype) if isinstance(datatype, str) else None
    if item_bytes is None:
        raise _TensorError(UNKNOWN_DATATYPE)
    if len(raw) != elements * item_bytes:
        raise _TensorError(SIZE_MISMATCH)
    if datatype == "BF16":
        return _brain_floats(raw, elements)
    return list(struct.unpack(f"<{elements}{_CODES[str(datatype)]}", raw))


def _brain_floats(raw: bytes, elements: int) -> list[float]:
    """Return floats of 16 bits that are the upper half of an FP32 (bfloat16)."""
    widened = bytearray(4 * elements)
    widened[2::4], widened[3::4] = raw[::2], raw[1::2]
    return list(struct.unpack(f"<{elements}f", widened))


def _texts(raw: bytes, elements: int) -> list[str]:
    texts, position = [], 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise _TensorError(BAD_ELEMENTS)
        position = start + _LENGTH.unpack_from(raw, position)[0]
        if position > len(raw):
            raise _TensorError(BAD_ELEMENTS)
        texts.append(_text(raw[start:position]))
    if len(texts) != elements:
        raise _TensorError(SIZE_MISMATCH)
    return texts


def _text(element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return pybase64.b64encode(element).decode("ascii")


def _put(entry: dict[str, Any], data: list[Any]) -> None:
    """Make an output what it would have been in JSON."""
    del entry["parameters"]["binary_data_size"]
    if not entry["parameters"]:
        del entry["parameters"]
    entry["data"] = data
