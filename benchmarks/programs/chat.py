"""An OpenAI-compatible upstream with a fixed answer, whole or streamed (`"stream": true`).

A streamed answer has 32 chunks, each written in a turn of the event loop of its own, so that they
reach the proxy one by one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator

import uvloop

from benchmarks.programs.serving import Answering, Count, chunk, head, whole

CHUNKS = 32
_WORDS = "The candidate waits in the wings and learns every line of the part . " * 3
_COMMON = {"id": "chatcmpl-fixed", "created": 1_700_000_000, "model": "bench-model"}
_USAGE = {"prompt_tokens": 200, "completion_tokens": CHUNKS, "total_tokens": 200 + CHUNKS}


def _whole() -> bytes:
    message = {"role": "assistant", "content": " ".join(_WORDS.split()[:CHUNKS])}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return whole(
        json.dumps(
            _COMMON | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}
        ).encode()
    )


def _events() -> list[bytes]:
    """Return every chunk of the stream, its head first and its end last."""
    pieces = [head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")]
    for number, word in enumerate(_WORDS.split()[:CHUNKS]):
        delta = {"content": f"{word} "} | ({"role": "assistant"} if number == 0 else {})
        finish = "stop" if number == CHUNKS - 1 else None
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = _COMMON | {"object": "chat.completion.chunk", "choices": [choice]}
        pieces.append(chunk(f"data: {json.dumps(event)}\n\n".encode()))
    return [*pieces, chunk(b"data: [DONE]\n\n"), chunk(b"")]


_WHOLE, _STREAMED = _whole(), _events()


class Chat(Answering):
    """Answers chat completions."""

    def respond(self, url: bytes, body: bytes) -> None:
        """Answer as the request asks."""
        if json.loads(body).get("stream"):
            self._send(iter(_STREAMED))
        else:
            self.transport.write(_WHOLE)

    def _send(self, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece is not None and not self.transport.is_closing():
            self.transport.write(piece)
            asyncio.get_running_loop().call_soon(self._send, pieces)


async def _serve(port: int) -> None:
    """Serve until SIGTERM ends the process."""
    count = Count()
    server = await asyncio.get_running_loop().create_server(
        lambda: Chat(count), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(json.loads(sys.argv[1])["port"]))
