"""The endpoints of the admin API: they read a request, call, and answer. No policy.

They run on one event loop and never wait for another process; what they touch (pages, the decisions
log) takes microseconds, but for a lock that a stopped process holds, which is bounded at 2 s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from proxy.config.resolved import Config
from proxy.control.bodies import ApiError, LatchOrder, WeightOrder, read_body
from proxy.control.metrics import exposition
from proxy.control.snapshot import Observer
from proxy.control.status import is_ready, problems, routes, status
from proxy.errors import StateError
from proxy.state import decisions
from proxy.state.control_page import ControlPage, Part
from proxy.state.kill import ALL_PARTS, Scope, UnknownScopeError, WeightError
from proxy.state.orders import (
    Change,
    Source,
    order_kill,
    order_revive,
    order_weight,
    revive_corrupt,
    still_killed,
)
from proxy.telemetry import monotonic_s, wall_ns

logger = logging.getLogger("understudy.control")

#: The caller's own word for who it is; the CLI sends `user@host`.
ACTOR_HEADER = "x-understudy-actor"
_ACTOR_LENGTH = 100
_DECISIONS_DEFAULT, _DECISIONS_MOST = 100, 1000


def json_response(content: Any, status_code: int = 200) -> Response:
    """Return `content` as a JSON answer that nobody caches."""
    return Response(
        orjson.dumps(content),
        status_code,
        {"cache-control": "no-store"},
        media_type="application/json",
    )


class Endpoints:
    """The handlers, bound to one instance."""

    def __init__(self, config: Config, observer: Observer) -> None:
        self._config = config
        self._observer = observer

    async def healthz(self, request: Request) -> Response:
        """Control answers."""
        del request
        return json_response({"ok": True})

    async def readyz(self, request: Request) -> Response:
        """Users are served (200) or not (503); and what else is wrong."""
        del request
        snapshot = self._observer.snapshot()
        ready = is_ready(snapshot)
        content = {"ready": ready, "problems": problems(snapshot)}
        return json_response(content, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """The metrics, in the Prometheus or the OpenMetrics format."""
        data, content_type = exposition(self._observer, request.headers.get("accept", ""))
        return Response(data, headers={"content-type": content_type})

    async def status(self, request: Request) -> Response:
        """The whole status document."""
        del request
        return json_response(status(self._observer.snapshot()))

    async def routes(self, request: Request) -> Response:
        """The routes with their live state."""
        del request
        return json_response({"routes": routes(self._observer.snapshot())})

    async def decisions(self, request: Request) -> Response:
        """The last decisions, newest first."""
        word = request.query_params.get("limit", str(_DECISIONS_DEFAULT))
        if not word.isdecimal() or not 1 <= int(word) <= _DECISIONS_MOST:
            raise ApiError(422, f"limit: a number from 1 to {_DECISIONS_MOST}")
        try:
            found = decisions.read_last(self._observer.state_dir, int(word))
        except StateError as exc:
            raise ApiError(503, str(exc)) from exc
        return json_response({"decisions": found})

    async def kill(self, request: Request) -> Response:
        """Latch: when this answers, the next request of every worker obeys."""
        order = await read_body(request, LatchOrder)
        scope, part, source = order.scope(), order.part(Part.DEFAULT), _source(request, order)
        return self._carry_out(lambda page: order_kill(page, scope, part, source))

    async def revive(self, request: Request) -> Response:
        """Open the latch; of everything, also mend a corrupt page."""
        order = await read_body(request, LatchOrder)
        scope, part, source = order.scope(), order.part(ALL_PARTS), _source(request, order)
        if scope == Scope() and order.only is None and self._observer.snapshot().state is None:
            return self._carry_out(
                lambda _: revive_corrupt(self._observer.state_dir, self._config, source),
                needs_page=False,
            )
        return self._carry_out(lambda page: order_revive(page, scope, part, source))

    async def weight(self, request: Request) -> Response:
        """Set the live canary weight of one candidate."""
        order = await read_body(request, WeightOrder)
        scope = Scope(request.path_params["route"], request.path_params["candidate"])
        weight_bp, source = order.weight_bp(), _source(request, order)
        return self._carry_out(lambda page: order_weight(page, scope, weight_bp, source))

    def _carry_out(
        self, order: Callable[[ControlPage | Any], Change], *, needs_page: bool = True
    ) -> Response:
        began_s = monotonic_s()
        try:
            change = order(self._observer.page() if needs_page else None)
        except UnknownScopeError as exc:
            raise ApiError(404, str(exc)) from exc
        except WeightError as exc:
            raise ApiError(409, str(exc)) from exc
        except StateError as exc:
            raise ApiError(503, str(exc)) from exc
        took_ms = round((monotonic_s() - began_s) * 1000, 3)
        decision = change.decision
        logger.warning(
            "%s %s: %s -> %s by %s (%s): %s",
            decision.action, decision.scope, decision.old, decision.new, decision.who,
            decision.via, decision.reason,
        )  # fmt: skip
        return json_response(
            {
                "action": decision.action,
                "scope": decision.scope,
                "old": decision.old,
                "new": decision.new,
                "killed": still_killed(change.after),
                "took_ms": took_ms,
                "log_error": change.log_error,
            }
        )


def _source(request: Request, order: LatchOrder | WeightOrder) -> Source:
    actor = request.headers.get(ACTOR_HEADER, "")[:_ACTOR_LENGTH]
    who = "".join(letter for letter in actor if letter.isprintable()).strip() or "unnamed"
    host = request.client.host if request.client else "unknown"
    return Source(who, f"api {host}", order.reason, wall_ns() // 1_000_000)
