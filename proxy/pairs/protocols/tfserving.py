"""TensorFlow Serving's REST answers: `predictions` (row format) or `outputs` (columnar).

Classify and regress answer with `results`, which its documentation also calls `result`. No answer
names a version: the request's path does.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols.answer import Dialect

_KEYS: Final = ("predictions", "outputs", "results", "result")


def _prediction(document: Any) -> tuple[Any, str]:
    if not isinstance(document, dict):
        return None, "predictions"
    for key in _KEYS:
        if key in document:
            return document[key], key
    return None, "predictions"


DIALECT: Final = Dialect(prediction=_prediction)
