"""The books of an ended exchange: each leg and each pair is counted exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.routing.decide import PRIMARY
from proxy.state.stats_page import NOT_SENT, OK, Lost

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


def settle_accounts(exchange: Exchange) -> None:
    """Count the legs of an exchange that is over, and journal its pairs."""
    decision, worker, context = exchange.decision, exchange.worker, exchange.context
    assert decision is not None
    cells, legs = worker.cells, exchange.legs
    if worker.access_log is not None:
        worker.access_log.exchange_over(exchange)
    route = context.cells
    cells[route.request_bytes] += exchange.received_bytes
    if exchange.serving is not None:
        cells[route.response_bytes] += exchange.serving.response_bytes
    primary = legs.get(PRIMARY)
    if primary is not None and primary.head is not None:
        route.ttfb.observe(primary.first_s - primary.begun_s)
        if primary.is_answered():
            route.latency.observe(primary.end_s - primary.begun_s)
    for number in decision.pairs:
        counters = context.cells.candidates[number]
        leg = legs.get(number)
        status = leg.status if leg is not None else NOT_SENT
        is_ok = status is OK
        cells[counters.leg_ok if is_ok else counters.leg[status]] += 1
        if leg is not None and leg.head is not None:
            counters.ttfb.observe(leg.first_s - leg.begun_s)
            if leg.is_answered():
                counters.latency.observe(leg.end_s - leg.begun_s)
        if exchange.plan.is_recorded[number]:
            worker.journal_pair(exchange, context.makers[number], counters)
        else:
            cells[counters.lost[Lost.KILLED]] += 1
    if decision.serving != PRIMARY and primary is not None:
        context.canary_guards[decision.serving].settle(legs.get(decision.serving), primary)
