"""What the proxy itself answers: refusals of requests, and sentences for backends that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.state.stats_page import Outcome, Reject
from proxy.wire.request_head import Refusal

if TYPE_CHECKING:
    from proxy.dataplane.leg import ServingLeg

#: Fields in a head; nginx has no limit of its own here, Apache takes 100, Envoy 100.
MAX_FIELDS: Final = 100
#: Bytes of a request target; Apache and nginx take 8 KiB.
MAX_TARGET_BYTES: Final = 8 * 1024

TARGET_TOO_LONG: Final = Refusal(
    414, Reject.URI_TOO_LONG, f"The request target is over {MAX_TARGET_BYTES} bytes."
)
NO_ROUTE: Final = Refusal(404, Reject.NO_ROUTE, "No route takes this request.")
NO_UPGRADE: Final = Refusal(501, Reject.UNSUPPORTED, "Upgrade is not supported.")
CHUNKS_TOO_LONG: Final = Refusal(
    400, Reject.BAD_REQUEST, "The chunk extensions or trailers are too long."
)


def head_too_large(limit: int) -> Refusal:
    """Return the refusal of a head over `limit` bytes or over `MAX_FIELDS` fields."""
    detail = f"The head is over {limit} bytes or {MAX_FIELDS} fields."
    return Refusal(431, Reject.HEAD_TOO_LARGE, detail)


def body_too_large(limit: int) -> Refusal:
    """Return the refusal of a body over `limit` bytes."""
    return Refusal(413, Reject.BODY_TOO_LARGE, f"The body is over {limit} bytes.")


def failure(leg: ServingLeg) -> tuple[int, bytes, str]:
    """Return (status, RFC 9209 error, sentence) for a serving leg that failed."""
    if leg.status is Outcome.TIMEOUT:
        return 504, b"http_response_timeout", "The backend did not answer in time."
    if leg.status is Outcome.CONNECT_ERROR:
        return 502, b"connection_refused", "The backend could not be reached."
    return 502, b"connection_terminated", "The backend broke the connection."
