"""OpenAI's Responses API: what its output says, whole and as typed events."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Extract
from tests.support.answers import read, read_stream

OPENAI = Protocol.OPENAI
F = {"name": "f", "arguments": '{"a":1}'}


def message_item(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a response's output."""
    return {"type": "message", "role": "assistant", "status": "completed", "content": [*parts]}


def text_part(text: str) -> dict[str, Any]:
    """Return a text of a message."""
    return {"type": "output_text", "text": text, "annotations": []}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a response as the server answers it."""
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    return {
        "id": "resp_1", "object": "response", "model": "m-1", "status": "completed", "error": None,
        "incomplete_details": None, "output": [*output], "usage": usage, **more,
    }  # fmt: skip


THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
CALL = {"type": "function_call", "call_id": "c1", **F}


@pytest.mark.parametrize(
    ("output", "prediction", "path"),
    [
        ([THOUGHT, message_item(text_part("Hi"))], "Hi", "output[1].content[0].text"),
        ([message_item(text_part("a"), text_part("b"))], "ab", "output"),
        ([message_item({"type": "refusal", "refusal": "No."})], "No.", "output[0].content[0].refusal"),
        ([THOUGHT, CALL], [F], "output"),
        (
            [message_item(text_part("Look.")), CALL],
            {"content": "Look.", "tool_calls": [F]},
            "output",
        ),
        ([{"type": "custom_tool_call", "name": "sql", "input": "x"}], [{"name": "sql", "input": "x"}], "output"),
        ([message_item(text_part(""))], "", "output[0].content[0].text"),
    ],
)  # fmt: skip
def test_what_a_response_says(output: list[Any], prediction: Any, path: str) -> None:
    """The text of its messages and its calls; never what the model only thought."""
    expected = Extract(prediction, "m-1", 5, 2, "completed", None, path)
    assert read(OPENAI, response(*output)) == expected
    events = (
        {"type": "response.created", "response": response(status="in_progress", usage=None)},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "?"},
        {"type": "response.completed", "response": response(*output)},
    )
    assert read_stream(*events) == expected


@pytest.mark.parametrize(
    "document",
    [
        {"output": []}, {"output": None}, {"output": "x"}, {"output": [1, {}, {"type": []}, THOUGHT]},
        {"output": [{"type": "message", "content": "x"}]},
        {"output": [{"type": "message", "content": [1, {"type": {}}, {"type": "output_text"}]}]},
    ],
)  # fmt: skip
def test_a_response_without_words_has_no_prediction(document: dict[str, Any]) -> None:
    """Whatever its shape."""
    assert read(OPENAI, document).reason == "no_prediction"


def test_a_response_that_was_cut_short_says_by_what() -> None:
    """It is whole as an answer, and comparable."""
    cut = response(
        message_item(text_part("Hel")),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
    )
    found = read_stream({"type": "response.incomplete", "response": cut})
    assert (found.prediction, found.finish_reason, found.reason) == (
        "Hel",
        "max_output_tokens",
        None,
    )
    assert found == read(OPENAI, cut)


BEGUN = (
    {"type": "response.created", "response": response(status="in_progress", usage=None)},
    {"type": "response.output_text.delta", "delta": "Hel"},
    {"type": "response.output_text.delta", "delta": "lo"},
)
FAILED = response(status="failed", error={"code": "server_error", "message": "overloaded"})


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ((), "stream_incomplete"),
        (('{"type":"response.comp',), "stream_incomplete"),
        (({"type": "error", "message": "overloaded", "code": None},), "stream_error"),
        (({"type": "response.failed", "response": FAILED},), "stream_error"),
    ],
)
def test_a_stream_of_a_response_that_did_not_end_well(last: tuple[Any, ...], reason: str) -> None:
    """The text that came is kept, and why it cannot be compared."""
    found = read_stream(*BEGUN, *last)
    assert (found.prediction, found.model_version, found.reason) == ("Hello", "m-1", reason)


def test_a_failed_response_tells_of_an_error() -> None:
    """With a status of 200, as the interface does it."""
    found = read(OPENAI, FAILED)
    assert (found.prediction, found.finish_reason, found.reason) == (
        None,
        "failed",
        "answered_error",
    )
