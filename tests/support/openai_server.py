"""A real server that speaks OpenAI's HTTP interface, for end-to-end tests.

Chat completions and completions, streamed or not, and embeddings, with `TextModel` behind. Run as
a process by `openai_server()`, which gives its base URL:

    with openai_server(tmp_path, order=2) as child:
        client = openai.OpenAI(base_url=f"{child.url}/v1", api_key="any")
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from proxy.demo.listener import serve
from proxy.demo.processes import Child, python, start, wait_url
from tests.support.text_model import EMBEDDING_SIZE, TextModel, embed, spaced, tokenize

ROOT = Path(__file__).parent.parent.parent
CREATED = 1_700_000_000
MAX_TOKENS = 512
DEFAULT_TOKENS = 16


class BadRequestError(Exception):
    """The request is wrong; the text says why."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a completion request asks for."""

    model: str
    prompt: str
    max_tokens: int
    temperature: float
    seed: int
    is_chat: bool
    stream: bool
    include_usage: bool


class OpenAIServer:
    """The HTTP surface of one text model; `token_s` is the time between streamed tokens."""

    def __init__(self, name: str, model: TextModel, token_s: float = 0.0) -> None:
        self._name = name
        self._model = model
        self._token_s = token_s

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            ]
        )

    async def models(self, _request: Request) -> Response:
        """List the one model."""
        entry = {"id": self._name, "object": "model", "created": CREATED, "owned_by": "tests"}
        return _json({"object": "list", "data": [entry]})

    async def chat(self, request: Request) -> Response:
        """Answer a chat completion."""
        return await self._complete(request, is_chat=True)

    async def completions(self, request: Request) -> Response:
        """Answer a plain completion."""
        return await self._complete(request, is_chat=False)

    async def embeddings(self, request: Request) -> Response:
        """Answer with one vector for each input, as floats or as base64 of little-endian floats."""
        try:
            document = await _document(request)
            texts = _texts(document.get("input"), "input")
        except BadRequestError as exc:
            return _error(str(exc))
        size = document.get("dimensions") or EMBEDDING_SIZE
        is_base64 = document.get("encoding_format") == "base64"
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            vector = embed(text, size)
            raw = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            value = raw if is_base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": value})
        used = sum(len(tokenize(text)) for text in texts)
        usage = {"prompt_tokens": used, "total_tokens": used}
        return _json({"object": "list", "data": data, "model": self._name, "usage": usage})

    async def _complete(self, request: Request, *, is_chat: bool) -> Response:
        try:
            ask = _ask(await _document(request), is_chat=is_chat)
        except BadRequestError as exc:
            return _error(str(exc))
        tokens, reason = self._model.generate(
            ask.prompt, ask.max_tokens, temperature=ask.temperature, seed=ask.seed
        )
        if ask.stream:
            events = self._events(ask, tokens, reason)
            return StreamingResponse(events, media_type="text/event-stream")
        text = "".join(spaced(tokens))
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        answer = self._head(ask, "chat.completion" if is_chat else "text_completion")
        return _json({**answer, "choices": [choice], "usage": _usage(ask, tokens)})

    async def _events(self, ask: Ask, tokens: list[str], reason: str) -> AsyncIterator[bytes]:
        head = self._head(ask, "chat.completion.chunk" if ask.is_chat else "text_completion")
        pieces: list[dict[str, Any]] = [
            {"delta": {"content": text}} if ask.is_chat else {"text": text}
            for text in spaced(tokens)
        ]
        if ask.is_chat:
            pieces.insert(0, {"delta": {"role": "assistant", "content": ""}})
        pieces.append({"delta": {}} if ask.is_chat else {"text": ""})
        for at, piece in enumerate(pieces):
            if at and self._token_s:
                await asyncio.sleep(self._token_s)
            ends = reason if at == len(pieces) - 1 else None
            choice = {"index": 0, **piece, "finish_reason": ends, "logprobs": None}
            yield _event({**head, "choices": [choice]})
        if ask.include_usage:
            yield _event({**head, "choices": [], "usage": _usage(ask, tokens)})
        yield b"data: [DONE]\n\n"

    def _head(self, ask: Ask, kind: str) -> dict[str, Any]:
        return {"id": f"cmpl-{ask.seed}", "object": kind, "created": CREATED, "model": self._name}


async def _document(request: Request) -> dict[str, Any]:
    try:
        document = orjson.loads(await request.body())
    except orjson.JSONDecodeError as exc:
        raise BadRequestError(f"the body is not JSON: {exc}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("model"), str):
        raise BadRequestError("model must be a string")
    return document


def _ask(document: dict[str, Any], *, is_chat: bool) -> Ask:
    if is_chat:
        prompt = _conversation(document.get("messages"))
    else:
        prompt = "\n".join(_texts(document.get("prompt"), "prompt"))
    asked = document.get("max_completion_tokens") or document.get("max_tokens") or DEFAULT_TOKENS
    if type(asked) is not int or not 1 <= asked <= MAX_TOKENS:
        raise BadRequestError(f"max_tokens must be from 1 to {MAX_TOKENS}")
    temperature, seed = document.get("temperature"), document.get("seed")
    options = document.get("stream_options") or {}
    return Ask(
        model=document["model"],
        prompt=prompt,
        max_tokens=asked,
        temperature=1.0 if temperature is None else float(temperature),
        seed=int(seed or 0),
        is_chat=is_chat,
        stream=document.get("stream") is True,
        include_usage=options.get("include_usage") is True,
    )


def _conversation(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("messages must be a list of at least one")
    lines = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content)
        if not isinstance(content, str):
            raise BadRequestError("each message must have content")
        lines.append(content)
    return "\n".join(lines)


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadRequestError(f"{name} must be a string or a list of strings")
    return texts


def _usage(ask: Ask, tokens: list[str]) -> dict[str, int]:
    before, after = len(tokenize(ask.prompt)), len(tokens)
    return {"prompt_tokens": before, "completion_tokens": after, "total_tokens": before + after}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _error(message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return _json({"error": error}, 400)


@contextmanager
def openai_server(
    directory: Path, *, name: str = "ngram", order: int = 2, token_ms: float = 0.0
) -> Iterator[Child]:
    """Run the server as a process until the block ends; `url` has no `/v1`.

    Args:
        directory: where the log is written.
        name: the model's name in its answers.
        order: words of context; another order is another model.
        token_ms: time between streamed tokens.
    """
    flags = ["--name", name, "--order", str(order), "--token-ms", str(token_ms)]
    command = [*python(), "-m", "tests.support.openai_server", *flags]
    child = start(name, command, directory / f"{name}.log", cwd=ROOT)
    try:
        wait_url(child)
        yield child
    finally:
        child.stop()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="ngram")
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--token-ms", type=float, default=0.0)
    asked = parser.parse_args()
    server = OpenAIServer(asked.name, TextModel(asked.order), asked.token_ms / 1000)
    serve(server.app(), "127.0.0.1", 0)


if __name__ == "__main__":
    main()
