"""When copies to a candidate are given up, and tried again. Pure: time is an argument.

    closed ──tripped──► open ──waited──► half-open ──recovered──► closed
                          ▲                  │
                          └─────relapsed─────┘

A candidate that does not answer costs a connection, an in-flight place and a body in memory until
its deadline, for each copy. After `failures` in a row the breaker opens and no copy is sent for
`open_for_s`; then `probes` copies go out, and if all are answered the others follow. If one is not,
it opens again for twice as long, up to `max_open_for_s`.

In a row, not as a share of a window: what must be found out is "nobody is there", and a candidate
that answers now and then still yields pairs, while `max_in_flight` and its timeout bound what it
costs. It is also one comparison per copy and no clock while it is closed (Envoy's outlier detection
counts the same way, 5 by default).

An HTTP error is an answer, 5xx too: it came in time, it freed what it held, and that the candidate
answers so is what the pairs are to show. A breaker that opened on it would hide the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.config import resolved


class State(Enum):
    """What becomes of copies; the value is what the gauge shows, the worst the highest."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Event(Enum):
    """What moves a breaker."""

    TRIPPED = "as many failures in a row as it takes"
    WAITED = "the time without copies is over"
    RECOVERED = "all probes were answered"
    RELAPSED = "a probe failed"


class Ending(Enum):
    """How a copy ended, as far as the breaker cares."""

    ANSWERED = "whole, be it with an error"
    FAILED = "without an answer"
    NEITHER = "in a way that says nothing about the candidate, such as cancelled by us"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.RECOVERED): State.CLOSED,
    (State.HALF_OPEN, Event.RELAPSED): State.OPEN,
}


class UnknownEventError(Exception):
    """An event that the state does not know; a fault of ours, and nothing has changed."""


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A snapshot.

    Attributes:
        failures: in a row, while it is closed.
        probing: probes under way.
        open_for_s: how long it is, or next time will be, open.
    """

    state: State
    failures: int
    probing: int
    open_for_s: float


class Breaker:
    """The breaker of one candidate's copies in one worker.

    Attributes:
        is_closed: copies pass; all that a copy looks at as long as the candidate answers.
        is_calm: closed, and the last copy did not fail: one more answer changes nothing.
        turn: counts the transitions. A copy belongs to the turn in which it was sent: what ends
            later than its turn is history, and moves nothing.
    """

    __slots__ = (
        "_answered", "_failures", "_limits", "_open_for_s", "_probing", "_state", "_until_s",
        "is_calm", "is_closed", "turn",
    )  # fmt: skip

    def __init__(self, limits: resolved.Breaker) -> None:
        self._limits = limits
        self._state = State.CLOSED
        self.is_closed = self.is_calm = True
        self.turn = 0
        self._failures = self._probing = self._answered = 0
        self._open_for_s = limits.open_for_s
        self._until_s = 0.0

    def statistics(self) -> BreakerStatistics:
        """Return a snapshot."""
        return BreakerStatistics(self._state, self._failures, self._probing, self._open_for_s)

    @property
    def state(self) -> State:
        """Return the state; an open one whose time is over moves on with the next copy only."""
        return self._state

    def admits(self, now_s: float) -> bool:
        """Tell whether a copy may be sent at `now_s` (monotonic); may go from open to half-open."""
        if self.is_closed:
            return True
        if self._state is State.OPEN:
            if now_s < self._until_s:
                return False
            self._move(Event.WAITED)
        return self._probing + self._answered < self._limits.probes

    def begin(self) -> int:
        """Note that an admitted copy is sent; return the turn it belongs to."""
        if not self.is_closed:
            self._probing += 1
        return self.turn

    def end(self, turn: int, ending: Ending, now_s: float) -> None:
        """Note how a copy of `turn` ended, at `now_s` (monotonic)."""
        if turn != self.turn:
            return
        if self.is_closed:
            self._count(ending, now_s)
        else:
            self._judge_probe(ending, now_s)

    def _count(self, ending: Ending, now_s: float) -> None:
        if ending is Ending.ANSWERED:
            self._failures = 0
            self.is_calm = True
        elif ending is Ending.FAILED:
            self._failures += 1
            self.is_calm = False
            if self._failures == self._limits.failures:
                self._open(Event.TRIPPED, now_s)

    def _judge_probe(self, ending: Ending, now_s: float) -> None:
        self._probing -= 1
        if ending is Ending.FAILED:
            self._open_for_s = min(2 * self._open_for_s, self._limits.max_open_for_s)
            self._open(Event.RELAPSED, now_s)
        elif ending is Ending.ANSWERED:
            self._answered += 1
            if self._answered == self._limits.probes:
                self._open_for_s = self._limits.open_for_s
                self._move(Event.RECOVERED)

    def _open(self, event: Event, now_s: float) -> None:
        self._move(event)
        self._until_s = now_s + self._open_for_s

    def _move(self, event: Event) -> None:
        after = TRANSITIONS.get((self._state, event))
        if after is None:
            raise UnknownEventError(f"{event.name} means nothing while {self._state.name}")
        self._state = after
        self.is_closed = self.is_calm = after is State.CLOSED
        self.turn += 1
        self._failures = self._probing = self._answered = 0
