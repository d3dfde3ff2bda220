"""MLflow's scoring server (`/invocations`): `predictions`; it names no version."""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols.answer import Dialect


def _prediction(document: Any) -> tuple[Any, str]:
    # Servers before MLflow 2.0 answer the bare list.
    if isinstance(document, list):
        return document, ""
    found = document.get("predictions") if isinstance(document, dict) else None
    return found, "predictions"


DIALECT: Final = Dialect(prediction=_prediction)
