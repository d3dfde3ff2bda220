"""The clients that people use, through a whole instance: right answers, and right records of them.

NVIDIA's tritonclient against scikit-learn models, OpenAI's own library against a text model; a
second model of each kind is the candidate, mirrored at 100%.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openai
import pytest
from tritonclient import http as triton

from proxy.demo.processes import Child
from proxy.telemetry import monotonic_s
from tests.support.instance import Instance, running
from tests.support.models import digit_servers, digits, trained
from tests.support.openai_server import openai_server
from tests.support.pair_log import wait_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROWS = 40
#: Between streamed tokens; a proxy that collects an answer before it passes it on is found out.
TOKEN_MS = 40.0
PROMPTS = ("Return the", "If the", "A new")

Records = list[dict[str, Any]]


def _config(
    route: dict[str, Any], primary: str, candidate: str, **backend: object
) -> dict[str, Any]:
    """Return a config with one route, its candidate `v2` mirrored at 100%."""
    return {
        "workers": 1,
        "backends": {
            "v1": {"endpoints": [primary], "timeout": "10s"},
            "v2": {"endpoints": [candidate], "timeout": "10s", **backend},
        },
        "routes": [
            {
                "primary": "v1",
                "split_by": "header:x-user-id",
                "candidates": [{"name": "v2", "backend": "v2", "mirror": "100%"}],
                **route,
            }
        ],
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    """Serve the primary and the better candidate of the digits."""
    with digit_servers(tmp_path_factory.mktemp("digits"), "digits-v1", "digits-v2") as servers:
        yield servers


@pytest.fixture(scope="module")
def digit_proxy(
    models: dict[str, Child], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """Run a proxy in front of both."""
    route = {
        "name": "digits",
        "protocol": "open-inference",
        "compare": {"prediction": "outputs[0].data", "comparator": "label"},
    }
    config = _config(route, models["digits-v1"].url, models["digits-v2"].url)
    with running(config, tmp_path_factory.mktemp("digit-proxy")) as instance:
        yield instance


def _infer(
    client: Any, rows: npt.NDArray[np.float64], name: str, *, is_binary: bool
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Ask for the labels and probabilities of `rows`, `(n, 64)`."""
    pixels = triton.InferInput("pixels", list(rows.shape), "FP64")
    pixels.set_data_from_numpy(rows, binary_data=is_binary)
    wanted = [
        triton.InferRequestedOutput(output, binary_data=is_binary)
        for output in ("label", "probabilities")
    ]
    answer = client.infer(
        "digits", [pixels], outputs=wanted, request_id=name, headers={"x-request-id": name}
    )
    assert answer.get_response()["model_version"] == "1"
    return answer.as_numpy("label").tolist(), answer.as_numpy("probabilities")


def test_tritonclient_in_json_gets_the_primarys_answers_and_full_records(
    digit_proxy: Instance, models: dict[str, Child]
) -> None:
    """Labels and probabilities as asked directly; both models' labels in every record."""
    rows = digits().held_out_rows[:ROWS]
    direct_url = models["digits-v1"].url.removeprefix("http://")
    proxied_url = digit_proxy.runtime["listen"]
    with (
        triton.InferenceServerClient(direct_url) as direct,
        triton.InferenceServerClient(proxied_url) as proxied,
    ):
        assert proxied.is_server_live()
        assert proxied.is_model_ready("digits")
        assert proxied.get_model_metadata("digits") == direct.get_model_metadata("digits")
        for number in range(ROWS):
            row = rows[number : number + 1]
            expected = _infer(direct, row, f"json-{number}", is_binary=False)
            labels, probabilities = _infer(proxied, row, f"json-{number}", is_binary=False)
            assert labels == expected[0]
            assert np.array_equal(probabilities, expected[1])
    records = _records(digit_proxy, "json-", ROWS)
    first, second = (trained(name).model.predict(rows)[0].tolist() for name in _MODELS)
    assert first != second, "the two models must disagree somewhere for this test to say anything"
    for number, record in enumerate(records):
        assert record["request_id"] == f"json-{number}"
        assert record["primary_prediction"] == [first[number]]
        assert record["candidate_prediction"] == [second[number]]
        assert (record["primary_model_version"], record["candidate_model_version"]) == ("1", "2")
        assert record["comparable"] is True
        assert record["equal"] is (first[number] == second[number])
        assert record["loss_diff"] == float(first[number] != second[number])
        assert record["protocol"] == "open-inference"
        assert record["path"] == "/v2/models/digits/infer"


_MODELS = ("digits-v1", "digits-v2")


def test_tritonclient_in_binary_gets_the_primarys_answers_and_says_why_not_compared(
    digit_proxy: Instance, models: dict[str, Child]
) -> None:
    """Binary tensors pass untouched both ways; the record keeps both answers."""
    rows = digits().held_out_rows
    direct_url = models["digits-v1"].url.removeprefix("http://")
    with (
        triton.InferenceServerClient(direct_url) as direct,
        triton.InferenceServerClient(digit_proxy.runtime["listen"]) as proxied,
    ):
        for number, size in enumerate((1, 7, 256)):  # up to 128 KiB in one request
            expected = _infer(direct, rows[:size], f"binary-{number}", is_binary=True)
            labels, probabilities = _infer(proxied, rows[:size], f"binary-{number}", is_binary=True)
            assert labels == expected[0]
            assert np.array_equal(probabilities, expected[1])
    for record in _records(digit_proxy, "binary-", 3):
        assert (record["primary_status"], record["candidate_status"]) == ("ok", "ok")
        assert (record["primary_http_status"], record["candidate_http_status"]) == (200, 200)
        if record["comparable"]:  # with the binary tensor extension understood
            assert len(record["primary_prediction"]) == len(record["candidate_prediction"])
        else:
            assert record["not_comparable_reason"]


def test_tritonclient_asks_for_many_at_once(digit_proxy: Instance) -> None:
    """Its pool of greenlets gets each answer where it belongs."""
    rows = digits().held_out_rows[:16]
    with triton.InferenceServerClient(digit_proxy.runtime["listen"], concurrency=8) as client:
        waiting = []
        for number in range(16):
            pixels = triton.InferInput("pixels", [1, 64], "FP64")
            pixels.set_data_from_numpy(rows[number : number + 1], binary_data=False)
            wanted = [triton.InferRequestedOutput("label", binary_data=False)]
            waiting.append(
                client.async_infer(
                    "digits",
                    [pixels],
                    outputs=wanted,
                    headers={"x-request-id": f"many-{number}"},
                )
            )
        labels = [answer.get_result().as_numpy("label").tolist()[0] for answer in waiting]
    assert labels == trained("digits-v1").model.predict(rows)[0].tolist()
    records = _records(digit_proxy, "many-", 16)
    assert all(record["comparable"] for record in records)


def _records(instance: Instance, prefix: str, count: int) -> Records:
    """Wait for exactly `count` records whose request ids begin with `prefix`."""
    records = wait_pairs(instance.state_dir, count, prefix)
    assert len(records) == count
    return records


# OpenAI's library.


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
        with running(_config(route, one.url, two.url), folder / "proxy") as instance:
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
        record = _records(instance, "chat", number + 1)[number]
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


def test_openai_streams_chunk_by_chunk(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The first token is there long before the last; the record holds the whole text of both."""
    instance, direct, proxied = texts
    ask = _ask(PROMPTS[0], stream=True, stream_options={"include_usage": True})
    expected = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in direct.chat.completions.create(**ask)
        if chunk.choices
    )
    started_s = monotonic_s()
    times_s, pieces, used = [], [], None
    for chunk in proxied.chat.completions.create(**ask, **_headers("stream")):
        times_s.append(monotonic_s() - started_s)
        used = chunk.usage or used
        pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == expected
    assert used is not None
    tokens = used.completion_tokens
    assert tokens >= 4
    spread_s = times_s[-1] - times_s[0]
    seen = f"first chunk {times_s[0]:.3f} s, last {times_s[-1]:.3f} s, {tokens} tokens"
    assert spread_s >= 0.8 * tokens * TOKEN_MS / 1000, seen
    assert max(np.diff(times_s)) < spread_s / 2, seen  # no waiting for several at once
    (record,) = _records(instance, "stream", 1)
    assert record["primary_prediction"] == expected
    assert record["primary_output_tokens"] == tokens
    assert record["candidate_output_tokens"] >= 1
    assert record["primary_finish_reason"] in {"stop", "length"}
    assert record["primary_content_type"].startswith("text/event-stream")
    assert record["primary_stream_complete"] is True
    assert record["primary_chunks"] >= tokens
    assert record["primary_latency_ms"] - record["primary_ttfb_ms"] >= 0.8 * tokens * TOKEN_MS
    assert record["comparable"] is True
    assert record["equal"] is (record["candidate_prediction"] == expected)


def test_a_stream_that_its_reader_leaves_is_recorded_as_cancelled(
    texts: tuple[Instance, openai.OpenAI, openai.OpenAI],
) -> None:
    """The primary's leg ends with its client; the candidate's may end by itself."""
    instance, _, proxied = texts
    ask = _ask(PROMPTS[1], stream=True, max_tokens=200, seed=4)
    stream = proxied.chat.completions.create(**ask, **_headers("left"))
    next(iter(stream))
    stream.close()
    (record,) = _records(instance, "left", 1)
    assert record["primary_status"] == "cancelled"
    assert record["candidate_status"] == "ok"
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
    for record in _records(instance, "comp", 2):
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
    (record,) = _records(instance, "embed", 1)
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
    (record,) = _records(instance, "error", 1)
    assert (record["primary_status"], record["primary_http_status"]) == ("http_error", 400)
    assert record["comparable"] is False
