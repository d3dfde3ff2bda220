"""A stream of events as the JSON chunks in it, and how a stream may have ended badly."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from proxy.pairs import documents, sse

#: Reasons, as they end a `not_comparable_reason`: it ended before its answer did; it told of an
#: error, which servers do inside an answer of 200, for its head has long been sent.
INCOMPLETE: Final = "stream_incomplete"
FAILED: Final = "stream_error"
#: With these a stream has not reached its end, even where HTTP says that its bytes have.
ENDED_EARLY: Final = frozenset({INCOMPLETE, FAILED})


class Chunks(NamedTuple):
    """What a stream holds.

    Attributes:
        found: the JSON value of each event, in order, up to one that is not JSON.
        is_done: `[DONE]` came.
        reason: why `found` is not all of it: the last event was cut, or one before is not JSON.
    """

    found: list[Any]
    is_done: bool
    reason: str | None


def chunks_of(events: list[bytes]) -> Chunks:
    """Return the chunks in the data of events."""
    found: list[Any] = []
    is_done = False
    for number, data in enumerate(events, 1):
        if data.strip() == sse.DONE:
            is_done = True
            continue
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = documents.parse_leniently(data)
        if chunk is documents.NO_DOCUMENT:
            is_last = number == len(events)
            return Chunks(found, is_done, INCOMPLETE if is_last else documents.NOT_JSON)
        found.append(chunk)
    return Chunks(found, is_done, None)
