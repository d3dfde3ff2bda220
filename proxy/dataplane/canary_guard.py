"""The guard of a candidate's live traffic in one worker: a burst of bad calls takes it out at once.

    a call fails, or is too slow ─► burst? ─► out: no user is sent there from the next request on
                                              ├─ who waits for it for too long gets the primary's answer
                                              └─ a note on the stats page ─► control kills its canary

Gates need pairs, recorders and minutes. This needs none of them, nor control: it acts in the turn of
the event loop in which the burst is whole. What a burst is says `proxy.routing.burst`.

Bad is what is charged to the candidate (no connection, reset, time-out, 5xx), and an answer whose
first byte takes longer than `latency_s`, which is noticed while the call still waits for it. What our
client did, what we shed, what our own loop slept through (the process was stopped, the machine was
asleep), and what the primary has failed in just as well is not.

The note outlives the worker, so that its successor does not forget, and holds until the canary is
revived (`CandidateState.revivals`), whether control has been alive to read it or not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Candidate
from proxy.dataplane.counters import RouteCells
from proxy.dataplane.leg import NEVER_S, Leg, ServingLeg
from proxy.dataplane.patience import had_its_time
from proxy.dataplane.pool import Pool
from proxy.dataplane.proxy_status import Fault
from proxy.dataplane.rescue import could_rescue
from proxy.routing.burst import Burst, Found
from proxy.state.control_page import CandidateState, ControlState, Part, RouteState
from proxy.state.stats_page import HTTP_ERROR, OK, Note, Outcome
from proxy.telemetry import monotonic_s, wall_ns

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker

#: From here on an error answer is the backend's own fault (RFC 9110 section 15.6).
FIRST_FAULT_STATUS: Final = 500
#: Where the config names no latency: so many times the primary's percentile, and at least so long. A
#: candidate may be a larger model and is cold at first; what is meant is one that hangs.
TIMES_PRIMARY: Final = 10.0
PERCENTILE: Final = 0.99
LEAST_LATENCY_S: Final = 1.0
#: Answers of the primary that a percentile is taken of, at least.
MIN_ANSWERS: Final = 100

logger = logging.getLogger("understudy.worker")


class CanaryGuard:
    """The guard of one candidate of one route.

    Attributes:
        is_out: the candidate has been taken out, and not been revived since.
        is_shut: nobody is sent there: it is out, or its canary is killed by whomever.
        latency_s: time to the first byte above which a call is too slow; infinite: not known.

    Args:
        worker: whose live calls are guarded.
        route: the route's name.
        candidate: whose limits hold.
        number: of the candidate in the route.
        cells: of the route.
        pool: of the candidate.
    """

    __slots__ = (
        "_burst", "_candidate", "_cells", "_limits", "_number", "_pool", "_route", "_worker",
        "is_out", "is_shut", "latency_s",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        route: str,
        candidate: Candidate,
        number: int,
        cells: RouteCells,
        pool: Pool,
    ) -> None:
        self._worker = worker
        self._route = route
        self._candidate = candidate.name
        self._limits = candidate.guard
        self._number = number
        self._cells = cells
        self._pool = pool
        self._burst = Burst(candidate.guard)
        self.is_out = self.is_shut = False
        self.latency_s: float = NEVER_S

    # What the control page says, and what the primary's answers do.

    def follow(self, state: ControlState | None) -> bool:
        """Take over a control state; tell whether the candidate is out. Without one nothing changes."""
        if state is not None:
            cells, notes = self._worker.cells, self._cells.candidates[self._number].guard_note
            mark = cells[notes[Note.MARK]]
            if mark and mark != self._standing(state).revivals + 1:
                cells[notes[Note.MARK]] = mark = 0
                logger.warning("%s/%s: revived; it may serve again", self._route, self._candidate)
            if not mark and self.is_out:
                self._burst.clear()
            self.is_out = bool(mark)
            killed = state.killed_parts(self._route, self._candidate)
            self.is_shut = self.is_out or bool(killed & Part.CANARY)
        self.learn()
        return self.is_out

    def release(self) -> None:
        """Let nobody wait for too long any more for a candidate to which nobody is sent."""
        if not self.is_shut:
            return
        now_s = monotonic_s()
        for leg in self._pool.legs():
            if isinstance(leg, ServingLeg) and leg.guard is self and self._is_late(leg, now_s):
                self._give_up(leg, now_s)

    def learn(self) -> None:
        """Take over how slow the primary is, where the config names no latency."""
        latency_s, cells = self._limits.latency_s, self._worker.cells
        if latency_s is None:
            primary_s = self._cells.ttfb.percentile_s(cells, PERCENTILE, MIN_ANSWERS)
            latency_s = (
                0.0 if primary_s is None else max(LEAST_LATENCY_S, TIMES_PRIMARY * primary_s)
            )
        if not self._limits.failures:
            latency_s = 0.0
        self.latency_s = latency_s or NEVER_S
        cells[self._cells.candidates[self._number].guard_latency] = int(latency_s * 1e6)

    # What live calls tell.

    def asked(self, leg: ServingLeg, now_s: float) -> None:
        """The candidate has been sent the whole of a user's request: its time runs from here."""
        leg.asked_s = now_s
        leg.look_s = min(leg.look_s, now_s + self.latency_s)

    def due_s(self, leg: ServingLeg) -> float:
        """Return when a call must be looked at again (monotonic)."""
        is_waiting = leg.head is None and leg.asked_s > 0.0
        return leg.asked_s + self.latency_s if is_waiting else NEVER_S

    def look(self, leg: ServingLeg, now_s: float) -> None:
        """Look at a call under way: it may have waited for too long for its first byte.

        It counts again after as long again: else one user alone would wait for the whole timeout of a
        candidate that hangs, where the guard asks for five bad calls.
        """
        if not self._is_late(leg, now_s):
            return
        if not self.is_shut:
            leg.asked_s = now_s
            self._count_bad(leg, now_s, is_slow=True)
        elif not leg.is_over:
            self._give_up(leg, now_s)

    def ended(self, leg: ServingLeg) -> None:
        """Count a call that has ended."""
        if leg.guard_number or self.is_shut:
            return
        status = leg.status
        if status is OK or (status is HTTP_ERROR and not has_failed(leg)):
            if leg.asked_s and leg.first_s - leg.asked_s > self.latency_s and self._was_awake(leg):
                self._count_bad(leg, leg.end_s, is_slow=True)
            else:
                self._burst.calls += 1
        elif has_failed(leg) and (status is not Outcome.TIMEOUT or self._was_awake(leg)):
            self._count_bad(leg, leg.end_s, is_slow=False)

    def settle(self, leg: Leg | None, primary: Leg) -> None:
        """Forgive a bad call if the primary did no better with the same request."""
        if isinstance(leg, ServingLeg) and leg.guard_number:
            is_slow = (
                primary.head is not None and primary.first_s - primary.begun_s > self.latency_s
            )
            if is_slow or has_failed(primary):
                self._burst.forgive(leg.guard_number)

    # A burst.

    def _count_bad(self, leg: ServingLeg, now_s: float, *, is_slow: bool) -> None:
        cells, counters = self._worker.cells, self._cells.candidates[self._number]
        if not leg.guard_number:
            cells[counters.guard_slow if is_slow else counters.guard_failed] += 1
        found = self._burst.bad(now_s, is_slow=is_slow)
        leg.guard_number = self._burst.calls
        if found is not None:
            self._eject(found)

    def _eject(self, found: Found) -> None:
        state = self._worker.state
        if state is None:  # the page has become unreadable: only the primary serves
            return
        self._note(found, self._standing(state).revivals + 1)
        logger.error(
            "%s/%s: %d of %d live calls in %.3f s were bad (%d failed, %d too slow); it serves nobody "
            "any more, until it is revived",
            self._route, self._candidate, found.failed + found.slow, found.calls, found.span_s,
            found.failed, found.slow,
        )  # fmt: skip
        self._worker.replan(self._route)

    def _note(self, found: Found, mark: int) -> None:
        """Write down what was found, for control, and for whoever counts here after this worker."""
        cells, counters = self._worker.cells, self._cells.candidates[self._number]
        note = counters.guard_note
        cells[note[Note.FAILED]] = found.failed
        cells[note[Note.SLOW]] = found.slow
        cells[note[Note.CALLS]] = found.calls
        cells[note[Note.SPAN_US]] = int(found.span_s * 1e6)
        cells[note[Note.AT_MS]] = wall_ns() // 1_000_000
        cells[note[Note.MARK]] = mark  # last: whoever reads it finds the others
        cells[counters.guard_ejections] += 1

    def _standing(self, state: ControlState) -> CandidateState:
        route = state.routes.get(self._route, RouteState())
        return route.candidates.get(self._candidate, CandidateState())

    def _was_awake(self, leg: ServingLeg) -> bool:
        """Tell whether our own loop never stood still during a call that has just ended."""
        worker = self._worker
        return leg.begun_s >= worker.standstill.resumed_s and not worker.standstill.lasts(leg.end_s)

    def _is_late(self, leg: ServingLeg, now_s: float) -> bool:
        is_waiting = leg.head is None and not leg.is_over and leg.asked_s > 0.0
        if not is_waiting or self._worker.standstill.lasts(now_s):
            return False
        since_s = max(leg.asked_s, self._worker.standstill.resumed_s)
        return now_s >= since_s + self.latency_s or (self.is_shut and leg.guard_number > 0)

    def _give_up(self, leg: ServingLeg, now_s: float) -> None:
        """End a late call so that the primary answers, if it may be asked; else the user waits on."""
        if not could_rescue(leg.exchange, leg):
            leg.asked_s = 0.0
            return
        leg.until_s = now_s  # less than what the backend is allowed: no word against its endpoint
        why = f"no answer in {self.latency_s:g} s (guard), and the candidate serves nobody any more"
        leg.fail(Outcome.TIMEOUT, why, Fault.READ_TIMEOUT)


def has_failed(leg: Leg) -> bool:
    """Tell whether a call that is over failed by its backend's doing.

    What was closed while it idled does not count, nor a deadline shorter than what the backend is
    allowed, nor what we shed or cancelled.
    """
    status, head = leg.status, leg.head
    if status is HTTP_ERROR:
        return head is not None and head.status >= FIRST_FAULT_STATUS
    if status is Outcome.TIMEOUT:
        return had_its_time(leg)
    if status is Outcome.RESET:
        return not leg.is_stale and leg.fault is not Fault.BODY_SIZE
    return status is Outcome.CONNECT_ERROR
