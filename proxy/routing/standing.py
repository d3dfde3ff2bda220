"""Whether an endpoint gets calls: ejected for failed calls, down for failed checks, slow to return.

    SERVING ── calls fail in a row ──► EJECTED ── its time is over ──► SERVING
    either ── checks fail ──► DOWN ── checks pass ──► SERVING

A return is slow: the part of the calls that an endpoint gets grows from a tenth to the whole, so
that a model that has just been loaded is not met by all of its traffic (Envoy's slow start). Each
ejection lasts longer than the one before by the first time, up to a bound, and a time without
failures as long as the ejection before takes one step back (Envoy's outlier detection).

Pure: what happened and when comes as arguments.
"""

from __future__ import annotations

from enum import Enum

from proxy.config.resolved import Ejection, HealthCheck

#: The part of the calls at the beginning of a slow return.
FIRST_PART = 0.1


class State(Enum):
    """Where an endpoint stands."""

    SERVING = "it gets calls"
    EJECTED = "calls to it failed: it is left alone for a while"
    DOWN = "checks of it fail"


class Event(Enum):
    """What changes that."""

    FAILED = "calls failed in a row"
    TIME_OVER = "its time out is over"
    CHECKS_FAILED = "checks failed in a row"
    CHECKS_PASSED = "checks passed in a row"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.SERVING, Event.FAILED): State.EJECTED,
    (State.SERVING, Event.CHECKS_FAILED): State.DOWN,
    (State.SERVING, Event.CHECKS_PASSED): State.SERVING,
    (State.EJECTED, Event.TIME_OVER): State.SERVING,
    (State.EJECTED, Event.CHECKS_FAILED): State.DOWN,
    (State.EJECTED, Event.CHECKS_PASSED): State.EJECTED,
    (State.DOWN, Event.CHECKS_FAILED): State.DOWN,
    (State.DOWN, Event.CHECKS_PASSED): State.SERVING,
}


class Standing:
    """The standing of one endpoint.

    Attributes:
        failures: failed calls in a row.
        ejections: how often it was ejected, ever.
        part: of the calls that it would get, how many it gets, in [0.1, 1].
    """

    __slots__ = (
        "_checks", "_ejection", "_health", "_returned_s", "_steps", "_until_s", "ejections",
        "failures", "part", "state",
    )  # fmt: skip

    def __init__(self, ejection: Ejection, health: HealthCheck | None) -> None:
        self._ejection = ejection
        self._health = health
        self.state = State.SERVING
        self.failures = 0
        self.ejections = 0
        self.part = 1.0
        #: Checks in a row: positive that passed, negative that failed.
        self._checks = 0
        self._steps = 0
        self._until_s = 0.0
        #: Since when it is back; 0.0: it was never away.
        self._returned_s = 0.0

    @property
    def is_serving(self) -> bool:
        """Tell whether it gets calls."""
        return self.state is State.SERVING

    def call_failed(self, now_s: float, *, may_eject: bool) -> None:
        """Count a call that failed; eject where that are too many and enough others are left."""
        self.failures += 1
        limit = self._ejection.failures
        if limit and self.failures >= limit and may_eject and self.is_serving:
            self._steps += 1
            self.ejections += 1
            first_s, longest_s = self._ejection.first_s, self._ejection.longest_s
            self._until_s = now_s + min(first_s * self._steps, longest_s)
            self._apply(Event.FAILED, now_s)

    def check_ended(self, now_s: float, *, has_passed: bool) -> None:
        """Count an active check."""
        assert self._health is not None
        if has_passed:
            self._checks = max(1, self._checks + 1)
            if self._checks >= self._health.healthy_after:
                self._apply(Event.CHECKS_PASSED, now_s)
        else:
            self._checks = min(-1, self._checks - 1)
            if -self._checks >= self._health.unhealthy_after:
                self._apply(Event.CHECKS_FAILED, now_s)

    def look(self, now_s: float) -> None:
        """Let time do its work; called by the worker's tick."""
        if self.state is State.EJECTED and now_s >= self._until_s:
            self._apply(Event.TIME_OVER, now_s)
        if self._returned_s:
            self._grow(now_s)

    def _grow(self, now_s: float) -> None:
        slow_s, back_s = self._ejection.slow_start_s, now_s - self._returned_s
        self.part = min(1.0, max(FIRST_PART, back_s / slow_s)) if slow_s else 1.0
        quiet_s = min(self._ejection.first_s * self._steps, self._ejection.longest_s)
        if self._steps and not self.failures and back_s >= quiet_s:
            self._steps -= 1
            self._returned_s = now_s - slow_s  # the next step back takes as long again
        elif not self._steps and self.part == 1.0:
            self._returned_s = 0.0

    def _apply(self, event: Event, now_s: float) -> None:
        """Go where the table says; an event that is not in it raises and changes nothing."""
        before, self.state = self.state, TRANSITIONS[self.state, event]
        if self.state is State.SERVING and before is not State.SERVING:
            self.failures = 0
            self._returned_s = now_s
            self._grow(now_s)
