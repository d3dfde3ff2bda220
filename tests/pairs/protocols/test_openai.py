"""OpenAI's answers: what is read in them, and that a stream says what the same answer says whole."""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Extract
from tests.support.answers import read, read_stream

OPENAI = Protocol.OPENAI


def test_chat() -> None:
    """Text, model, tokens and finish reason."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    found = read(OPENAI, {"model": "m-1", "choices": [choice], "usage": usage})
    assert found == Extract("Hi", "m-1", 5, 1, "stop", None, "choices[0].message.content")


def test_tool_calls() -> None:
    """Names and arguments; ids differ from call to call."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = read(OPENAI, {"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert found.prediction == [{"name": "f", "arguments": '{"a":1}'}]
    assert found.path == "choices[0].message.tool_calls"


def test_completions() -> None:
    """The text of the one choice."""
    found = read(OPENAI, {"model": "m", "choices": [{"text": "a"}]})
    assert (found.prediction, found.path) == ("a", "choices[0].text")


def test_embeddings_as_numbers_and_as_base64() -> None:
    """The official client asks for base64 by default."""
    vector = [0.5, -1.25, 3.0]
    packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
    for embedding in (vector, packed):
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        found = read(OPENAI, {"object": "list", "data": [{"embedding": embedding}], "usage": usage})
        assert (found.prediction, found.path) == (vector, "data[0].embedding")
        assert (found.input_tokens, found.output_tokens) == (2, None)


def test_a_base64_embedding_with_nan_is_not_finite() -> None:
    """JSON numbers cannot hold one; float32 can."""
    packed = base64.b64encode(struct.pack("<2f", 1.0, float("nan"))).decode()
    found = read(OPENAI, {"data": [{"embedding": packed}]})
    assert (found.prediction, found.reason) == ([1.0, None], "not_finite")


def delta(content: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a streamed chat answer."""
    return {"model": "m-1", "choices": [{"index": 0, "delta": {"content": content}, **more}]}


def test_chat_stream() -> None:
    """Assembled text; usage comes last and without choices."""
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    found = read_stream(
        delta("", role="assistant"), delta("Hel"), delta("lo"),
        delta(finish_reason="stop"), usage, "[DONE]",
    )  # fmt: skip
    assert found == Extract("Hello", "m-1", 5, 2, "stop", None, "choices[0].message.content")


def test_completion_stream() -> None:
    """Text deltas."""
    chunks = [{"choices": [{"index": 0, "text": text}]} for text in ("a", "b")]
    found = read_stream(*chunks, "[DONE]")
    assert (found.prediction, found.reason, found.path) == ("ab", None, "choices[0].text")


def test_tool_call_stream() -> None:
    """Arguments come in pieces, calls by index."""

    def call(index: int, name: str | None, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"choices": [{"delta": {"tool_calls": [{"index": index, "function": function}]}}]}

    found = read_stream(
        call(1, "g", ""),
        call(0, "f", '{"a"'),
        call(0, None, ":1}"),
        delta(finish_reason="tool_calls"),
    )
    assert found.prediction == [
        {"name": "f", "arguments": '{"a":1}'},
        {"name": "g", "arguments": ""},
    ]


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((delta("Hel"),), "stream_incomplete"),
        ((delta("Hel"), '{"choices": [{"del'), "stream_incomplete"),
        ((delta("Hel"), {"error": {"message": "overloaded"}}, "[DONE]"), "stream_error"),
        (("hello", delta("x", finish_reason="stop")), "not_json"),
    ],
)
def test_a_stream_that_did_not_end_well_cannot_be_compared(
    chunks: tuple[Any, ...], reason: str
) -> None:
    """What came of it is kept as far as it can be read."""
    found = read_stream(*chunks)
    assert found.reason == reason
    assert found.prediction == ("Hel" if chunks[0] != "hello" else "")


def test_a_path_of_ones_own_reads_the_assembled_stream() -> None:
    """In the shape of an answer that was not streamed."""
    chunks = (delta("Hi", finish_reason="length"), "[DONE]")
    assert read_stream(*chunks, expression="choices[0].finish_reason").prediction == "length"


F, G = ({"name": name, "arguments": '{"a":1}'} for name in "fg")
CUSTOM = {"type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}


@pytest.mark.parametrize(
    ("message", "prediction", "path"),
    [
        ({"content": None, "refusal": "I cannot."}, "I cannot.", "refusal"),
        ({"content": "", "refusal": "I cannot."}, "I cannot.", "refusal"),
        ({"content": "Hi", "refusal": None}, "Hi", "content"),
        ({"content": ""}, "", "content"),
        ({"content": "", "tool_calls": []}, "", "content"),
        ({"content": "", "tool_calls": [{"function": F}]}, [F], "tool_calls"),
        ({"tool_calls": [{"function": F}, CUSTOM]}, [F, CUSTOM["custom"]], "tool_calls"),
        ({"content": None, "function_call": F}, [F], "function_call"),
        ({"content": None, "audio": {"id": "a", "transcript": "Hi"}}, "Hi", "audio.transcript"),
        (
            {"content": [{"type": "text", "text": "Hi"}]},
            [{"type": "text", "text": "Hi"}],
            "content",
        ),
    ],
)
def test_what_a_message_says(message: dict[str, Any], prediction: Any, path: str) -> None:
    """Its text, that it refuses, or what it calls; each where it was found."""
    found = read(OPENAI, {"choices": [{"message": message}]})
    assert (found.prediction, found.path) == (prediction, f"choices[0].message.{path}")


def test_text_beside_calls_counts_too() -> None:
    """A candidate that says the same and calls another tool does not agree."""
    message = {"content": "Let me look.", "tool_calls": [{"function": F}]}
    found = read(OPENAI, {"choices": [{"message": message}]})
    assert found.prediction == {"content": "Let me look.", "tool_calls": [F]}
    assert found.path == "choices[0].message"


def test_of_several_choices_all_count_by_their_index() -> None:
    """Those of `n`, and those of several prompts."""
    choices = [
        {"index": 1, "text": "b", "finish_reason": "length"},
        {"index": 0, "text": "a", "finish_reason": "stop"},
    ]
    found = read(OPENAI, {"choices": choices})
    assert (found.prediction, found.path) == (["a", "b"], "choices")
    assert read(OPENAI, {"choices": [{}, {}]}).reason == "no_prediction"


def test_of_several_inputs_all_embeddings_count() -> None:
    """In the order of the inputs, whatever the order of the answer."""
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    found = read(OPENAI, {"object": "list", "data": data})
    assert (found.prediction, found.path) == ([[1.0], [2.0]], "data")


def chunk(index: int, finish: str | None = None, **of_delta: Any) -> dict[str, Any]:
    """Return a chunk of one choice."""
    return {"choices": [{"index": index, "delta": of_delta, "finish_reason": finish}]}


def pieces(text: str, size: int) -> list[str]:
    """Return `text` cut."""
    return [text[start : start + size] for start in range(0, len(text), size)]


words = st.text("ab {}", max_size=8)
calls = st.lists(st.fixed_dictionaries({"name": st.just("f"), "arguments": words}), max_size=2)
messages = st.fixed_dictionaries(
    {"content": words},
    optional={"refusal": words, "tool_calls": calls, "function_call": st.just(F)},
)


@given(
    messages=st.lists(messages, min_size=1, max_size=3),
    size=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_a_stream_says_what_the_same_answer_says_whole(
    messages: list[dict[str, Any]], size: int, order: Any
) -> None:
    """Text, refusals and calls in pieces, the choices' chunks mixed; usage in a chunk of its own."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    plain = {"model": "m", "usage": usage, "choices": [
        {"index": index, "finish_reason": "stop", "message": {
            **message,
            "tool_calls": [{"id": f"c{n}", "function": f} for n, f in enumerate(message.get("tool_calls", ()))],
        }}
        for index, message in enumerate(messages)
    ]}  # fmt: skip
    streams = [_chunks(index, message, size) for index, message in enumerate(messages)]
    mixed: list[dict[str, Any]] = []
    while any(streams):
        mixed.append(order.choice([s for s in streams if s]).pop(0))
    last: dict[str, Any] = {"model": "m", "choices": [], "usage": usage}
    assert read_stream(*mixed, last, "[DONE]") == read(OPENAI, plain)


def _chunks(index: int, message: dict[str, Any], size: int) -> list[dict[str, Any]]:
    found = [chunk(index, role="assistant", content="")]
    for name in ("content", "refusal"):
        found += [chunk(index, **{name: piece}) for piece in pieces(message.get(name, ""), size)]
    for at, call in enumerate(message.get("tool_calls", ())):
        first = {"index": at, "id": "x", "function": {"name": call["name"], "arguments": ""}}
        found.append(chunk(index, tool_calls=[first]))
        for piece in pieces(call["arguments"], size):
            found.append(chunk(index, tool_calls=[{"index": at, "function": {"arguments": piece}}]))
    if "function_call" in message:
        found += [chunk(index, function_call={"name": "f", "arguments": ""})]
        found += [
            chunk(index, function_call={"arguments": piece})
            for piece in pieces(message["function_call"]["arguments"], size)
        ]
    return [*found, chunk(index, "stop")]


def test_a_stream_of_custom_calls() -> None:
    """What tools of free text are called with."""
    call = {"index": 0, "type": "custom", "custom": {"name": "sql", "input": "SEL"}}
    more = {"index": 0, "type": "custom", "custom": {"input": "ECT 1"}}
    found = read_stream(
        chunk(0, tool_calls=[call]), chunk(0, tool_calls=[more]), chunk(0, "tool_calls")
    )
    assert found.prediction == [{"name": "sql", "input": "SELECT 1"}]


def test_a_stream_ends_when_all_its_choices_have_ended() -> None:
    """Or with `[DONE]`, which some servers leave out."""
    begun = [chunk(0, content="a"), chunk(1, content="b"), chunk(0, "stop")]
    assert read_stream(*begun).reason == "stream_incomplete"
    assert read_stream(*begun, chunk(1, "length")).reason is None
    assert read_stream(*begun, "[DONE]").prediction == ["a", "b"]


def test_members_that_are_null_in_every_chunk_are_no_news() -> None:
    """`usage` and `error` before the last, as servers with `include_usage` send them."""
    filled = chunk(0, "stop", content="Hi") | {"usage": None, "error": None}
    last: dict[str, Any] = {
        "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "error": None,
    }
    found = read_stream(filled, last, "[DONE]")
    assert (found.prediction, found.reason, found.output_tokens) == ("Hi", None, 2)


def test_nan_in_logprobs_does_no_harm() -> None:
    """Servers in Python write it; the text is what counts."""
    text = '{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop","logprobs":[NaN]}]}'
    assert read_stream(text, "[DONE]") == Extract(
        "Hi", finish_reason="stop", path="choices[0].message.content"
    )


fuzz_keys = st.sampled_from(
    ["choices", "delta", "message", "content", "text", "index", "tool_calls", "function", "custom",
     "function_call", "refusal", "audio", "usage", "output", "type", "response", "data",
     "embedding", "error", "finish_reason", "name", "arguments", "incomplete_details"]
)  # fmt: skip
fuzz_values = st.recursive(
    st.sampled_from(
        [None, 0, 2**63, -1.5, "", "a", "message", "response.completed", "error", True]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(fuzz_keys, inner, max_size=4)
    ),
    max_leaves=30,
)


@given(chunks=st.lists(fuzz_values, max_size=4))
def test_no_shape_upsets_it(chunks: list[Any]) -> None:
    """Of the members that it knows, whole or streamed: a prediction that can be written, or why not."""
    for found in (
        read_stream(*(orjson.dumps(value).decode() for value in chunks)),
        *(read(OPENAI, value) for value in chunks),
    ):
        assert (found.prediction is None) <= (found.reason is not None)
        orjson.dumps([*found])
