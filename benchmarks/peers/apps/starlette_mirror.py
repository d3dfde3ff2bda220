"""A mirroring proxy as a user would write it: Starlette, one httpx client, a background task.

It runs in an environment of its own (`benchmarks.peers.starlette`), so it imports nothing of ours.
`PRIMARY` and `CANDIDATE` are URLs; without the second it only forwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PRIMARY = os.environ["PRIMARY"]
CANDIDATE = os.environ.get("CANDIDATE", "")
_HOP_BY_HOP = {
    "connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip
_LIMITS = httpx.Limits(max_connections=1024, max_keepalive_connections=1024)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep one client, with its pool, for the life of the process."""
    async with httpx.AsyncClient(limits=_LIMITS, timeout=30, trust_env=False) as client:
        app.state.client = client
        yield


async def _forward(request: Request) -> Response:
    """Answer with the primary's answer; send the copy once the user has it."""
    body = await request.body()
    headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
    client: httpx.AsyncClient = request.app.state.client
    path = request.url.path
    answer = await client.request(request.method, PRIMARY + path, content=body, headers=headers)
    task = None
    if CANDIDATE:
        task = BackgroundTask(
            client.request, request.method, CANDIDATE + path, content=body, headers=headers
        )
    kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
    return Response(answer.content, answer.status_code, kept, background=task)


app = Starlette(
    routes=[Route("/{path:path}", _forward, methods=["GET", "POST"])], lifespan=_lifespan
)
