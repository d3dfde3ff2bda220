"""The Open Inference Protocol (KServe v2): `outputs[0].data`, `model_version`.

JSON tensors only; the binary tensor extension's answers are not JSON and say so.
"""

from __future__ import annotations

import re
from typing import Any, Final

from proxy.pairs.protocols.answer import Dialect, Facts, text_or_none

_DEFAULT: Final = "outputs[0].data"
_OUTPUT_DATA = re.compile(r"outputs\[([0-9]+)\]\.data")


def _facts(document: Any) -> Facts:
    if not isinstance(document, dict):
        return Facts()
    return Facts(model_version=text_or_none(document.get("model_version")))


def _prediction(document: Any) -> tuple[Any, str]:
    output = _output(document, 0)
    return (None if output is None else output.get("data")), _DEFAULT


def _refine(prediction: Any, document: Any, path: str) -> Any:
    """Give a flat tensor of a batch its rows, so that a label comparator sees one item a row.

    The protocol (section "Tensor Data") allows `data` flat in row-major order or nested. A batch
    of one stays as it was sent.
    """
    match = _OUTPUT_DATA.fullmatch(path)
    output = _output(document, int(match[1])) if match else None
    if output is None or not isinstance(prediction, list) or not prediction:
        return prediction
    shape = output.get("shape")
    if not isinstance(shape, list) or len(shape) < 2 or isinstance(prediction[0], list):
        return prediction
    if not all(type(size) is int and size > 0 for size in shape) or shape[0] == 1:
        return prediction
    return _rows(prediction, shape)


def _rows(flat: list[Any], shape: list[int]) -> list[Any]:
    """Return `flat` as rows of shape[1:], or as it is when the shape does not fit."""
    size = 1
    for dimension in shape:
        size *= dimension
        if size > len(flat):
            return flat
    if size != len(flat):
        return flat
    nested = flat
    for dimension in reversed(shape[1:]):
        nested = [nested[start : start + dimension] for start in range(0, len(nested), dimension)]
    return nested


def _output(document: Any, index: int) -> dict[str, Any] | None:
    outputs = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(outputs, list) or index >= len(outputs):
        return None
    return outputs[index] if isinstance(outputs[index], dict) else None


DIALECT: Final = Dialect(prediction=_prediction, facts=_facts, refine=_refine)
