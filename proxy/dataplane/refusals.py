"""What the proxy itself answers: refusals of requests, and sentences for backends that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dataplane.proxy_status import Fault, status_line
from proxy.state.stats_page import Outcome, Reject
from proxy.wire.body import ChunkError
from proxy.wire.partial_head import HeadFault
from proxy.wire.request_head import TARGET_TOO_LONG, Refusal

if TYPE_CHECKING:
    from proxy.dataplane.leg import ServingLeg

NO_ROUTE: Final = Refusal(404, Reject.NO_ROUTE, "No route takes this request.")
BARE_LINE_END: Final = Refusal(
    400, Reject.BAD_REQUEST, "The head has a CR or LF by itself (RFC 9112 section 2.2)."
)
UPGRADE_WITH_BODY: Final = Refusal(
    400, Reject.BAD_REQUEST, "A request that asks for another protocol may not have a body here."
)
#: RFC 9110 section 15.5.9.
SLOW_HEAD: Final = Refusal(408, Reject.TIMEOUT, "The head did not come in time.")
SLOW_BODY: Final = Refusal(408, Reject.TIMEOUT, "The body stopped coming.")
#: For a connection above the cap; it is no request yet, so it has no counter as one.
CROWDED: Final = "Too many connections; try again."


def head_too_large(limit: int) -> Refusal:
    """Return the refusal of a head over `limit` bytes."""
    return Refusal(431, Reject.HEAD_TOO_LARGE, f"The head is over {limit} bytes.")


def partial_head_refused(fault: HeadFault, limit: int) -> Refusal:
    """Return the refusal of a head that was given up before it was whole."""
    if fault is HeadFault.TARGET_TOO_LONG:
        return TARGET_TOO_LONG
    return BARE_LINE_END if fault is HeadFault.BARE_LINE_END else head_too_large(limit)


def body_too_large(limit: int) -> Refusal:
    """Return the refusal of a body over `limit` bytes."""
    return Refusal(413, Reject.BODY_TOO_LARGE, f"The body is over {limit} bytes.")


def bad_chunks(error: ChunkError) -> Refusal:
    """Return the refusal of a body that is not what its coding says."""
    return Refusal(400, Reject.BAD_REQUEST, f"Malformed body: {error}.")


#: The `Proxy-Status` of a user above the backend's `max_in_flight`.
FULL_LINE: Final = status_line(Fault.LIMIT_REACHED)


def failure(leg: ServingLeg) -> tuple[int, str, bytes]:
    """Return (status, sentence, `Proxy-Status` line) for a serving leg that failed."""
    received = leg.head.status if leg.head is not None else None
    if leg.status is Outcome.CANCELLED and not leg.exchange.is_whole:
        # The backend could not answer what it had not been asked yet.
        return SLOW_BODY.status, SLOW_BODY.detail, status_line(Fault.REQUEST_ERROR)
    if leg.status is Outcome.TIMEOUT:
        line = status_line(leg.fault or Fault.RESPONSE_TIMEOUT, received)
        return 504, "The backend did not answer in time.", line
    if leg.status is Outcome.CONNECT_ERROR:
        fault = leg.fault or Fault.REFUSED
        status = 504 if fault is Fault.CONNECT_TIMEOUT else 502
        return status, "The backend could not be reached.", status_line(fault)
    line = status_line(leg.fault or Fault.TERMINATED, received)
    return 502, "The backend broke the connection.", line
