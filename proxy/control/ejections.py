"""What workers' guards have found, as their stats pages tell it, and which of it still holds. Pure.

A finding holds until its candidate's canary is revived: the note bears the number of revivals that its
worker went by, so that neither clocks nor the order in which things are read decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.state.control_page import CandidateState, ControlState, RouteState
from proxy.state.stats_file import StatsPage
from proxy.state.stats_page import GUARD_NOTE, Note


@dataclass(frozen=True, slots=True)
class Ejection:
    """A candidate that a worker's guard has taken out of live traffic.

    Attributes:
        mark: one more than the revivals that the worker went by.
        failed, slow: the bad calls of the burst.
        calls: from the first of them to the last, good ones included.
        span_s: from the first of them to the last.
        at_ms: when it was taken out; wall clock, milliseconds.
    """

    worker: int
    route: str
    candidate: str
    mark: int
    failed: int
    slow: int
    calls: int
    span_s: float
    at_ms: int

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route}/{self.candidate}"

    @property
    def words(self) -> str:
        """Why it was taken out, in numbers."""
        return (
            f"guard of worker {self.worker}: {self.failed + self.slow} of {self.calls} live calls in "
            f"{self.span_s:.3f} s were bad ({self.failed} failed, {self.slow} too slow)"
        )


def ejection_on(page: StatsPage, worker: int, route: str, candidate: str) -> Ejection | None:
    """Return what a worker's page says of a candidate; None where its guard has found nothing."""
    cell = page.layout.get(GUARD_NOTE, route, candidate, Note.MARK)
    mark = 0 if cell is None else page.cells[cell]
    if not mark:
        return None
    failed, slow, calls, span_us, at_ms = (
        page.get(GUARD_NOTE, route, candidate, what)
        for what in (Note.FAILED, Note.SLOW, Note.CALLS, Note.SPAN_US, Note.AT_MS)
    )
    return Ejection(worker, route, candidate, mark, failed, slow, calls, span_us / 1e6, at_ms)


def standing(found: Iterable[Ejection], state: ControlState) -> dict[str, Ejection]:
    """Return the first ejection of each candidate that no revive has answered, by name."""
    held: dict[str, Ejection] = {}
    for each in sorted(found, key=lambda each: each.at_ms):
        route = state.routes.get(each.route, RouteState())
        now = route.candidates.get(each.candidate, CandidateState())
        if each.mark == now.revivals + 1:
            held.setdefault(each.name, each)
    return held
