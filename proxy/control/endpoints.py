"""The endpoints of the admin API: they read a request, call, and answer. No policy.

They run on one event loop and never wait for another process; what they touch (pages, the decisions log) takes
microseconds, but for a lock that a stopped process holds (2 s) and a disk that hangs (`proxy.state.syncing`).
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from proxy.config.resolved import Config
from proxy.control.bodies import (
    ApiError,
    LatchOrder,
    Order,
    RampOrder,
    ReloadOrder,
    WeightOrder,
    read_body,
    refuse_if_expired,
)
from proxy.control.labels import take_labels
from proxy.control.metrics import exposition
from proxy.control.problems import problems
from proxy.control.pulse import SETTLE_S, Pulse
from proxy.control.ramps import Ramps
from proxy.control.reload import Reloader, Result, outcome_document
from proxy.control.snapshot import Observer
from proxy.control.status import is_ready, routes, status
from proxy.errors import StateError
from proxy.journal.label_journal import LabelJournal
from proxy.state import decisions
from proxy.state.control_page import Part, is_readable
from proxy.state.kill import ALL_PARTS, Scope, UnknownScopeError, WeightError, part_names
from proxy.state.mending import kill_by_file, kill_by_signal, kill_past_the_disk, revive_corrupt
from proxy.state.orders import (
    Change,
    OvertakenError,
    Source,
    make_decision,
    order_kill,
    order_revive,
    order_weight,
    refuse_if_overtaken,
)
from proxy.state.refusals import log_refusal
from proxy.state.syncing import HangingDiskError
from proxy.telemetry import monotonic_s, wall_ns

if TYPE_CHECKING:
    from proxy.control.replicas import Replicas

logger = logging.getLogger("understudy.control")

#: The caller's own word for who it is; the CLI sends `user@host`.
ACTOR_HEADER = "x-understudy-actor"
_ACTOR_LENGTH = 100
_DECISIONS_DEFAULT, _DECISIONS_MOST = 100, 1000
_RELOAD_STATUS = {
    Result.RELOADED: 200,
    Result.UNCHANGED: 200,
    Result.INVALID: 422,
    Result.NEEDS_RESTART: 409,
    Result.FAILED: 503,
}
#: How often, and after how long each time, it is looked whether every worker has followed a reload.
_FOLLOW_LOOKS, _FOLLOW_S = 50, 0.02
#: How long a revive or a weight waits to learn whether its client is still there.
_GONE_S = 0.02


def json_response(content: Any, status_code: int = 200) -> Response:
    """Return `content` as a JSON answer that nobody caches."""
    return Response(
        orjson.dumps(content),
        status_code,
        {"cache-control": "no-store"},
        media_type="application/json",
    )


class Endpoints:
    """The handlers, bound to one instance; `pulse` and `ramps` are control's own."""

    def __init__(
        self,
        observer: Observer,
        pulse: Pulse,
        reloader: Reloader,
        ramps: Ramps | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._observer = observer
        self._reloader = reloader
        self._labels = LabelJournal(observer.state_dir, self._config.limits.journal_disk_bytes)
        reloader.on_change(lambda now: self._labels.set_disk_budget(now.limits.journal_disk_bytes))
        self.pulse = pulse
        self._ramps = ramps
        self._replicas = replicas

    @property
    def _config(self) -> Config:
        return self._observer.config

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
            # In a thread: a thousand decisions with their evidence are some megabytes.
            found = await asyncio.to_thread(
                decisions.read_last, self._observer.state_dir, int(word)
            )
        except StateError as exc:
            raise ApiError(503, str(exc)) from exc
        return json_response({"decisions": found})

    async def kill(self, request: Request) -> Response:
        """Latch: when this answers, the next request of every worker obeys.

        When the page cannot be changed, a kill file is left instead: 200 if the page is unreadable, so that only
        the primary serves already, 202 if the kill is still to take effect, as by signal while the disk hangs.
        """
        order = await read_body(request, LatchOrder)
        scope, part, source = order.scope(), order.part(Part.DEFAULT), _source(request, order)
        with self._refusal_logged("kill", scope, part_names(part), source):
            refuse_if_expired(order)
            began_s = monotonic_s()
            try:
                change = order_kill(self._observer.page(), scope, part, source)
            except UnknownScopeError as exc:
                raise ApiError(404, str(exc)) from exc
            except HangingDiskError as exc:
                if order.only is not None:  # a signal means mirror and canary
                    raise ApiError(503, str(exc)) from exc
                past = functools.partial(kill_past_the_disk, self._observer.state_dir, source, exc)
                return _carry_out(past, is_in_effect=False)
            except StateError as exc:
                return self._kill_by_file(order, source, str(exc))
            return _answer(change, began_s, warnings=self._memory_only() + self._unheard())

    async def revive(self, request: Request) -> Response:
        """Open the latch; of everything, also mend a corrupt page."""
        order = await read_body(request, LatchOrder)
        scope, part, source = order.scope(), order.part(ALL_PARTS), _source(request, order)
        state_dir = self._observer.state_dir
        with self._refusal_logged("revive", scope, part_names(part), source):
            await self._refuse_if_stale(request, order)
            if scope == Scope() and order.only is None and not is_readable(state_dir):
                return _carry_out(lambda: revive_corrupt(state_dir, self._config, source))
            return _carry_out(
                lambda: order_revive(self._observer.page(), scope, part, source), self._unheard()
            )

    async def weight(self, request: Request) -> Response:
        """Set the live canary weight of one candidate."""
        order = await read_body(request, WeightOrder)
        scope = Scope(request.path_params["route"], request.path_params["candidate"])
        weight_bp, source = order.weight_bp(), _source(request, order)
        with self._refusal_logged("weight", scope, weight_bp, source):
            await self._refuse_if_stale(request, order)
            self._refuse_if_alone(scope, weight_bp)
            return _carry_out(
                lambda: order_weight(self._observer.page(), scope, weight_bp, source),
                self._unheard(),
            )

    async def ramp(self, request: Request) -> Response:
        """Give an operator's word to a ramp."""
        # Imported here, as `proxy.control.ramps` does.
        orders = importlib.import_module("proxy.control.ramp_orders")
        order = await read_body(request, RampOrder)
        word, source = request.path_params["word"], _source(request, order)
        if word not in orders.WORDS:
            raise ApiError(404, f"a ramp takes no {word!r}; it takes: {', '.join(orders.WORDS)}")
        driver = self._ramps.driver if self._ramps is not None else None
        scope = Scope(request.path_params["route"], order.candidate or "")
        with self._refusal_logged(f"ramp_{word}", scope, None, source):
            entry = orders.find(driver, scope.route, order.candidate)
            if word in orders.ALWAYS:
                refuse_if_expired(order)
            else:
                await self._refuse_if_stale(request, order)
                self._refuse_if_overtaken(source)
            done = orders.carry_out(driver, entry, word, source, dry_run=order.dry_run)
        if not order.dry_run:
            await orders.settle(driver, entry, done)
        return json_response(done)

    async def labels(self, request: Request) -> Response:
        """Take ground truth, line by line."""
        return json_response(await take_labels(request, self._labels, self._observer.label_counts))

    async def reload(self, request: Request) -> Response:
        """Read the config file again: 200 when it is what runs now, else why it is refused."""
        order = await read_body(request, ReloadOrder)
        refuse_if_expired(order)
        outcome = self._reloader.reload(_source(request, order))
        lagging: list[int] = []
        for _ in range(_FOLLOW_LOOKS):
            lagging = self._observer.lagging(outcome.revision)
            if not lagging:
                break
            await asyncio.sleep(_FOLLOW_S)
        return json_response(outcome_document(outcome, lagging), _RELOAD_STATUS[outcome.result])

    def _unheard(self) -> tuple[str, ...]:
        """Return the warning that other replicas do not hear of an order yet, if that is so."""
        refusal = "" if self._replicas is None else self._replicas.refusal()
        told = f"it holds here, and is told to the other replicas later: {refusal}"
        return (told,) if refusal else ()

    def _refuse_if_alone(self, scope: Scope, weight_bp: int) -> None:
        """Refuse to raise a weight where other replicas would not hear of it."""
        refusal = self._replicas.refusal() if self._replicas is not None else ""
        if not refusal:
            return
        with suppress(StateError, KeyError):
            routes = self._observer.page().read().routes
            if weight_bp <= routes[scope.route].candidates[scope.candidate].weight_bp:
                return
            raise ApiError(
                503, f"nothing was raised: {refusal}; lowering a weight and kill work here"
            )

    def _kill_by_file(self, order: LatchOrder, source: Source, why: str) -> Response:
        is_unreadable = not is_readable(self._observer.state_dir)
        effect = (
            "only the primary serves already, whatever is killed"
            if is_unreadable
            else "NOT IN EFFECT YET: the launcher latches it as soon as it can"
        )
        if order.only is not None:  # a file means mirror and canary
            raise ApiError(503, f"{why}; {effect}; kill without `only` to leave a kill file")
        began_s = monotonic_s()
        try:
            change = kill_by_file(self._observer.state_dir, self._config, order.scope(), source)
        except UnknownScopeError as exc:
            raise ApiError(404, str(exc)) from exc
        except StateError as exc:
            if is_unreadable:
                raise ApiError(503, f"{why}; {exc}; {effect}") from exc
            return self._kill_by_signal(source, f"{why}; {exc}")
        left = f"{why}; a kill file was left ({change.decision.via}); {effect}"
        return _answer(change, began_s, warnings=(left,), is_in_effect=is_unreadable)

    def _kill_by_signal(self, source: Source, why: str) -> Response:
        began_s = monotonic_s()
        try:
            change = kill_by_signal(self._observer.state_dir, source)
        except StateError as exc:
            raise ApiError(503, f"{why}; {exc}") from exc
        told = f"{why}; the launcher was told by SIGUSR1, so everything is killed"
        return _answer(change, began_s, warnings=(told, *self._memory_only()))

    def _memory_only(self) -> tuple[str, ...]:
        """Return what to say of a kill on a disk that cannot be written."""
        if os.access(self._observer.state_dir, os.W_OK | os.X_OK):
            return ()
        told = (
            "the state directory cannot be written: this is in effect in memory, and may not survive a "
            "restart of the instance"
        )
        logger.error("%s", told)
        return (told,)

    @contextmanager
    def _refusal_logged(
        self, action: str, scope: Scope, asked: list[str] | int | None, source: Source
    ) -> Iterator[None]:
        """Put into the decisions log that an order was refused, and why, if the block refuses it."""
        try:
            yield
        except ApiError as exc:
            order = make_decision(action, scope, None, asked, source)
            log_refusal(self._observer.state_dir, order, str(exc))
            raise

    def _refuse_if_overtaken(self, source: Source) -> None:
        try:
            refuse_if_overtaken(self._observer.page(), source)
        except OvertakenError as exc:
            raise ApiError(412, str(exc)) from exc
        except StateError as exc:
            raise ApiError(503, str(exc)) from exc

    async def _refuse_if_stale(self, request: Request, order: Order) -> None:
        """Refuse what would open or raise something and may be older than its giver means."""
        # Two turns of the loop at least, after which the end of a connection has been read, too.
        await asyncio.sleep(_GONE_S)
        if await request.is_disconnected():
            logger.warning("%s dropped: its client has gone", request.url.path)
            raise ApiError(408, "nothing was changed: the client had gone before its order's turn")
        refuse_if_expired(order)
        if order.seen_generation is None and self.pulse.is_doubtful(monotonic_s()):
            raise ApiError(
                503,
                "nothing was changed: control was stopped or has just started, so this order may "
                f"be an old one; give it again in {SETTLE_S:g} s, or with `seen_generation`",
                {"retry-after": f"{SETTLE_S:.0f}"},
            )


def _carry_out(
    order: Callable[[], Change], warnings: tuple[str, ...] = (), *, is_in_effect: bool = True
) -> Response:
    began_s = monotonic_s()
    try:
        change = order()
    except UnknownScopeError as exc:
        raise ApiError(404, str(exc)) from exc
    except WeightError as exc:
        raise ApiError(409, str(exc)) from exc
    except OvertakenError as exc:
        raise ApiError(412, str(exc)) from exc
    except StateError as exc:
        raise ApiError(503, str(exc)) from exc
    return _answer(change, began_s, warnings=warnings, is_in_effect=is_in_effect)


def _answer(
    change: Change, began_s: float, *, warnings: tuple[str, ...] = (), is_in_effect: bool = True
) -> Response:
    decision = change.decision
    logger.warning(
        "%s %s: %s -> %s by %s (%s): %s%s",
        decision.action, decision.scope, decision.old, decision.new, decision.who,
        decision.via, decision.reason, f" [{decision.note}]" if decision.note else "",
    )  # fmt: skip
    if decision.note and not warnings:
        warnings = (decision.note,)
    return json_response(
        {
            "action": decision.action,
            "scope": decision.scope,
            "old": decision.old,
            "new": decision.new,
            "killed": change.killed,
            "opened": change.opened,
            "in_effect": is_in_effect,
            "warnings": warnings,
            "took_ms": round((monotonic_s() - began_s) * 1000, 3),
            "log_error": change.log_error,
        },
        200 if is_in_effect else 202,
    )


def _source(request: Request, order: Order) -> Source:
    actor = request.headers.get(ACTOR_HEADER, "")[:_ACTOR_LENGTH]
    who = "".join(letter for letter in actor if letter.isprintable()).strip() or "unnamed"
    host = request.client.host if request.client else "unknown"
    now_ms = wall_ns() // 1_000_000
    return Source(who, f"api {host}", order.reason, now_ms, order.seen_generation)
