"""OpenAI's chat completions and completions: what the choices say, streamed or not.

A choice says its text, or that it refuses, or which tools it calls; with text and calls both, both
count. `logprobs`, annotations and a server's own members (`reasoning_content`) are not what it says.
One choice is the prediction itself; of several (`n`, or several prompts) it is the list.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.pairs.protocols import stream
from proxy.pairs.protocols.answer import object_of, objects_of

CONTENT: Final = "choices[0].message.content"
_CHOICES: Final = "choices"
_FIRST: Final = "choices[0]."
#: Members of a streamed delta that are read, besides `content`.
_OTHERS: Final = frozenset({"refusal", "audio", "tool_calls", "function_call"})


def prediction(choices: list[Any]) -> tuple[Any, str]:
    """Return what the choices say, and where that was found."""
    if len(choices) == 1:
        said, path = _said(object_of(choices[0]))
        return said, _FIRST + path
    all_said = [_said(choice)[0] for choice in in_order(choices)]
    return (all_said if any(said is not None for said in all_said) else None), _CHOICES


def in_order(items: Any) -> list[dict[str, Any]]:
    """Return the objects of an array by their `index`, which servers need not keep to."""
    return sorted(objects_of(items), key=_index)


def _index(item: dict[str, Any]) -> int:
    index = item.get("index")
    return index if type(index) is int else 0


def _said(choice: dict[str, Any]) -> tuple[Any, str]:
    if "text" in choice:
        return choice["text"], "text"
    message = object_of(choice.get("message"))
    content = message.get("content")
    calls, calls_name = _calls(message)
    if calls and content:
        return {"content": content, "tool_calls": calls}, "message"
    if calls:
        return calls, calls_name
    if not content:
        # Servers give content as null or as empty beside these.
        if message.get("refusal"):
            return message["refusal"], "message.refusal"
        transcript = object_of(message.get("audio")).get("transcript")
        if transcript:
            return transcript, "message.audio.transcript"
    return content, "message.content"


def _calls(message: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Return name and arguments of each call, since ids are random; and where they were found."""
    if "tool_calls" not in message and "function_call" not in message:
        return [], ""
    calls = objects_of(message.get("tool_calls"))
    if calls:
        return [_call(call) for call in calls], "message.tool_calls"
    function = object_of(message.get("function_call"))  # what came before tool_calls
    return ([_named(function, "arguments")] if function else []), "message.function_call"


def _call(call: dict[str, Any]) -> dict[str, Any]:
    custom = object_of(call.get("custom"))
    if custom:
        return _named(custom, "input")
    return _named(object_of(call.get("function")), "arguments")


def _named(function: dict[str, Any], words: str) -> dict[str, Any]:
    return {"name": function.get("name"), words: function.get(words)}


def assemble(chunks: stream.Chunks) -> tuple[Any, str | None]:
    """Return the answer that a stream amounts to, in the shape of one that was not streamed."""
    model = usage = error = None
    choices: dict[int, _Choice] = {}
    for chunk in objects_of(chunks.found):
        error = chunk.get("error") or error
        model = chunk.get("model") or model
        # The last wins: with `include_usage` it comes after the choices, and some servers count on
        # in every chunk.
        usage = chunk.get("usage") or usage
        for choice in objects_of(chunk.get("choices")):
            choices.setdefault(_index(choice), _Choice()).add(choice)
    if not choices:
        choices[0] = _Choice()
    document = {
        "model": model,
        "choices": [choices[index].document(index) for index in sorted(choices)],
        "usage": usage,
    }
    if error or chunks.reason is not None:
        return document, stream.FAILED if error else chunks.reason
    is_complete = chunks.is_done or all(choice.finish_reason for choice in choices.values())
    return document, None if is_complete else stream.INCOMPLETE


class _Choice:
    """One choice's pieces so far; unknown shapes add nothing."""

    def __init__(self) -> None:
        self.finish_reason: Any = None
        self._texts: list[str] = []
        self._contents: list[str] = []
        self._refusals: list[str] = []
        self._transcripts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._function: _Call | None = None

    def add(self, choice: dict[str, Any]) -> None:
        """Take the choice of one chunk."""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        _append(self._texts, choice.get("text"))
        delta = object_of(choice.get("delta"))
        for name, piece in delta.items():
            # Most chunks have one member, and most of those are this one.
            if name == "content":
                _append(self._contents, piece)
            elif name in _OTHERS and piece:
                self._add_other(name, piece)

    def _add_other(self, name: str, piece: Any) -> None:
        if name == "refusal":
            _append(self._refusals, piece)
        elif name == "audio":
            _append(self._transcripts, object_of(piece).get("transcript"))
        elif name == "tool_calls":
            for call in objects_of(piece):
                self._calls.setdefault(_index(call), _Call()).add(call)
        elif isinstance(piece, dict):
            self._function = self._function or _Call()
            self._function.add({"function": piece})

    def document(self, index: int) -> dict[str, Any]:
        """Return the choice as it would have been without a stream."""
        choice: dict[str, Any] = {"index": index, "finish_reason": self.finish_reason}
        if self._texts:
            return choice | {"text": "".join(self._texts)}
        calls = [self._calls[at].document() for at in sorted(self._calls)]
        has_others = calls or self._function or self._refusals or self._transcripts
        message: dict[str, Any] = {"content": "".join(self._contents)}
        if has_others and not message["content"]:
            message["content"] = None
        if self._refusals:
            message["refusal"] = "".join(self._refusals)
        if self._transcripts:
            message["audio"] = {"transcript": "".join(self._transcripts)}
        if calls:
            message["tool_calls"] = calls
        if self._function is not None:
            message["function_call"] = self._function.document()["function"]
        return choice | {"message": message}


class _Call:
    """One call's pieces so far: its name comes once, what it is called with bit by bit."""

    def __init__(self) -> None:
        self._kind, self._words = "function", "arguments"
        self._name: Any = None
        self._pieces: list[str] = []

    def add(self, call: dict[str, Any]) -> None:
        """Take the call of one chunk."""
        if "custom" in call:
            self._kind, self._words = "custom", "input"
        piece = object_of(call.get(self._kind))
        self._name = piece.get("name") or self._name
        _append(self._pieces, piece.get(self._words))

    def document(self) -> dict[str, Any]:
        """Return the call as it would have been without a stream."""
        return {self._kind: {"name": self._name, self._words: "".join(self._pieces)}}


def _append(pieces: list[str], piece: Any) -> None:
    if isinstance(piece, str):
        pieces.append(piece)
