"""OpenAI's Responses API (`/v1/responses`): what its output says, streamed or not.

The output is a list of items. Messages (their text, or that they refuse) and calls of tools are what
the model says to its user; reasoning, and searches that the server makes itself, are not.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols import stream
from proxy.pairs.protocols.answer import object_of, objects_of

_OUTPUT: Final = "output"
#: Types of the items that are calls, and where such an item says with what it calls.
_CALL_WORDS: Final = {
    "function_call": "arguments", "mcp_call": "arguments", "custom_tool_call": "input",
}  # fmt: skip
_PART_WORDS: Final = {"output_text": "text", "refusal": "refusal"}
_PART_OF_DELTA: Final = {
    "response.output_text.delta": "output_text", "response.refusal.delta": "refusal",
}  # fmt: skip

#: What ends a stream, with the whole response in it.
_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_FAILURES: Final = frozenset({"response.failed", "response.cancelled", "error"})


def prediction(document: dict[str, Any]) -> tuple[Any, str]:
    """Return what the output says, and where that was found."""
    texts: list[tuple[str, str]] = []
    calls: list[dict[str, Any]] = []
    output = document.get(_OUTPUT)
    for number, item in enumerate(output if isinstance(output, list) else []):
        kind = object_of(item).get("type")
        if kind == "message":
            texts += _texts(item, f"{_OUTPUT}[{number}]")
        elif isinstance(kind, str) and kind in _CALL_WORDS:
            words = _CALL_WORDS[kind]
            calls.append({"name": item.get("name"), words: item.get(words)})
    text = "".join(text for text, _ in texts)
    if calls:
        return ({"content": text, "tool_calls": calls} if text else calls), _OUTPUT
    return (text if texts else None), texts[0][1] if len(texts) == 1 else _OUTPUT


def _texts(message: dict[str, Any], path: str) -> list[tuple[str, str]]:
    """Return the texts of a message's parts with their paths."""
    found = []
    content = message.get("content")
    for number, part in enumerate(content if isinstance(content, list) else []):
        kind = object_of(part).get("type")
        words = _PART_WORDS.get(kind) if isinstance(kind, str) else None
        if words is not None and isinstance(part.get(words), str):
            found.append((part[words], f"{path}.content[{number}].{words}"))
    return found


def finish_reason(document: dict[str, Any]) -> Any:
    """Return why the model stopped: what cut the response short, else its status."""
    return object_of(document.get("incomplete_details")).get("reason") or document.get("status")


def is_stream(chunks: stream.Chunks) -> bool:
    """Return whether a stream's events are typed as those of a response."""
    first = object_of(chunks.found[0]) if chunks.found else {}
    kind = first.get("type")
    return isinstance(kind, str) and (kind.startswith("response.") or kind == "error")


def assemble(chunks: stream.Chunks) -> tuple[Any, str | None]:
    """Return the response that a stream ends with, or what came of it before it was cut."""
    begun: dict[str, Any] = {}
    parts: dict[str, list[str]] = {}
    for chunk in objects_of(chunks.found):
        kind = chunk.get("type")
        response = object_of(chunk.get("response"))
        if kind in _ENDS:
            return response, None
        if kind in _FAILURES:
            return _partial(response or begun, parts), stream.FAILED
        begun = response or begun
        part, delta = _PART_OF_DELTA.get(str(kind)), chunk.get("delta")
        if part is not None and isinstance(delta, str):
            parts.setdefault(part, []).append(delta)
    return _partial(begun, parts), chunks.reason or stream.INCOMPLETE


def _partial(response: dict[str, Any], parts: dict[str, list[str]]) -> dict[str, Any]:
    """Return a response that did not end well with the text that came."""
    content = [{"type": kind, _PART_WORDS[kind]: "".join(pieces)} for kind, pieces in parts.items()]
    output = [{"type": "message", "content": content}] if content else []
    return response | {_OUTPUT: response.get(_OUTPUT) or output}
