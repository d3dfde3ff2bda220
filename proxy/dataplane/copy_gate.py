"""What a candidate's copies must pass before they are sent: its breaker and its rate.

One per candidate of a route and worker. Live traffic passes no gate: it has the primary to fall
back on, and its failures are the ramp's to judge.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxy.config import resolved
from proxy.config.resolved import Candidate
from proxy.routing.breaker import Breaker, Ending
from proxy.routing.rate import Bucket
from proxy.state.stats_page import Outcome

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

logger = logging.getLogger("understudy.worker")

_ENDINGS = {
    Outcome.OK: Ending.ANSWERED,
    Outcome.HTTP_ERROR: Ending.ANSWERED,
    Outcome.TIMEOUT: Ending.FAILED,
    Outcome.CONNECT_ERROR: Ending.FAILED,
    Outcome.RESET: Ending.FAILED,
}


def bounds_of(candidate: Candidate) -> tuple[resolved.Breaker, float, float]:
    """Return all of a candidate that its gate is made of."""
    return candidate.breaker, candidate.mirror_rate, candidate.timeout_s


class CopyGate:
    """The gate of one candidate.

    Attributes:
        breaker: asked before each copy, and told how it ended.
        bucket: gives each copy a token, where there is a rate.
        timeout_s: of a copy; 0: the backend's.
    """

    __slots__ = ("_name", "breaker", "bucket", "timeout_s")

    def __init__(self, route: str, candidate: Candidate, workers: int, now_s: float) -> None:
        self._name = f"{route}/{candidate.name}"
        self.breaker = Breaker(candidate.breaker)
        rate = (
            candidate.mirror_rate / workers
        )  # connections are spread: `proxy.dataplane.accepting`
        self.bucket = Bucket(rate, now_s) if rate else None
        self.timeout_s = candidate.timeout_s

    def ended(self, leg: Leg) -> None:
        """Tell the breaker how a copy ended; say so when it opens or closes."""
        breaker, outcome = self.breaker, leg.status
        was_closed = breaker.is_closed
        # A pooled connection that was closed while it idled says nothing about the candidate.
        ending = Ending.NEITHER if leg.is_stale else _ENDINGS.get(outcome, Ending.NEITHER)
        breaker.end(leg.turn, ending, leg.end_s)
        if was_closed is breaker.is_closed:
            return
        if was_closed:
            open_for_s = breaker.statistics().open_for_s
            logger.warning(
                "%s: no answer to its copies (%s); none for %g s", self._name, outcome, open_for_s
            )
        else:
            logger.warning("%s: its copies are answered again", self._name)
