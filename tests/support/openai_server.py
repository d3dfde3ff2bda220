"""A real server that speaks OpenAI's HTTP interface, for end-to-end tests.

Chat completions (calls of tools, too), completions and responses, streamed or not, and embeddings,
with `TextModel` behind. Run as a process by `openai_server()`, which gives its base URL:

    with openai_server(tmp_path, order=2) as child:
        client = openai.OpenAI(base_url=f"{child.url}/v1", api_key="any")
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from proxy.demo.listener import serve
from proxy.demo.processes import Child, python, start, wait_url
from tests.support import openai_responses
from tests.support.deadline import START_PATIENCE_S
from tests.support.text_model import EMBEDDING_SIZE, TextModel, embed, spaced, tokenize

ROOT = Path(__file__).parent.parent.parent
CREATED = 1_700_000_000
MAX_TOKENS = 512
DEFAULT_TOKENS = 16
FAULT_TOKENS = 3


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
    choices: int
    tool: str | None


class Fault(StrEnum):
    """How streams of chat and completions end after `FAULT_TOKENS` of them."""

    NONE = "none"
    ERROR = "error"
    CUT = "cut"


class CutError(Exception):
    """Makes the server drop the connection in the middle of an answer."""


class OpenAIServer:
    """The HTTP surface of one text model; `token_s` is the time between streamed tokens."""

    def __init__(
        self, name: str, model: TextModel, token_s: float = 0.0, fault: Fault = Fault.NONE
    ) -> None:
        self._name = name
        self._model = model
        self._token_s = token_s
        self._fault = fault

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/responses", self.responses, methods=["POST"]),
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

    async def responses(self, request: Request) -> Response:
        """Answer a response, streamed or not."""
        try:
            document = await _document(request)
            ask = _response_ask(document)
        except BadRequestError as exc:
            return _error(str(exc))
        tokens, reason = self._generated(ask, 0)
        answer = openai_responses.Answer(self._name, ask.prompt, tuple(spaced(tokens)), reason)
        if ask.stream:
            return StreamingResponse(self._paced(answer.events()), media_type="text/event-stream")
        return _json(answer.document())

    async def _paced(self, events: Iterator[bytes]) -> AsyncIterator[bytes]:
        for event in events:
            yield event
            await asyncio.sleep(self._token_s)

    def _generated(self, ask: Ask, number: int) -> tuple[list[str], str]:
        """Return the tokens of one choice, and why they end."""
        return self._model.generate(
            ask.prompt, ask.max_tokens, temperature=ask.temperature, seed=ask.seed + number
        )

    async def _complete(self, request: Request, *, is_chat: bool) -> Response:
        try:
            ask = _ask(await _document(request), is_chat=is_chat)
        except BadRequestError as exc:
            return _error(str(exc))
        answers = [self._generated(ask, number) for number in range(ask.choices)]
        if ask.stream:
            events = self._events(ask, answers)
            return StreamingResponse(events, media_type="text/event-stream")
        choices = []
        for index, (tokens, reason) in enumerate(answers):
            said = _whole(ask, "".join(spaced(tokens)))
            choice = {"index": index, "finish_reason": _reason(ask, reason), "logprobs": None}
            choices.append(choice | said)
        answer = self._head(ask, "chat.completion" if is_chat else "text_completion")
        return _json({**answer, "choices": choices, "usage": _usage(ask, answers)})

    async def _events(self, ask: Ask, answers: list[tuple[list[str], str]]) -> AsyncIterator[bytes]:
        head = self._head(ask, "chat.completion.chunk" if ask.is_chat else "text_completion")
        all_pieces = [_pieces(ask, spaced(tokens)) for tokens, _ in answers]
        for at in range(max(len(pieces) for pieces in all_pieces)):
            if at and self._token_s:
                await asyncio.sleep(self._token_s)
            if at == FAULT_TOKENS and self._fault is Fault.CUT:
                raise CutError
            if at == FAULT_TOKENS and self._fault is Fault.ERROR:
                yield _event({"error": {"message": "the model broke", "type": "server_error"}})
                return
            for index, pieces in enumerate(all_pieces):
                if at < len(pieces):
                    is_last = at == len(pieces) - 1
                    ends = _reason(ask, answers[index][1]) if is_last else None
                    choice = {"index": index, **pieces[at], "finish_reason": ends, "logprobs": None}
                    yield _event({**head, "choices": [choice]})
        if ask.include_usage:
            yield _event({**head, "choices": [], "usage": _usage(ask, answers)})
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
        choices=document.get("n") or 1,
        tool=_tool(document.get("tools")),
    )


def _response_ask(document: dict[str, Any]) -> Ask:
    """Return a request of the Responses API in the words of a chat."""
    asked = document.get("input")
    messages = [{"content": asked}] if isinstance(asked, str) else asked
    limit = document.get("max_output_tokens")
    return _ask(
        {**document, "messages": messages, "max_tokens": limit, "tools": None}, is_chat=True
    )


def _tool(tools: Any) -> str | None:
    """Return the name of the first tool; this model always calls it."""
    if not tools:
        return None
    try:
        return str(tools[0]["function"]["name"])
    except (LookupError, TypeError) as exc:
        raise BadRequestError("tools must be a list of functions") from exc


def _whole(ask: Ask, text: str) -> dict[str, Any]:
    """Return what a choice says when it is not streamed."""
    if not ask.is_chat:
        return {"text": text}
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if ask.tool is not None:
        arguments = orjson.dumps({"words": text}).decode()
        message["content"] = None
        message["tool_calls"] = [_call(ask, arguments)]
    return {"message": message}


def _pieces(ask: Ask, texts: list[str]) -> list[dict[str, Any]]:
    """Return what a choice says, in the pieces of a stream."""
    if not ask.is_chat:
        return [*({"text": text} for text in texts), {"text": ""}]
    if ask.tool is None:
        deltas: list[dict[str, Any]] = [{"content": text} for text in texts]
        return _deltas({"role": "assistant", "content": ""}, deltas)
    words = ['{"words":"', *(orjson.dumps(text)[1:-1].decode() for text in texts), '"}']
    deltas = [{"tool_calls": [{"index": 0, "function": {"arguments": word}}]} for word in words]
    first = {"role": "assistant", "content": None, "tool_calls": [_call(ask, "") | {"index": 0}]}
    return _deltas(first, deltas)


def _deltas(first: dict[str, Any], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"delta": delta} for delta in (first, *more, {})]


def _call(ask: Ask, arguments: str) -> dict[str, Any]:
    # The id is random, as the real service's is.
    function = {"name": ask.tool, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _reason(ask: Ask, reason: str) -> str:
    return reason if ask.tool is None else "tool_calls"


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


def _usage(ask: Ask, answers: list[tuple[list[str], str]]) -> dict[str, int]:
    before, after = len(tokenize(ask.prompt)), sum(len(tokens) for tokens, _ in answers)
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
    directory: Path,
    *,
    name: str = "ngram",
    order: int = 2,
    token_ms: float = 0.0,
    fault: Fault = Fault.NONE,
) -> Iterator[Child]:
    """Run the server as a process until the block ends; `url` has no `/v1`.

    Args:
        directory: where the log is written.
        name: the model's name in its answers.
        order: words of context; another order is another model.
        token_ms: time between streamed tokens.
        fault: how its streams end.
    """
    flags = ["--name", name, "--order", str(order), "--token-ms", str(token_ms), "--fault", fault]
    command = [*python(), "-m", "tests.support.openai_server", *flags]
    child = start(name, command, directory / f"{name}.log", cwd=ROOT)
    try:
        wait_url(child, START_PATIENCE_S)
        yield child
    finally:
        child.stop()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="ngram")
    parser.add_argument("--order", type=int, default=2)
    parser.add_argument("--token-ms", type=float, default=0.0)
    parser.add_argument("--fault", type=Fault, default=Fault.NONE)
    asked = parser.parse_args()
    model = TextModel(asked.order)
    server = OpenAIServer(asked.name, model, asked.token_ms / 1000, asked.fault)
    serve(server.app(), "127.0.0.1", 0)


if __name__ == "__main__":
    main()
