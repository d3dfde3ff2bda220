"""An inference server that gives every input back: any datatype, in JSON and in binary.

The Open Inference Protocol as NVIDIA's server speaks it to its clients: binary tensors in requests
and answers, compressed requests, and answers compressed for those who ask (`x-coding` names the
coding of several). `x-chunked` asks for an answer without a length. Tensors are never decoded here,
so what a client or a record makes of one says nothing about this server.

    with identity_server(tmp_path) as child:
        triton.InferenceServerClient(child.url.removeprefix("http://"))
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import brotli
import orjson
import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from proxy.demo.listener import serve
from proxy.demo.processes import Child, python, start, wait_url
from tests.support.deadline import START_PATIENCE_S

ROOT = Path(__file__).parent.parent.parent
#: Says where the JSON of a binary request or answer ends.
JSON_LENGTH = "inference-header-content-length"
PIECE_BYTES = 10_000
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
_KEPT = ("name", "datatype", "shape", "data")


async def infer(request: Request) -> Response:
    """Answer with the inputs as outputs, each as it came."""
    body = await request.body()
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    end = int(request.headers.get(JSON_LENGTH, len(body)))
    document = orjson.loads(body[:end])
    head = {"model_name": "identity", "model_version": "1", "id": document.get("id", "")}
    head["outputs"] = [_output(tensor) for tensor in document["inputs"]]
    text = orjson.dumps(head)
    is_binary = end < len(body)
    answer = text + body[end:]
    headers = {"content-type": "application/octet-stream" if is_binary else "application/json"}
    if is_binary:
        headers[JSON_LENGTH] = str(len(text))
    coding = request.headers.get("x-coding", "gzip")
    if coding in request.headers.get("accept-encoding", ""):
        answer = CODINGS[coding](answer)
        headers["content-encoding"] = coding
    if "x-chunked" in request.headers:
        return StreamingResponse(_in_pieces(answer), headers=headers)
    return Response(answer, headers=headers)


async def _in_pieces(answer: bytes) -> AsyncIterator[bytes]:
    for start_at in range(0, len(answer), PIECE_BYTES):
        yield answer[start_at : start_at + PIECE_BYTES]


def _output(tensor: dict[str, Any]) -> dict[str, Any]:
    output: dict[str, Any] = {name: tensor[name] for name in _KEPT if name in tensor}
    size = tensor.get("parameters", {}).get("binary_data_size")
    if size is not None:
        output["parameters"] = {"binary_data_size": size}
    return output


@contextmanager
def identity_server(directory: Path) -> Iterator[Child]:
    """Run the server as a process until the block ends."""
    command = [*python(), "-m", "tests.support.identity_server"]
    child = start("identity", command, directory / "identity.log", cwd=ROOT)
    try:
        wait_url(child, START_PATIENCE_S)
        yield child
    finally:
        child.stop()


def main() -> None:
    """Serve until SIGTERM."""
    route = Route("/v2/models/identity/infer", infer, methods=["POST"])
    serve(Starlette(routes=[route]), "127.0.0.1", 0)


if __name__ == "__main__":
    main()
