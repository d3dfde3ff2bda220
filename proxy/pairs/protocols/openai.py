"""OpenAI's interface: chat completions, completions, responses and embeddings.

Told apart by the answers themselves, streamed or not. `system_fingerprint` is not part of the model
version: hosted services change it from answer to answer, and every change of version starts the
evidence afresh.
"""

from __future__ import annotations

import binascii
import struct
from typing import Any, Final

import pybase64

from proxy.pairs.protocols import openai_chat, openai_responses, stream
from proxy.pairs.protocols.answer import (
    NO_FACTS,
    Dialect,
    Facts,
    count_or_none,
    object_of,
    text_or_none,
)

_EMBEDDING: Final = "data[0].embedding"
_EMBEDDINGS: Final = "data"
_FLOAT_BYTES: Final = 4


def facts(document: Any) -> Facts:
    """Return model, tokens and finish reason (of several choices the first's)."""
    if not isinstance(document, dict):
        return NO_FACTS
    usage = object_of(document.get("usage"))
    choices = document.get("choices")
    if isinstance(choices, list) and choices:
        reason = object_of(choices[0]).get("finish_reason")
    elif "output" in document:
        reason = openai_responses.finish_reason(document)
    else:
        reason = None
    # The Responses API has other names for the same.
    before, after = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if before is None:
        before, after = usage.get("input_tokens"), usage.get("output_tokens", after)
    return (
        text_or_none(document.get("model")),
        count_or_none(before),
        count_or_none(after),
        text_or_none(reason),
    )


def prediction(document: Any) -> tuple[Any, str]:
    """Return what the model says or the vectors that it gives, and where that was found."""
    if not isinstance(document, dict):
        return None, openai_chat.CONTENT
    choices = document.get("choices")
    if isinstance(choices, list) and choices:
        return openai_chat.prediction(choices)
    if "data" in document:
        return _embeddings(document["data"])
    if "output" in document:
        return openai_responses.prediction(document)
    return None, openai_chat.CONTENT


def assemble(events: list[bytes]) -> tuple[Any, str | None]:
    """Return the answer that a stream amounts to, in the shape of one that was not streamed."""
    chunks = stream.chunks_of(events)
    if openai_responses.is_stream(chunks):
        return openai_responses.assemble(chunks)
    return openai_chat.assemble(chunks)


def _embeddings(data: Any) -> tuple[Any, str]:
    """Return the vector of one input, the vectors of several."""
    vectors = [_vector(item.get("embedding")) for item in openai_chat.in_order(data)]
    if len(vectors) == 1:
        return vectors[0], _EMBEDDING
    return (vectors if any(vector is not None for vector in vectors) else None), _EMBEDDINGS


def _vector(value: Any) -> Any:
    """Return a vector; the official client asks for base64 of little-endian float32 by default."""
    if not isinstance(value, str):
        return value
    try:
        data = pybase64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) % _FLOAT_BYTES:
        return None
    return list(struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data))


# Embeddings in base64 may hold NaN, which JSON numbers cannot.
DIALECT: Final = Dialect(prediction=prediction, facts=facts, assemble=assemble, is_finite=False)
