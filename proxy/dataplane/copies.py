"""Copies of a request that no user waits for: mirrors, the primary's while a candidate serves, replicates.

They start when the request body is whole. What was decided and is not sent is counted with its
reason, so that the ledger adds up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.leg import Leg
from proxy.dataplane.proxy_status import Fault
from proxy.routing.decide import PRIMARY
from proxy.state.control_page import Part
from proxy.state.stats_page import NOT_SENT, Kept, Outcome, Skip
from proxy.telemetry import monotonic_s
from proxy.wire.rewrite import MAX_REWRITTEN_BYTES
from proxy.wire.trace_context import (
    CANDIDATE as SPAN_CANDIDATE,
    PRIMARY as SPAN_PRIMARY,
    REPLICATE as SPAN_REPLICATE,
)
from proxy.wire.upstream_body import whole_framing
from proxy.wire.upstream_head import leg_head

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.pool import Pool
    from proxy.routing.decide import Decision
    from proxy.wire.response_head import ResponseHead

#: A leg that a limit of ours kept back is `shed`; for other reasons it is `not_sent`.
#: `OVERLOAD` is none of these, for the sake of the split's evidence: `shed_copies`.
_LIMITS = frozenset(
    {Skip.BODY_TOO_LARGE, Skip.BREAKER_OPEN, Skip.IN_FLIGHT, Skip.MEMORY, Skip.RATE}
)


class ShadowLeg(Leg):
    """A copy whose answer no user sees; no more of it is read than `limits.mirror_response`.

    Without that bound an endless answer would cost the worker, and so its users, until the copy's
    deadline as much time as its backend likes.
    """

    __slots__ = ("_allowed_bytes", "_limit_bytes")

    def __init__(self, exchange: Exchange, role: str, pool: Pool) -> None:
        super().__init__(exchange, role, pool)
        self._limit_bytes: int = exchange.worker.mirror_response_limit
        self._allowed_bytes = self._limit_bytes

    def response_head(self, head: ResponseHead) -> None:
        """Keep the head; an answer that says that it will be too long may not even begin."""
        super().response_head(head)
        if (head.length or 0) > self._limit_bytes:
            self._allowed_bytes = -1

    def flush(self) -> None:
        """End when the answer is longer than the bound, or says that it will be."""
        if self.response_bytes > self._allowed_bytes:
            error = f"the answer has more than {self._limit_bytes} bytes (limits.mirror_response)"
            self.fail(Outcome.RESET, error, Fault.BODY_SIZE)


def start_copies(exchange: Exchange) -> None:
    """Start every copy that was decided, or count why it was skipped."""
    decision, worker = exchange.decision, exchange.worker
    cells = worker.cells
    assert decision is not None
    if worker.is_shedding and decision.alone is not None:
        decision = shed_copies(exchange, decision)
    for number in decision.pairs:
        cells[exchange.context.cells.candidates[number].decided] += 1
    for number in decision.mirrors:
        counters = exchange.context.cells.candidates[number]
        cells[counters.mirror_decided] += 1
        reason = _copy_to(exchange, number)
        cells[counters.mirror_skipped[reason] if reason else counters.mirror_sent] += 1
    if decision.mirror_primary and PRIMARY not in exchange.legs:
        _copy_to(exchange, PRIMARY)
    if decision.replicate and _refusal(exchange, PRIMARY, 0.0) is None:
        exchange.replicate = _start(exchange, PRIMARY, monotonic_s(), "replicate")


def shed_copies(exchange: Exchange, decision: Decision) -> Decision:
    """Make no copy, because the worker is overloaded; return the decision that is left.

    Unlike a copy that one candidate's bounds keep back, this leaves no record of its own: a record would
    cost a quarter of what is spared, and everybody waits for it. It is counted instead, as a mirror that
    was skipped and a pair that was lost, so that the ledger adds up. What a candidate *serves* keeps its
    record, with a primary that was `not_sent`, as where a request may not be asked twice: so the
    evidence of the split leaves out both sides alike.

    Nor is the body kept where the primary serves, but for a retry that is likely (`Exchange._begin`): memory
    that is given back at once stays in the caches, and all users are 3% faster.
    """
    left = decision.alone
    assert left is not None
    for number in decision.mirrors:
        exchange.context.cells.candidates[number].shed += 1
    exchange.decision = left
    if decision.serving == PRIMARY:
        exchange.keep_limit = 0
    elif PRIMARY not in exchange.legs:
        exchange.shed(PRIMARY, Skip.OVERLOAD)
    return left


def _copy_to(exchange: Exchange, number: int) -> Skip | None:
    """Start a copy of the request; else note why not, and return it."""
    now_s = monotonic_s()
    reason = _refusal(exchange, number, now_s)
    if reason is None:
        _start(exchange, number, now_s)
    else:
        exchange.shed(number, reason)
    return reason


def _refusal(exchange: Exchange, number: int, now_s: float) -> Skip | None:
    """Return why no copy may go to this backend now; the rate, which counts it, comes last.

    Copies to the primary may take half of its in-flight cap: the rest is for users.
    """
    if exchange.skip is not None:
        return exchange.skip
    context = exchange.context
    if exchange.plan is not context.plan and _is_killed(exchange, number):
        return Skip.KILLED
    pool = context.pools[number]
    if number == PRIMARY:
        return Skip.IN_FLIGHT if 2 * pool.in_flight >= pool.backend.max_in_flight else None
    gate = context.gates[number]
    if not gate.breaker.is_closed and not gate.breaker.admits(now_s):
        return Skip.BREAKER_OPEN
    if pool.is_full():
        return Skip.IN_FLIGHT
    return None if gate.bucket is None or gate.bucket.take(now_s) else Skip.RATE


def _is_killed(exchange: Exchange, number: int) -> bool:
    """Tell whether copies to this backend were killed after the decision."""
    context = exchange.context
    name = "" if number == PRIMARY else context.roles[number]
    return exchange.worker.is_killed(context.route.name, name, Part.MIRROR)


def _start(exchange: Exchange, number: int, now_s: float, role: str = "") -> Leg:
    """Start a copy of the request; with a `role` of its own it is none of the exchange's `legs`."""
    context, worker, body = exchange.context, exchange.worker, exchange.captured
    assert body is not None
    leg = ShadowLeg(exchange, role or context.roles[number], context.pools[number])
    if not role:
        exchange.legs[number] = leg
    exchange.live += 1
    worker.shadows.add(leg)
    span = (
        SPAN_REPLICATE if role else SPAN_PRIMARY if number == PRIMARY else SPAN_CANDIDATE + number
    )
    trace = exchange.trace_line(span)
    shared, size = exchange.shared, exchange.received_bytes
    if number in context.rewrites:
        shared, body, size = rewritten(exchange, number, body)
    framing = whole_framing(exchange.head.method, size)
    timeout_s = 0.0
    if number != PRIMARY:
        leg.gate = gate = context.gates[number]
        leg.turn = gate.breaker.begin()
        timeout_s = gate.timeout_s
    leg.start([leg_head(shared, trace, framing, mirror=True), *body], now_s, is_whole=True)
    if timeout_s:
        leg.until_s = now_s + timeout_s
        leg.look_s = min(leg.look_s, leg.until_s)
    return leg


def rewritten(exchange: Exchange, number: int, body: list[bytes]) -> tuple[bytes, list[bytes], int]:
    """Return the shared block, the body and its size as the candidate gets them.

    Args:
        exchange: the request's.
        number: of a candidate that has a rewrite.
        body: whole, if the rewrite changes bodies.
    """
    context, size = exchange.context, exchange.received_bytes
    rewrite = context.rewrites[number]
    shared = rewrite.block(exchange.head, exchange.request_id, exchange.client.peer_lines)
    if not (rewrite.changes_body and body):
        return shared, body, size
    if size > MAX_REWRITTEN_BYTES:
        found: bytes | Kept = Kept.TOO_LARGE
    else:
        found = rewrite.body(body[0] if len(body) == 1 else b"".join(body))
    if isinstance(found, bytes):
        # Held beyond the limit too: at most one body of a bounded size at a time passes it.
        exchange.held += len(found)
        exchange.worker.held_bytes += len(found)
        return shared, [found], len(found)
    exchange.worker.cells[context.cells.candidates[number].model_kept[found]] += 1
    return shared, body, size


def never_started(exchange: Exchange, role: str, pool: Pool, reason: Skip) -> Leg:
    """Return a leg that was decided and not started, for the record, with its reason."""
    leg = Leg(exchange, role, pool)
    leg.is_over, leg.error = True, reason.value
    leg.status = Outcome.SHED if reason in _LIMITS else NOT_SENT
    return leg
