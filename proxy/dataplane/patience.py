"""How long a backend may take, phase by phase, and whose fault it is when the time is up.

    dispatch ──► head ──► pieces of the body ──► last byte
    └ first_byte ┘   └ idle, each ┘                   │
    └──────────── timeout, or of an event stream ─────┘ stream_timeout

No leg has a timer. Each says when it wants to be looked at (`Leg.look_s`); the pool's `expire`
compares that with the clock, and most legs have ended by then. A look compares what has come with
the look before, so that reading an answer costs nothing for it.

Time in which the backend waited for our client is not the backend's: the clocks of first byte and
idle stand still meanwhile, and a whole call that the client used up ends `cancelled`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Backend
from proxy.dataplane.proxy_status import Fault
from proxy.state.stats_page import Outcome

if TYPE_CHECKING:
    from proxy.dataplane.leg import Leg

#: Looks in the shortest time allowed: its end is noticed late by a twentieth of it, and a tick.
LOOKS: Final = 20
#: What a rescue gets at least, as a share of the time that the leg before it was allowed.
RESCUE_SHARE: Final = 0.1


class Seen:
    """What the look before saw.

    Attributes:
        progress: bytes of the body, and one for the head.
        quiet_s: since when the backend has had its turn and sent nothing.
    """

    __slots__ = ("progress", "quiet_s")

    def __init__(self, quiet_s: float) -> None:
        self.progress = 0
        self.quiet_s = quiet_s


def look_every_s(backend: Backend) -> float:
    """Return how often a leg is looked at; a leg is first looked at so long after dispatch."""
    first_s = backend.first_byte_timeout_s or backend.timeout_s
    shortest_s = min(backend.idle_timeout_s, first_s, backend.stream_timeout_s)
    return min(shortest_s / LOOKS, backend.timeout_s)


def look(leg: Leg, now_s: float) -> None:
    """End a leg whose time is up; else say when to look again."""
    if leg.exchange.is_aborted and leg.head is not None and leg.head.is_event_stream:
        leg.fail(Outcome.CANCELLED, "the client has gone, and nobody needs the rest of the stream")
        return
    seen = leg.seen
    if seen is None:
        leg.seen = seen = Seen(leg.begun_s)
    progress = leg.response_bytes + (leg.head is not None)
    if progress != seen.progress or not leg.is_awaited():
        seen.progress, seen.quiet_s = progress, now_s
    backend = leg.pool.backend
    allowed_s = backend.idle_timeout_s if leg.head is not None else backend.first_byte_timeout_s
    whole_s = _whole_until_s(leg)
    quiet_until_s = seen.quiet_s + allowed_s if allowed_s is not None else whole_s
    if whole_s <= now_s:
        _end_whole(leg, now_s)
    elif quiet_until_s <= now_s:
        what = "no more of the answer" if leg.head is not None else "no answer"
        leg.fail(Outcome.TIMEOUT, f"{what} in {allowed_s:g} s", Fault.READ_TIMEOUT)
    else:
        leg.look_s = min(whole_s, quiet_until_s, now_s + look_every_s(backend))


def rescue_until_s(failed: Leg, now_s: float) -> float:
    """Return when the rescue of a failed leg must have answered: within the same deadline.

    A candidate that hangs until its whole deadline leaves nothing of it. The primary is asked all
    the same, and gets a tenth of the deadline on top: most primaries answer within that, and a
    user who has waited 30 s for nothing gains more from an answer a little late than from a 504 on
    time. `first_byte_timeout` of the candidate is there to leave the primary more.
    """
    allowed_s = failed.pool.backend.timeout_s
    return max(failed.begun_s + allowed_s, now_s + RESCUE_SHARE * allowed_s)


def had_its_time(leg: Leg) -> bool:
    """Tell whether a leg whose time was up had all of what its backend is allowed."""
    return leg.end_s < leg.until_s or leg.until_s >= leg.begun_s + _allowed_s(leg)


def _allowed_s(leg: Leg) -> float:
    """Return what the whole call may take, as far as is known by now."""
    head, backend = leg.head, leg.pool.backend
    is_stream = head is not None and head.is_event_stream
    return backend.stream_timeout_s if is_stream else backend.timeout_s


def _whole_until_s(leg: Leg) -> float:
    """Return when the whole call must be over.

    The first leg's deadline holds for the head of its rescue's stream, not for all of it.
    """
    until_s = leg.begun_s + _allowed_s(leg)
    is_stream = leg.head is not None and leg.head.is_event_stream
    return until_s if is_stream else min(until_s, leg.until_s)


def _end_whole(leg: Leg, now_s: float) -> None:
    """End a leg that took too long as a whole; `cancelled` where the client used up the time."""
    allowed_s = min(_allowed_s(leg), leg.until_s - leg.begun_s)
    sentence = f"no whole answer in {allowed_s:g} s"
    hindrance = leg.hindrance(now_s)
    if hindrance:
        leg.fail(Outcome.CANCELLED, f"{hindrance}: {sentence}")
    elif leg.is_held_up():
        leg.fail(Outcome.TIMEOUT, f"{sentence}: the request is not read", Fault.WRITE_TIMEOUT)
    else:
        leg.fail(Outcome.TIMEOUT, sentence, Fault.RESPONSE_TIMEOUT)
