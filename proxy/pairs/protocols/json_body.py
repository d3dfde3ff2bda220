"""Any JSON: the whole document is the prediction; a stream of events is the list of their data."""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.pairs import sse
from proxy.pairs.documents import NOT_JSON
from proxy.pairs.protocols.answer import Dialect


def _prediction(document: Any) -> tuple[Any, str]:
    return document, ""


def _assemble(events: list[bytes]) -> tuple[Any, str | None]:
    try:
        return [orjson.loads(data) for data in events if data.strip() != sse.DONE], None
    except orjson.JSONDecodeError:
        return None, NOT_JSON


DIALECT: Final = Dialect(prediction=_prediction, assemble=_assemble)
