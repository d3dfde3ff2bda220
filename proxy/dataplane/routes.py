"""Routes with everything that their exchanges need, looked up once per configuration.

`Routes` also remembers where requests went: a service has few (method, host, path), so that most are
found without matching anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from proxy.config import resolved
from proxy.config.resolved import Bodies, Route
from proxy.dataplane.canary_guard import CanaryGuard
from proxy.dataplane.copy_gate import CopyGate, bounds_of
from proxy.dataplane.counters import RouteCells
from proxy.dataplane.pairing import LineMaker, Writer
from proxy.dataplane.redaction import redactor_of
from proxy.routing.decide import PRIMARY, make_plan
from proxy.routing.guard import Guard
from proxy.routing.match import Router
from proxy.routing.split import key_reader, needs_body
from proxy.state.control_page import ControlState
from proxy.telemetry import monotonic_s
from proxy.wire.rewrite import Rewrite

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker
    from proxy.wire.request_head import RequestHead

#: Bound of the memo; beyond it, requests are matched afresh.
MAX_KNOWN_PLACES: Final = 4096
#: A longer path is not remembered: clients choose it, and 4096 of 8 KiB would be 32 MiB.
MAX_KNOWN_PATH_BYTES: Final = 256


class RouteContext:
    """A route with everything its exchanges need, looked up once.

    Attributes:
        pools, roles: by candidate number, `PRIMARY` for the primary.
        repeatable: methods of requests that may be sent twice, whatever else is in them.
        gates: by candidate number, what copies to it must pass.
        canary_guards: by candidate number, who takes it out of live traffic when it breaks.
        rewrites, body_rewrites: by candidate number, where something is changed for it.
        keep_limit: bytes of each answer kept for the record; 0 where nothing is recorded.
        makers: by candidate number, who writes its records, and what keeps secrets out of them.
        upgrades: the protocols that are tunnelled, in lower case.
    """

    __slots__ = (
        "body_rewrites", "canary_guards", "capture_limit", "cells", "gates", "guard", "has_pairs",
        "keep_limit", "makers", "plan", "pools", "read_key", "repeatable", "rewrites",
        "roles", "route", "upgrades", "waits_for_body",
    )  # fmt: skip

    def __init__(self, worker: Worker, route: Route, before: RouteContext | None) -> None:
        config = worker.config
        self.route = route
        self.cells = RouteCells(worker.stats.layout, route)
        self.pools = {n: worker.pools[c.backend] for n, c in enumerate(route.candidates)}
        self.pools[PRIMARY] = worker.pools[route.primary]
        self.roles = {n: c.name for n, c in enumerate(route.candidates)} | {PRIMARY: "primary"}
        writer = Writer(
            worker.instance, worker.hash_key, worker.path_mask, redactor_of(config, route)
        )
        self.makers = tuple(
            LineMaker(config, route, n, writer) for n in range(len(route.candidates))
        )
        self.guard = Guard(route.mirror_only)
        self.repeatable = self.guard.repeatable
        self.gates = tuple(
            self._gate(number, config.workers, before) for number in range(len(route.candidates))
        )
        self.canary_guards = tuple(
            self._canary_guard(worker, number, before) for number in range(len(route.candidates))
        )
        self.rewrites = {
            number: Rewrite(candidate.rewrite, route.protocol)
            for number, candidate in enumerate(route.candidates)
            if candidate.rewrite != resolved.Rewrite()
        }
        self.body_rewrites = frozenset(n for n, r in self.rewrites.items() if r.changes_body)
        self.read_key = key_reader(route.split)
        self.waits_for_body = needs_body(route.split) and bool(route.candidates)
        self.has_pairs = bool(route.candidates)
        self.capture_limit = config.limits.mirror_body_bytes if self.has_pairs else 0
        keeps = self.has_pairs and config.record.bodies_of(route) is not Bodies.NONE
        self.keep_limit = config.limits.record_body_bytes if keeps else 0
        self.upgrades = frozenset(name.encode() for name in route.upgrades)
        self.replan(worker.state)

    def replan(self, state: ControlState | None) -> None:
        """Plan for a control state, without the candidates that their guards have taken out."""
        out = [number for number, guard in enumerate(self.canary_guards) if guard.follow(state)]
        self.plan = make_plan(self.route, state, frozenset(out))
        for guard in self.canary_guards:
            guard.release()

    def learn(self) -> None:
        """Let guards take over how slow the primary is."""
        if self.plan.has_canary:
            for guard in self.canary_guards:
                guard.learn()

    def _canary_guard(
        self, worker: Worker, number: int, before: RouteContext | None
    ) -> CanaryGuard:
        """Return the guard of a candidate: the one it had, if nothing that concerns it has changed."""
        candidate = self.route.candidates[number]
        if before is not None:
            for old_number, old in enumerate(before.route.candidates):
                is_same = old.name == candidate.name and old.guard == candidate.guard
                if is_same and before.pools[old_number] is self.pools[number]:
                    return before.canary_guards[old_number]
        name, pool = self.route.name, self.pools[number]
        return CanaryGuard(worker, name, candidate, number, self.cells, pool)

    def _gate(self, number: int, workers: int, before: RouteContext | None) -> CopyGate:
        """Return the gate of a candidate: the one it had, if nothing that concerns it has changed."""
        candidate = self.route.candidates[number]
        if before is not None:
            for old_number, old in enumerate(before.route.candidates):
                is_same = old.name == candidate.name and bounds_of(old) == bounds_of(candidate)
                if is_same and before.pools[old_number] is self.pools[number]:
                    return before.gates[old_number]
        return CopyGate(self.route.name, candidate, workers, monotonic_s())


class Routes:
    """Finds the context of the route that takes a request.

    Args:
        worker: with the config, the pools and the state that the routes are made of.
        before: the routes of the config before this one; None at the start.
    """

    def __init__(self, worker: Worker, before: Routes | None = None) -> None:
        routes = worker.config.routes
        old = {} if before is None else before.by_name()
        self._contexts: dict[str, RouteContext] = {
            route.name: RouteContext(worker, route, old.get(route.name)) for route in routes
        }
        self._router = Router(routes)
        # Where a route looks at fields, the place alone does not say which one takes a request.
        looks_at_fields = any(route.match.headers for route in routes)
        self._known: dict[tuple[bytes, bytes, bytes], RouteContext] | None = (
            None if looks_at_fields else {}
        )

    def by_name(self) -> dict[str, RouteContext]:
        """Return every route's context by the route's name."""
        return self._contexts

    def contexts(self) -> Iterable[RouteContext]:
        """Return every route's context."""
        return self._contexts.values()

    def find(self, head: RequestHead) -> RouteContext | None:
        """Return the context of the route that takes this request."""
        known = self._known
        if known is None:
            route = self._router.match(head.method, head.host, head.path, head.fields)
            return None if route is None else self._contexts[route.name]
        place = head.method, head.host, head.path
        context = known.get(place)
        if context is None:
            route = self._router.match(*place, head.fields)
            if route is not None:
                context = self._contexts[route.name]
                if len(known) < MAX_KNOWN_PLACES and len(head.path) <= MAX_KNOWN_PATH_BYTES:
                    known[place] = context
        return context
