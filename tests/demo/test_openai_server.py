"""The text server of the tests, with OpenAI's own client: what other tests build on must hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openai
import pytest

from tests.support.openai_server import openai_server
from tests.support.text_model import TextModel, corpus, embed, spaced, tokenize

PROMPT = "Return the"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Give a client of a running server."""
    with (
        openai_server(tmp_path_factory.mktemp("openai")) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as opened,
    ):
        yield opened


def _text(prompt: str, max_tokens: int, seed: int = 0, order: int = 2) -> str:
    tokens, _ = TextModel(order).generate(prompt, max_tokens, seed=seed)
    return "".join(spaced(tokens))


def test_the_model_learns_real_prose() -> None:
    """Enough words for its text to look like some, and two orders differ."""
    assert len(tokenize(corpus())) > 1_000
    texts = {_text("Return a", 20, order=order) for order in (1, 2, 3)}
    assert len(texts) > 1


def test_chat_answers_whole(client: openai.OpenAI) -> None:
    """Text, reason and usage are the model's."""
    answer = client.chat.completions.create(
        model="ngram", messages=[{"role": "user", "content": PROMPT}], max_tokens=5, seed=7
    )
    choice = answer.choices[0]
    assert choice.message.content == _text(PROMPT, 5, seed=7)
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2
    assert 1 <= answer.usage.completion_tokens <= 5


def test_chat_streams_the_same_text(client: openai.OpenAI) -> None:
    """Piece by piece, ended by a reason and, when asked for, the usage."""
    pieces, reasons, used = [], [], []
    with client.chat.completions.create(
        model="ngram",
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            used += [chunk.usage] if chunk.usage else []
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                reasons += [choice.finish_reason] if choice.finish_reason else []
    assert "".join(pieces) == _text(PROMPT, 12)
    assert len(reasons) == 1
    assert used[0].completion_tokens == len(tokenize("".join(pieces)))


def test_completions_answer_whole_and_streamed(client: openai.OpenAI) -> None:
    """The older interface, too."""
    whole = client.completions.create(model="ngram", prompt=PROMPT, max_tokens=8)
    with client.completions.create(
        model="ngram", prompt=PROMPT, max_tokens=8, stream=True
    ) as stream:
        streamed = "".join(chunk.choices[0].text for chunk in stream)
    assert whole.choices[0].text == streamed == _text(PROMPT, 8)


def test_embeddings_come_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    """The client asks for base64 by itself; both hold the same numbers."""
    by_default = client.embeddings.create(model="ngram", input=["one two", "three"])
    floats = client.embeddings.create(model="ngram", input="one two", encoding_format="float")
    assert np.allclose(by_default.data[0].embedding, embed("one two"))
    assert np.allclose(floats.data[0].embedding, embed("one two"))
    assert by_default.data[1].index == 1
    assert np.isclose(np.linalg.norm(floats.data[0].embedding), 1.0)


def test_a_wrong_request_is_an_api_error(client: openai.OpenAI) -> None:
    """Which the client understands as one."""
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="ngram", messages=[])


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    """One of them."""
    assert [model.id for model in client.models.list()] == ["ngram"]
