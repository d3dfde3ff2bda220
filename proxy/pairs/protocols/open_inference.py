"""The Open Inference Protocol (KServe v2): `outputs[0].data`, `model_version`.

Language models answer with `text_output` (Triton's generate extension), and stream it in pieces;
MLServer streams whole answers, whose data follow one another. Neither marks the end of its streams.
Binary tensors (`binary_tensors`) come here as the document that they would have been in JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from proxy.pairs.protocols import binary_tensors, stream
from proxy.pairs.protocols.answer import NO_FACTS, Dialect, Facts, objects_of, text_or_none

_DEFAULT: Final = "outputs[0].data"
_TEXT: Final = "text_output"
_OF_ANSWER: Final = ("model_name", "model_version", "error")
_OUTPUT_DATA = re.compile(r"outputs\[([0-9]+)\]\.data")


def _facts(document: Any) -> Facts:
    if not isinstance(document, dict):
        return NO_FACTS
    version = document.get("model_version")
    return (version if type(version) is str else text_or_none(version)), None, None, None


def _prediction(document: Any) -> tuple[Any, str]:
    output = _output(document, 0)
    if output is None and isinstance(document, dict) and "text_output" in document:
        return document["text_output"], _TEXT
    return (None if output is None else output.get("data")), _DEFAULT


def _assemble(events: list[bytes]) -> tuple[Any, str | None]:
    """Return the answer that a stream amounts to, in the shape of one that was not streamed."""
    chunks = stream.chunks_of(events)
    document: dict[str, Any] = {}
    texts: list[str] = []
    data: dict[int, list[Any]] = {}
    for chunk in objects_of(chunks.found):
        document |= {name: chunk[name] for name in _OF_ANSWER if name in chunk}
        if isinstance(chunk.get("text_output"), str):
            texts.append(chunk["text_output"])
        for number, output in enumerate(objects_of(chunk.get("outputs"))):
            if isinstance(output.get("data"), list):
                data.setdefault(number, []).extend(output["data"])
    if texts:
        document["text_output"] = "".join(texts)
    if data:
        # The shapes were those of the pieces.
        document["outputs"] = [{"data": data.get(number)} for number in range(max(data) + 1)]
    return document, stream.FAILED if document.get("error") else chunks.reason


def _refine(prediction: list[Any], document: Any, path: str) -> list[Any]:
    """Give a flat tensor of a batch its rows, so that a label comparator sees one item a row.

    The protocol (section "Tensor Data") allows `data` flat in row-major order or nested. A batch
    of one stays as it was sent, as does a shape that is none: rows must not nest without end.
    """
    if not prediction or type(prediction[0]) is list:
        return prediction
    index = _output_index(path)
    if index is None:
        return prediction
    try:
        shape = document["outputs"][index]["shape"]
    except (LookupError, TypeError):
        return prediction
    if type(shape) is not list or len(shape) < 2 or shape[0] == 1:
        return prediction
    if binary_tensors.count(shape) != len(prediction):
        return prediction
    return _rows(prediction, shape)


@lru_cache(maxsize=64)
def _output_index(path: str) -> int | None:
    """Return which output's data `path` names; a route has one path."""
    match = _OUTPUT_DATA.fullmatch(path)
    return int(match[1]) if match else None


def _rows(flat: list[Any], shape: list[int]) -> list[Any]:
    """Return `flat`, of as many elements as `shape` has and at least one, as rows of shape[1:]."""
    nested = flat
    for dimension in reversed(shape[1:]):
        nested = [nested[start : start + dimension] for start in range(0, len(nested), dimension)]
    return nested


def _output(document: Any, index: int) -> dict[str, Any] | None:
    outputs = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(outputs, list) or index >= len(outputs):
        return None
    return outputs[index] if isinstance(outputs[index], dict) else None


DIALECT: Final = Dialect(
    prediction=_prediction,
    facts=_facts,
    assemble=_assemble,
    unpack=binary_tensors.unpack,
    refine=_refine,
)
