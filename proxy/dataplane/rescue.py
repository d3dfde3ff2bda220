"""A serving leg that failed, and another in its place: a retry, or the rescue of a canary.

Both only while the client has seen nothing of an answer and the whole request so far is still in
memory, which one without a body always is, and both inside the deadline of the leg that failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dataplane.patience import rescue_until_s
from proxy.routing.decide import PRIMARY
from proxy.state.stats_page import Outcome

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.leg import ServingLeg

#: From here on it is the backend's fault (RFC 9110 section 15.6).
FIRST_FAULT_STATUS: Final = 500
#: What is kept from the user of an error answer that the primary's may replace; a longer one passes.
WITHHELD_BYTES: Final = 64 * 1024
#: Methods that may be sent again when nobody knows whether they arrived (RFC 9110 section 9.2.2).
IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


def replace_failed(exchange: Exchange, leg: ServingLeg) -> bool:
    """Start another leg in place of one that has ended, where that is right; tell whether it was."""
    if leg.status is Outcome.OK or not _is_untold(exchange, leg):
        return False
    if leg.status is Outcome.CANCELLED:  # the client's own doing, or a shutdown
        return False
    if leg.is_stale and _may_retry(exchange):
        _retry(exchange, leg)
        return True
    if _can_rescue(exchange, leg):
        _rescue(exchange, leg)
        return True
    return False


def could_rescue(exchange: Exchange, leg: ServingLeg) -> bool:
    """Tell whether the primary would be asked if this canary, which is under way, failed now."""
    return _is_untold(exchange, leg) and _can_rescue(exchange, leg)


def _is_untold(exchange: Exchange, leg: ServingLeg) -> bool:
    """Tell whether the client waits, has seen nothing of an answer, and its request is in memory."""
    if leg.has_answered or exchange.is_aborted:
        return False
    return exchange.captured is not None or not exchange.received_bytes


def _may_retry(exchange: Exchange) -> bool:
    """Tell whether a request may be sent again after its pooled connection was closed on it.

    Once, and only where asking twice does no harm: the backend may have read it before it closed. Harmless
    is what HTTP says is idempotent, and what the route says may be sent twice, since it is mirrored.
    """
    if exchange.is_retried:
        return False
    declared = exchange.context.has_pairs and exchange.may_repeat
    return declared or exchange.head.method in IDEMPOTENT


def _retry(exchange: Exchange, failed: ServingLeg) -> None:
    """Send the request again on a new connection."""
    assert exchange.decision is not None
    exchange.is_retried = True
    failed.pool.retried += 1
    exchange.pending = list(exchange.captured or ())
    number = PRIMARY if exchange.is_rescued else exchange.decision.serving
    leg = exchange.start_serving(number, is_fresh=True)
    leg.begun_s, leg.until_s = failed.begun_s, failed.until_s
    leg.take_over_client()


def _can_rescue(exchange: Exchange, leg: ServingLeg) -> bool:
    """A canary that failed before its first byte reached the user (DESIGN section 3).

    A request that may not be sent twice is asked again only if it was not sent at all.
    """
    if not exchange.may_repeat and (leg.sent_s or exchange.is_retried):
        return False
    copy = exchange.legs.get(PRIMARY)
    has_copy = copy is not None and not copy.is_over
    return leg is not copy and (has_copy or not exchange.context.pools[PRIMARY].is_full())


def _rescue(exchange: Exchange, failed: ServingLeg) -> None:
    """Ask the primary; the user sees its answer, the candidate is charged with the failure."""
    assert exchange.decision is not None
    exchange.count_rescue(exchange.decision.serving)
    exchange.is_retried = False  # the primary's pooled connection may be stale, too
    copy = exchange.legs.get(PRIMARY)
    exchange.pending = list(exchange.captured or ())
    leg = exchange.start_serving(PRIMARY)
    leg.until_s = rescue_until_s(failed, leg.begun_s)
    leg.look_s = min(leg.look_s, leg.until_s)
    leg.take_over_client()
    if copy is not None and not copy.is_over:  # its answer comes with the rescue
        copy.fail(Outcome.CANCELLED, "replaced by the rescue")
