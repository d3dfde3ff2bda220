"""Copies of a request that no user waits for: mirrors, the primary's while a candidate serves, replicates.

They start when the request body is whole. What was decided and is not sent is counted with its
reason, so that the ledger adds up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.leg import Leg, ShadowLeg
from proxy.routing.decide import PRIMARY
from proxy.state.control_page import Part
from proxy.state.stats_page import Skip
from proxy.telemetry import monotonic_s
from proxy.wire.trace_context import (
    CANDIDATE as SPAN_CANDIDATE,
    PRIMARY as SPAN_PRIMARY,
    REPLICATE as SPAN_REPLICATE,
)
from proxy.wire.upstream_body import whole_framing
from proxy.wire.upstream_head import leg_head

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


def start_copies(exchange: Exchange) -> None:
    """Start every copy that was decided, or count why it was skipped."""
    decision, cells = exchange.decision, exchange.worker.cells
    assert decision is not None
    for number in decision.pairs:
        cells[exchange.context.cells.candidates[number].decided] += 1
    for number in decision.mirrors:
        counters = exchange.context.cells.candidates[number]
        cells[counters.mirror_decided] += 1
        reason = _copy_to(exchange, number)
        cells[counters.mirror_skipped[reason] if reason else counters.mirror_sent] += 1
    if decision.mirror_primary and PRIMARY not in exchange.legs:
        _copy_to(exchange, PRIMARY)
    if decision.replicate and exchange.skip is None and not _is_killed(exchange, PRIMARY):
        exchange.replicate = _start(exchange, PRIMARY, "replicate")


def _copy_to(exchange: Exchange, number: int) -> Skip | None:
    """Start a copy of the request; else note why not, and return it."""
    reason = exchange.skip
    if reason is None and _is_killed(exchange, number):
        reason = Skip.KILLED
    if reason is None and _start(exchange, number) is None:
        reason = Skip.IN_FLIGHT
    if reason is not None:
        exchange.shed(number, reason)
    return reason


def _is_killed(exchange: Exchange, number: int) -> bool:
    """Tell whether copies to this backend were killed after the decision."""
    context = exchange.context
    if exchange.plan is context.plan:
        return False
    name = "" if number == PRIMARY else context.roles[number]
    return exchange.worker.is_killed(context.route.name, name, Part.MIRROR)


def _start(exchange: Exchange, number: int, role: str = "") -> Leg | None:
    """Start a copy of the request; None when the backend's in-flight cap is reached.

    Copies to the primary may take half of its cap: the rest is for users.
    """
    pool = exchange.context.pools[number]
    if pool.is_full() or (number == PRIMARY and 2 * pool.in_flight >= pool.backend.max_in_flight):
        return None
    assert exchange.captured is not None
    leg = ShadowLeg(exchange, role or exchange.context.roles[number], pool)
    if not role:
        exchange.legs[number] = leg
    exchange.live += 1
    worker = exchange.worker
    worker.shadows.add(leg)
    span = (
        SPAN_REPLICATE if role else SPAN_PRIMARY if number == PRIMARY else SPAN_CANDIDATE + number
    )
    trace = exchange.trace_line(span)
    framing = whole_framing(exchange.head.method, exchange.received_bytes)
    pieces = [leg_head(exchange.shared, trace, framing, mirror=True), *exchange.captured]
    leg.start(pieces, monotonic_s(), is_whole=True)
    return leg
