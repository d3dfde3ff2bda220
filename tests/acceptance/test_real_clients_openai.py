"""OpenAI's own library through a whole instance: right answers, and right records of them.

Against a text model; another order of the same model is the candidate, mirrored at 100%.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import orjson
import pytest

from proxy.telemetry import monotonic_s
from tests.support.instance import Instance, running
from tests.support.openai_server import FAULT_TOKENS, Fault, openai_server
from tests.support.shadowed import records_of, shadow_config

pytestmark = pytest.mark.slow

#: Between streamed tokens; a proxy that collects an answer before it passes it on is found out.
TOKEN_MS = 40.0
#: Streams that may be spoilt by a machine that stands still, before one is not.
ATTEMPTS = 5
PROMPTS = ("Return the", "If the", "A new")
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@contextmanager
def _text_proxy(folder: Path, token_ms: float) -> Iterator[tuple[Instance, str, str]]:
    """Serve two text models and a proxy before them; give it and the primary's and its base URL."""
    for name in ("one", "two", "proxy"):
        (folder / name).mkdir()
    with (
        openai_server(folder / "one", name="ngram-1", order=1, token_ms=token_ms) as one,
        openai_server(folder / "two", name="ngram-2", order=2, token_ms=token_ms) as two,
    ):
        route = {"name": "chat", "protocol": "openai", "compare": {"comparator": "exact"}}
        with running(shadow_config(route, one.url, two.url), folder / "proxy") as instance:
            yield instance, f"{one.url}/v1", f"{instance.base_url}/v1"


@pytest.fixture(scope="module")
def texts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Instance, openai.OpenAI, openai.OpenAI]]:
    """Give the instance, a client of the primary itself and one of the proxy."""
    with (
        _text_proxy(tmp_path_factory.mktemp("texts"), TOKEN_MS) as (instance, direct, proxied),
        openai.OpenAI(base_url=direct, api_key="any", max_retries=0) as first,
        openai.OpenAI(base_url=proxied, api_key="any", max_retries=0) as second,
    ):
        yield instance, first, second


def _ask(prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "any", "messages": messages, "max_tokens": 12, "seed": 1, **more}


def _headers(name: str) -> dict[str, Any]:
    return {"extra_headers": {"x-request-id": name}}


def test_openai_chat_is_answered_and_recorded(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """Text, reason, usage and model, as the primary gives them; the record has both models'."""
    instance, direct, proxied = texts
    for number, prompt in enumerate(PROMPTS):
        expected = direct.chat.completions.create(**_ask(prompt))
        answer = proxied.chat.completions.create(**_ask(prompt), **_headers(f"chat{number}"))
        assert answer.model_dump() == expected.model_dump()
        record = records_of(instance, "chat", number + 1)[number]
        assert expected.usage is not None
        assert record["primary_prediction"] == expected.choices[0].message.content
        assert record["primary_model_version"] == "ngram-1"
        assert record["candidate_model_version"] == "ngram-2"
        assert record["primary_input_tokens"] == expected.usage.prompt_tokens
        assert record["primary_output_tokens"] == expected.usage.completion_tokens
        assert record["primary_finish_reason"] == expected.choices[0].finish_reason
        assert record["candidate_finish_reason"] in {"stop", "length"}
        assert record["comparable"] is True
        same = record["candidate_prediction"] == record["primary_prediction"]
        assert record["equal"] is same


@dataclass(frozen=True)
class _Stream:
    """What a client saw of a stream, and when; and its record."""

    text: str
    tokens: int
    times_s: list[float]
    record: dict[str, Any]

    @property
    def is_apart(self) -> bool:
        """Whether client and recorder saw its tokens one by one; nobody waited for several at once."""
        least_s = 0.8 * self.tokens * TOKEN_MS / 1000
        spread_s = self.times_s[-1] - self.times_s[0]
        recorded_ms = self.record["primary_latency_ms"] - self.record["primary_ttfb_ms"]
        is_even = max(np.diff(self.times_s)) < spread_s / 2
        return bool(is_even and min(spread_s, recorded_ms / 1000) >= least_s)


def _streamed(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI], ask: dict[str, Any], name: str
) -> _Stream:
    """Ask for a stream through the proxy."""
    instance, _, proxied = texts
    times_s, pieces, used = [], [], None
    for chunk in proxied.chat.completions.create(**ask, **_headers(name)):
        times_s.append(monotonic_s())
        used = chunk.usage or used
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert used is not None
    (record,) = records_of(instance, name, 1)
    return _Stream("".join(pieces), used.completion_tokens, times_s, record)


def test_openai_streams_chunk_by_chunk(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The first token is there long before the last; the record holds the whole text of both.

    Whoever stands still for a while sees several at once. A proxy that collects never shows them apart.
    """
    direct = texts[1]
    ask = _ask(PROMPTS[0], stream=True, stream_options={"include_usage": True})
    expected = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in direct.chat.completions.create(**ask)
        if chunk.choices
    )
    found = _streamed(texts, ask, "stream0")
    for attempt in range(1, ATTEMPTS):
        if found.is_apart:
            break
        found = _streamed(texts, ask, f"stream{attempt}")
    assert found.is_apart, (found.times_s, found.record)
    tokens, record = found.tokens, found.record
    assert tokens >= 4
    assert found.text == record["primary_prediction"] == expected
    assert record["primary_output_tokens"] == tokens
    assert record["candidate_output_tokens"] >= 1
    assert record["primary_finish_reason"] in {"stop", "length"}
    assert record["primary_content_type"].startswith("text/event-stream")
    assert record["primary_stream_complete"] is True
    assert record["primary_chunks"] >= tokens
    assert record["comparable"] is True
    assert record["equal"] is (record["candidate_prediction"] == expected)


def test_a_stream_that_its_reader_leaves_is_recorded_as_cancelled(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The primary's leg ends with its client, and so does the candidate's if it is still streaming."""
    instance, _, proxied = texts
    ask = _ask(PROMPTS[1], stream=True, max_tokens=200, seed=4)
    stream = proxied.chat.completions.create(**ask, **_headers("left"))
    next(iter(stream))
    stream.close()
    (record,) = records_of(instance, "left", 1)
    assert record["primary_status"] == "cancelled"
    assert record["candidate_status"] in {"ok", "cancelled"}
    assert record["comparable"] is False


def test_openai_completions_are_answered_and_recorded(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The older interface, whole and streamed, gives one and the same text."""
    instance, direct, proxied = texts
    ask: dict[str, Any] = {"model": "any", "prompt": PROMPTS[2], "max_tokens": 8, "seed": 2}
    expected = direct.completions.create(**ask)
    answer = proxied.completions.create(**ask, **_headers("comp0"))
    assert answer.model_dump() == expected.model_dump()
    stream = proxied.completions.create(**ask, stream=True, **_headers("comp1"))
    assert "".join(chunk.choices[0].text for chunk in stream) == expected.choices[0].text
    for record in records_of(instance, "comp", 2):
        assert record["primary_prediction"] == expected.choices[0].text
        assert record["primary_finish_reason"] == expected.choices[0].finish_reason
        assert record["comparable"] is True


def test_openai_embeddings_are_answered_and_compared(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """Vectors, which the library asks for in base64: equal, since both embed alike."""
    instance, direct, proxied = texts
    expected = direct.embeddings.create(model="any", input="the quick brown fox")
    answer = proxied.embeddings.create(
        model="any", input="the quick brown fox", **_headers("embed")
    )
    assert answer.data[0].embedding == expected.data[0].embedding
    several = proxied.embeddings.create(
        model="any", input=["one", "two words"], **_headers("embeds")
    )
    record, of_several = records_of(instance, "embed", 2)
    vectors = [item.embedding for item in several.data]
    assert np.allclose(of_several["primary_prediction"], vectors, atol=1e-7)
    assert of_several["equal"] is True
    assert np.allclose(record["primary_prediction"], expected.data[0].embedding, atol=1e-7)
    assert record["primary_input_tokens"] == 4
    assert (record["comparable"], record["equal"]) == (True, True)


def test_openai_errors_reach_the_client_as_they_are(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The library raises what it raises without a proxy; the record says why nothing is compared."""
    instance, _, proxied = texts
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        proxied.chat.completions.create(**_ask("x", max_tokens=100_000), **_headers("error"))
    (record,) = records_of(instance, "error", 1)
    assert (record["primary_status"], record["primary_http_status"]) == ("http_error", 400)
    assert record["comparable"] is False


@pytest.mark.parametrize("choices", [1, 2])
def test_openai_tools_are_called_whole_and_streamed(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI], choices: int
) -> None:
    """The record holds names and arguments; random ids do not make models differ from themselves."""
    instance, _, proxied = texts
    ask = _ask(PROMPTS[0], tools=TOOLS, n=choices)
    whole = proxied.chat.completions.create(**ask, **_headers(f"tool{choices}-whole"))
    arguments = [""] * choices
    options = {"include_usage": True}
    streamed_ask = {**ask, "stream": True, "stream_options": options}
    for chunk in proxied.chat.completions.create(
        **streamed_ask, **_headers(f"tool{choices}-stream")
    ):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                assert call.function is not None
                arguments[choice.index] += call.function.arguments or ""
    expected = []
    for choice, streamed in zip(whole.choices, arguments, strict=True):
        assert choice.message.tool_calls is not None
        (called,) = choice.message.tool_calls
        assert called.type == "function"
        assert called.function.arguments == streamed
        assert orjson.loads(streamed)["words"]
        expected.append([{"name": "look_up", "arguments": streamed}])
    for record in records_of(instance, f"tool{choices}", 2):
        assert record["primary_prediction"] == (expected if choices > 1 else expected[0])
        assert record["primary_finish_reason"] == "tool_calls"
        assert whole.usage is not None
        assert record["primary_output_tokens"] == whole.usage.completion_tokens
        assert record["comparable"] is True


def test_openai_responses_are_answered_and_recorded(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The newer interface: whole, and as typed events; one text, its tokens and how it ended."""
    instance, direct, proxied = texts
    ask: dict[str, Any] = {"model": "any", "input": PROMPTS[1], "max_output_tokens": 16}
    expected = direct.responses.create(**ask)
    answer = proxied.responses.create(**ask, **_headers("resp0"))
    assert answer.model_dump() == expected.model_dump()
    pieces = [
        event.delta
        for event in proxied.responses.create(**ask, stream=True, **_headers("resp1"))
        if event.type == "response.output_text.delta"
    ]
    assert "".join(pieces) == expected.output_text
    assert expected.usage is not None
    for record in records_of(instance, "resp", 2):
        assert record["primary_prediction"] == expected.output_text
        assert record["primary_input_tokens"] == expected.usage.input_tokens
        assert record["primary_output_tokens"] == expected.usage.output_tokens
        cut = expected.incomplete_details
        assert record["primary_finish_reason"] == (cut.reason if cut else "completed")
        assert record["primary_stream_complete"] is True
        assert record["comparable"] is True


# Streams that break.


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Run a proxy before a healthy primary and two candidates that break in the middle.

    With `x-swapped: yes` one of these is the primary, and the healthy one its candidate.
    """
    folder = tmp_path_factory.mktemp("breaking")
    with (
        openai_server(folder, name="whole", order=1) as whole,
        openai_server(folder, name="cut", order=2, fault=Fault.CUT) as cut,
        openai_server(folder, name="error", order=2, fault=Fault.ERROR) as error,
    ):
        urls = {"whole": whole.url, "cut": cut.url, "error": error.url}
        common = {"protocol": "openai", "split_by": "request_id"}
        routes = [
            {
                "name": "swapped",
                "match": {"headers": {"x-swapped": "yes"}},
                "primary": "error",
                "candidates": [{"name": "whole", "backend": "whole", "mirror": "100%"}],
                **common,
            },
            {
                "name": "chat",
                "primary": "whole",
                "candidates": [
                    {"name": name, "backend": name, "mirror": "100%"} for name in ("cut", "error")
                ],
                **common,
            },
        ]
        backends = {name: {"endpoints": [url]} for name, url in urls.items()}
        with running({"workers": 1, "backends": backends, "routes": routes}, folder) as instance:
            yield instance


def test_candidates_streams_that_break_are_recorded_as_such(breaking: Instance) -> None:
    """One drops its connection, one tells of an error; users get every token of the primary's."""
    with openai.OpenAI(base_url=f"{breaking.base_url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(**_ask(PROMPTS[0]), stream=True, **_headers("one"))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    found = {record["candidate"]: record for record in records_of(breaking, "one", 2)}
    for name, status, reason in (
        ("cut", "reset", "candidate_failed"),
        ("error", "ok", "candidate_stream_error"),
    ):
        record = found[name]
        assert record["primary_prediction"] == text
        assert (record["primary_status"], record["primary_stream_complete"]) == ("ok", True)
        assert (record["candidate_status"], record["candidate_http_status"]) == (status, 200)
        assert record["candidate_stream_complete"] is False
        assert record["candidate_finish_reason"] is None
        assert record["candidate_body"].count('"delta"') == FAULT_TOKENS
        assert record["not_comparable_reason"] == reason


def test_an_error_in_the_middle_of_the_primarys_stream_reaches_the_client(
    breaking: Instance,
) -> None:
    """HTTP ends well and the library raises; what came before is kept beside the reason."""
    pieces: list[str] = []
    headers: dict[str, Any] = {"extra_headers": {"x-request-id": "two", "x-swapped": "yes"}}
    with openai.OpenAI(base_url=f"{breaking.base_url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(**_ask(PROMPTS[0], stream=True), **headers)
        with pytest.raises(openai.APIError, match="the model broke"):
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    (record,) = records_of(breaking, "two", 1)
    assert len(pieces) == FAULT_TOKENS
    assert (record["primary_status"], record["candidate_status"]) == ("ok", "ok")
    assert record["primary_stream_complete"] is False
    assert record["candidate_stream_complete"] is True
    assert record["primary_prediction"] == "".join(pieces)
    assert record["primary_finish_reason"] is None
    assert record["not_comparable_reason"] == "primary_stream_error"
