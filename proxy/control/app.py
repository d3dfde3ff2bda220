"""The admin application: paths to endpoints, errors to JSON, the guard around it all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.config.resolved import Config
from proxy.control.auth import Guard, Rules
from proxy.control.bodies import ApiError
from proxy.control.endpoints import Endpoints, json_response
from proxy.control.openapi import document
from proxy.control.pulse import Pulse
from proxy.control.ramps import Ramps
from proxy.control.reload import Reloader
from proxy.control.snapshot import Observer

if TYPE_CHECKING:
    from proxy.control.replicas import Replicas

logger = logging.getLogger("understudy.control")

_DASHBOARD = Path(__file__).parent / "dashboard"
_DASHBOARD_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def build_app(
    config: Config,
    observer: Observer,
    pulse: Pulse | None = None,
    reloader: Reloader | None = None,
    ramps: Ramps | None = None,
    replicas: Replicas | None = None,
) -> ASGIApp:
    """Return the admin application of one instance.

    Args:
        config: of the start.
        observer: reads the instance.
        pulse: without one it doubts no order's age.
        reloader: without one it knows no config file.
        ramps: without it there are none.
        replicas: without it this instance is on its own.
    """
    reloader = reloader or Reloader(config, None, observer)
    ends = Endpoints(observer, pulse or Pulse(), reloader, ramps, replicas)
    weight = "/api/v1/routes/{route}/candidates/{candidate}/weight"
    app = Starlette(
        routes=[
            Route("/healthz", ends.healthz),
            Route("/readyz", ends.readyz),
            Route("/metrics", ends.metrics),
            Route("/api/v1/status", ends.status),
            Route("/api/v1/routes", ends.routes),
            Route("/api/v1/decisions", ends.decisions),
            Route("/api/v1/kill", ends.kill, methods=["POST"]),
            Route("/api/v1/revive", ends.revive, methods=["POST"]),
            Route(weight, ends.weight, methods=["PUT"]),
            Route("/api/v1/routes/{route}/ramp/{word}", ends.ramp, methods=["POST"]),
            Route("/api/v1/labels", ends.labels, methods=["POST"]),
            Route("/api/v1/reload", ends.reload, methods=["POST"]),
            Route("/openapi.json", _openapi),
            _file("/", "index.html", "text/html"),
            _file("/dashboard.js", "dashboard.js", "text/javascript"),
            _file("/ramps.js", "ramps.js", "text/javascript"),
            _file("/dashboard.css", "dashboard.css", "text/css"),
        ],
        exception_handlers={
            ApiError: _on_api_error,
            HTTPException: _on_http_exception,
            Exception: _on_fault,
        },
    )
    guard = Guard(app, _rules(config), observer.refused)
    reloader.on_change(lambda changed: guard.follow(_rules(changed)))
    return guard


def _rules(config: Config) -> Rules:
    return Rules(config.admin.token, config.admin.listen.host)


def _file(path: str, name: str, media_type: str) -> Route:
    content = (_DASHBOARD / name).read_bytes()

    async def serve(request: Request) -> Response:
        del request
        return Response(content, headers=_DASHBOARD_HEADERS, media_type=media_type)

    return Route(path, serve)


async def _openapi(request: Request) -> Response:
    del request
    return json_response(document())


async def _on_api_error(request: Request, exc: Exception) -> Response:
    del request
    assert isinstance(exc, ApiError)
    answer = json_response({"error": str(exc)}, exc.status)
    answer.headers.update(exc.headers)
    return answer


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    message = {
        404: f"no {request.url.path} here; see /openapi.json",
        405: f"{request.method} is not for {request.url.path}; see /openapi.json",
    }.get(exc.status_code, str(exc.detail))
    answer = json_response({"error": message}, exc.status_code)
    answer.headers.update(exc.headers or {})
    return answer


async def _on_fault(request: Request, exc: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return json_response({"error": "a fault of Understudy; its log says more"}, 500)
