"""MLflow's scoring server (`/invocations`): `predictions`; it names no version.

Language models answer there as OpenAI's interface does, without `predictions` around it, when asked
so (`unwrapped_predictions_to_json` in mlflow/pyfunc/scoring_server).
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols import openai
from proxy.pairs.protocols.answer import Dialect, object_of

#: Where tables are when they do not come as `predictions`.
_TABLES: Final = ("dataframe_split", "dataframe_records")
_OF_OPENAI: Final = ("choices", "output", "data")


def _prediction(document: Any) -> tuple[Any, str]:
    # Servers before MLflow 2.0 answer the bare list, or a table as pandas writes it split.
    if isinstance(document, list) or "columns" in object_of(document):
        return document, ""
    if not isinstance(document, dict) or "predictions" in document:
        return object_of(document).get("predictions"), "predictions"
    for name in _TABLES:
        if name in document:
            return document[name], name
    if any(name in document for name in _OF_OPENAI):
        return openai.prediction(document)
    return None, "predictions"


DIALECT: Final = Dialect(prediction=_prediction, facts=openai.facts, assemble=openai.assemble)
