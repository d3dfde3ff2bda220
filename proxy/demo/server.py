"""A model server that speaks the Open Inference Protocol: `python -m proxy.demo.server`.

One process, one thread, one model. It decides how HTTP maps to `proxy.demo.tensors`, and it counts
what it was asked (`GET /stats`), so that the demo and the tests can tell at the model itself, and
not by the proxy's word, when the last request arrived.

The flags `--slow-ms` and `--fail-percent` make a bad model worse: answers late, and some of them
503.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import setproctitle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.demo.classifiers import CLASSES, FEATURES, DigitModel, load_model
from proxy.demo.listener import serve
from proxy.demo.tensors import (
    JSON_LENGTH_HEADER,
    BadRequestError,
    decode_request,
    encode_response,
)
from proxy.telemetry import monotonic_s

#: The name under which every version is served: the proxy does not rewrite model names.
MODEL = "digits"
#: Far above a full batch in JSON.
MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and how badly on purpose.

    Attributes:
        slow_s: added to every answer.
        fail_every: each so-many-th inference is answered 503; 0 means none.
    """

    name: str
    version: str
    slow_s: float = 0.0
    fail_every: int = 0


@dataclass(slots=True)
class Statistics:
    """What has arrived; times are the machine's monotonic clock, seconds, 0 before the first."""

    infer: int = 0
    mirrored: int = 0
    failed: int = 0
    last_infer_s: float = 0.0


class ModelServer:
    """The HTTP surface of one model."""

    def __init__(self, model: DigitModel, serving: Serving) -> None:
        self._model = model
        self._serving = serving
        self._statistics = Statistics()
        self._head = {"model_name": MODEL, "model_version": serving.version}

    def app(self) -> Starlette:
        """Return the application."""
        model = "/v2/models/{model}"
        version = f"{model}/versions/{{version}}"
        routes = [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/stats", self.stats),
        ]
        for prefix in (model, version):
            routes += [
                Route(f"{prefix}/infer", self.infer, methods=["POST"]),
                Route(f"{prefix}/ready", self.model_ready),
                Route(prefix, self.model_metadata),
            ]
        return Starlette(routes=routes)

    async def live(self, _request: Request) -> Response:
        """Answer 200: the process runs."""
        return _json({"live": True})

    async def ready(self, _request: Request) -> Response:
        """Answer 200: the model is loaded before the socket opens."""
        return _json({"ready": True})

    async def server_metadata(self, _request: Request) -> Response:
        """Say what this server is and which extensions it knows."""
        return _json(
            {"name": self._serving.name, "version": "1", "extensions": ["binary_tensor_data"]}
        )

    async def model_metadata(self, request: Request) -> Response:
        """Describe the model's input and outputs."""
        if missing := self._missing(request):
            return missing
        return _json(
            {
                "name": MODEL,
                "versions": [self._serving.version],
                "platform": "sklearn",
                "inputs": [{"name": "pixels", "datatype": "FP64", "shape": [-1, FEATURES]}],
                "outputs": [
                    {"name": "label", "datatype": "INT64", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP64", "shape": [-1, CLASSES]},
                ],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Answer 200 for the model that is served, else 404."""
        if missing := self._missing(request):
            return missing
        return _json({"name": MODEL, "ready": True})

    async def stats(self, _request: Request) -> Response:
        """Return `Statistics` as JSON."""
        return _json(self._statistics)

    async def infer(self, request: Request) -> Response:
        """Answer an inference, in JSON or in binary as the client asked."""
        statistics, serving = self._statistics, self._serving
        statistics.infer += 1
        statistics.mirrored += request.headers.get("x-understudy-mirror") == "1"
        statistics.last_infer_s = monotonic_s()
        is_failing = bool(serving.fail_every) and statistics.infer % serving.fail_every == 0
        if missing := self._missing(request):
            return missing
        body = await _body(request)
        if body is None:
            return _error(413, f"the body is over {MAX_BODY_BYTES} bytes")
        if serving.slow_s:
            await asyncio.sleep(serving.slow_s)
        if is_failing:
            statistics.failed += 1
            return _error(503, "overloaded, on purpose")
        return self._answer(body, request.headers.get(JSON_LENGTH_HEADER))

    def _answer(self, body: bytes, json_length: str | None) -> Response:
        try:
            asked = decode_request(body, json_length, FEATURES)
            labels, probabilities = self._model.predict(asked.rows)
            outputs = {"label": labels, "probabilities": probabilities}
            encoded, head_length = encode_response(self._head, outputs, asked)
        except BadRequestError as exc:
            return _error(400, str(exc))
        if head_length is None:
            return Response(encoded, media_type="application/json")
        headers = {JSON_LENGTH_HEADER: str(head_length)}
        return Response(encoded, headers=headers, media_type="application/octet-stream")

    def _missing(self, request: Request) -> Response | None:
        """Return a 404 when the path names another model or version."""
        asked = request.path_params
        if asked["model"] != MODEL:
            return _error(404, f"there is no model {asked['model']!r} here")
        version = asked.get("version", self._serving.version)
        if version != self._serving.version:
            return _error(404, f"there is no version {version!r} of {MODEL} here")
        return None


async def _body(request: Request) -> bytes | None:
    """Return the whole body, or None when it is too large."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a model and serve it."""
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="file that the demo wrote")
    parser.add_argument("--name", default=MODEL)
    parser.add_argument("--version", default="1")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, which is printed")
    parser.add_argument("--slow-ms", type=float, default=0.0, help="added to every answer")
    parser.add_argument("--fail-percent", type=float, default=0.0, help="answered 503")
    asked = parser.parse_args(arguments)
    setproctitle.setproctitle(f"understudy demo: {asked.name}")
    fail_every = round(100 / asked.fail_percent) if asked.fail_percent > 0 else 0
    serving = Serving(asked.name, asked.version, asked.slow_ms / 1000, fail_every)
    model = load_model(asked.model)
    if sklearn := sys.modules.get("sklearn"):  # the model needs it
        # The rows are checked here already; its own checks cost more than the prediction.
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    serve(ModelServer(model, serving).app(), asked.host, asked.port)


if __name__ == "__main__":
    main()
