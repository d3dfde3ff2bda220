"""TensorFlow Serving's REST predict: `predictions` (row format) or `outputs` (columnar).

Its answers name no version: the request's path does.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols.answer import Dialect


def _prediction(document: Any) -> tuple[Any, str]:
    if not isinstance(document, dict):
        return None, "predictions"
    for key in ("predictions", "outputs"):
        if key in document:
            return document[key], key
    return None, "predictions"


DIALECT: Final = Dialect(prediction=_prediction)
