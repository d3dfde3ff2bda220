"""The Open Inference Protocol (KServe v2): `outputs[0].data`, `model_version`.

Binary tensors (`binary_tensors`) come here as the document that they would have been in JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from proxy.pairs.protocols import binary_tensors
from proxy.pairs.protocols.answer import NO_FACTS, Dialect, Facts, text_or_none

_DEFAULT: Final = "outputs[0].data"
_OUTPUT_DATA = re.compile(r"outputs\[([0-9]+)\]\.data")


def _facts(document: Any) -> Facts:
    if not isinstance(document, dict):
        return NO_FACTS
    version = document.get("model_version")
    return (version if type(version) is str else text_or_none(version)), None, None, None


def _prediction(document: Any) -> tuple[Any, str]:
    output = _output(document, 0)
    return (None if output is None else output.get("data")), _DEFAULT


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
    prediction=_prediction, facts=_facts, refine=_refine, unpack=binary_tensors.unpack
)
