"""Any JSON: the whole document is the prediction; a stream of events is the list of their data."""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.documents import NOT_JSON
from proxy.pairs.protocols import stream
from proxy.pairs.protocols.answer import Dialect


def _prediction(document: Any) -> tuple[Any, str]:
    return document, ""


def assemble(events: list[bytes]) -> tuple[Any, str | None]:
    """Return the list of the events' data without the `[DONE]` at the end, or why it is none."""
    chunks = stream.chunks_of(events)
    return (chunks.found, None) if chunks.reason is None else (None, NOT_JSON)


DIALECT: Final = Dialect(prediction=_prediction, assemble=assemble)
