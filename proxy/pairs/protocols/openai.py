"""OpenAI's chat completions, completions and embeddings, streamed or not.

The prediction is the first choice's text (or its tool calls when there is no text), or the first
embedding. `system_fingerprint` is not part of the model version: hosted services change it from
answer to answer, and every change of version starts the evidence afresh.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any, Final

import orjson

from proxy.pairs import sse
from proxy.pairs.documents import NOT_JSON
from proxy.pairs.protocols.answer import NO_FACTS, Dialect, Facts, count_or_none, text_or_none

#: Reasons, as they end a `not_comparable_reason`.
INCOMPLETE: Final = "stream_incomplete"
FAILED: Final = "stream_error"

_CONTENT = "choices[0].message.content"
_TOOL_CALLS = "choices[0].message.tool_calls"
_TEXT = "choices[0].text"
_EMBEDDING = "data[0].embedding"
_FLOAT_BYTES = 4


def _facts(document: Any) -> Facts:
    if not isinstance(document, dict):
        return NO_FACTS
    usage = _object(document.get("usage"))
    return (
        text_or_none(document.get("model")),
        count_or_none(usage.get("prompt_tokens")),
        count_or_none(usage.get("completion_tokens")),
        text_or_none(_first(document.get("choices")).get("finish_reason")),
    )


def _prediction(document: Any) -> tuple[Any, str]:
    if not isinstance(document, dict):
        return None, _CONTENT
    choice = _first(document.get("choices"))
    if "text" in choice:
        return choice["text"], _TEXT
    if choice:
        message = _object(choice.get("message"))
        if message.get("content") is None and message.get("tool_calls"):
            return _tool_calls(message["tool_calls"]), _TOOL_CALLS
        return message.get("content"), _CONTENT
    if "data" in document:
        return _embedding(_first(document["data"]).get("embedding")), _EMBEDDING
    return None, _CONTENT


def _tool_calls(calls: Any) -> Any:
    """Return name and arguments of each call; their ids are random."""
    if not isinstance(calls, list):
        return None
    functions = [_object(_object(call).get("function")) for call in calls]
    return [{"name": f.get("name"), "arguments": f.get("arguments")} for f in functions]


def _embedding(value: Any) -> Any:
    """Return a vector; the official client asks for base64 of little-endian float32 by default."""
    if not isinstance(value, str):
        return value
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) % _FLOAT_BYTES:
        return None
    return list(struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data))


def _assemble(events: list[bytes]) -> tuple[Any, str | None]:
    """Return the answer that a stream amounts to, in the shape of one that was not streamed."""
    stream = _Stream()
    for data in events:
        if data.strip() == sse.DONE:
            stream.is_done = True
            continue
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            # A chunk in the middle that is broken is no OpenAI stream; the last one was cut.
            return stream.document(), INCOMPLETE if data is events[-1] else NOT_JSON
        stream.add(_object(chunk))
    if stream.has_error:
        return stream.document(), FAILED
    is_complete = stream.is_done or stream.finish_reason is not None
    return stream.document(), None if is_complete else INCOMPLETE


class _Stream:
    """A stream's chunks so far; only the first choice."""

    def __init__(self) -> None:
        self.is_done = False
        self.has_error = False
        self.finish_reason: Any = None
        self._model: Any = None
        self._usage: Any = None
        self._contents: list[str] = []
        self._texts: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Take one chunk; unknown shapes add nothing."""
        self.has_error = self.has_error or "error" in chunk
        self._model = chunk.get("model") or self._model
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                self._add_choice(choice)

    def _add_choice(self, choice: dict[str, Any]) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if isinstance(choice.get("text"), str):
            self._texts.append(choice["text"])
        delta = _object(choice.get("delta"))
        if isinstance(delta.get("content"), str):
            self._contents.append(delta["content"])
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._add_call(call)

    def _add_call(self, call: dict[str, Any]) -> None:
        index = call.get("index", 0)
        if type(index) is not int:
            return
        function = _object(call.get("function"))
        known = self._calls.setdefault(index, {"name": None, "arguments": ""})
        known["name"] = function.get("name") or known["name"]
        if isinstance(function.get("arguments"), str):
            known["arguments"] += function["arguments"]

    def document(self) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason}
        if self._texts:
            choice["text"] = "".join(self._texts)
        else:
            is_text = bool(self._contents) or not self._calls
            choice["message"] = {"content": "".join(self._contents) if is_text else None}
            if self._calls:
                calls = [{"function": self._calls[index]} for index in sorted(self._calls)]
                choice["message"]["tool_calls"] = calls
        return {"model": self._model, "choices": [choice], "usage": self._usage}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> dict[str, Any]:
    return _object(value[0]) if isinstance(value, list) and value else {}


# Embeddings in base64 may hold NaN, which JSON numbers cannot.
DIALECT: Final = Dialect(prediction=_prediction, facts=_facts, assemble=_assemble, is_finite=False)
