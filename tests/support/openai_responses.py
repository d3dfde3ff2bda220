"""The Responses API's words for an answer of the text server: the whole, and its typed events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.support.text_model import tokenize

_MESSAGE_ID = "msg_1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answers: `texts` join to it, `reason` is `stop` or `length`."""

    model: str
    prompt: str
    texts: tuple[str, ...]
    reason: str

    def document(self) -> dict[str, Any]:
        """Return the whole response."""
        is_cut = self.reason == "length"
        before, after = len(tokenize(self.prompt)), len(self.texts)
        return self._head() | {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [self._item("incomplete" if is_cut else "completed", [self._part()])],
            "usage": {
                "input_tokens": before,
                "output_tokens": after,
                "total_tokens": before + after,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }

    def events(self) -> Iterator[bytes]:
        """Yield the events of a stream."""
        for number, event in enumerate(self._events()):
            data = orjson.dumps({**event, "sequence_number": number})
            yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data)

    def _events(self) -> Iterator[dict[str, Any]]:
        begun = self._head() | {"status": "in_progress", "output": [], "usage": None}
        place = {"item_id": _MESSAGE_ID, "output_index": 0, "content_index": 0}
        empty = {"type": "output_text", "text": "", "annotations": []}
        whole = self.document()
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        item = self._item("in_progress", [])
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.content_part.added", **place, "part": empty}
        for text in self.texts:
            yield {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}
        text = "".join(self.texts)
        yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": self._part()}
        item = whole["output"][0]
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        yield {"type": f"response.{whole['status']}", "response": whole}

    def _head(self) -> dict[str, Any]:
        return {
            "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": self.model,
            "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0,
        }  # fmt: skip

    def _part(self) -> dict[str, Any]:
        return {"type": "output_text", "text": "".join(self.texts), "annotations": []}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": _MESSAGE_ID, "type": "message", "role": "assistant", "status": status,
            "content": content,
        }  # fmt: skip
