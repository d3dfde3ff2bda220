"""When a worker has so much to do that it makes no copies. Pure: time is an argument.

    calm ──queued──► shedding ──caught up──► calm

A mirrored request costs a worker some 2.5 times one that is only forwarded, and all users of the worker
wait behind the copies. While requests queue up, copies are what can be left out.

Two signs together say that they do. *Lag*: how late the worker's event loop comes to what is due, which is
what each user waits there. *Queue*: requests per second times lag, which is how many of them wait at a
time (Little's law). Lag alone would be no sign of load: the machine stands still now and then, a neighbour
takes the processor, a body of 8 MB or a thousand streams of events make a turn long; fewer copies would
shorten none of that. And no more requests wait than clients have under way: up to `LEAST_QUEUE` of them
are all mirrored, however slow the machine and however long their bodies.

What is not copied then is counted and not recorded. So pairs are a sample of the other times: those of the
busiest minutes, when a model may do worse, are missing, and no `sample_weight` makes up for that.

Each look is clipped and smoothed, so that one stall, or two, of any length does not count. After a late
look the next ones come quickly (`look` says so): three or four decide.

It ends when lag or queue has been below half its limit for `FIRST_HOLD_S`, and copies would fit: a worker
that is busy for more than `ROOM` of the time without them would be overloaded with them at once. What else
keeps it busy (streams that go on, say) may be none of that, so after `LONGEST_HOLD_S` without signs it ends
in any case. Where the copies make the overload nevertheless, it begins again at once; then the wait is twice
as long, up to `LONGEST_HOLD_S`. So trying costs users less than one request in a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Requests that wait at a time; 32 clients who ask as fast as they are answered have 5 to 15.
LEAST_QUEUE: Final = 32.0
#: Weight of a look in the mean.
_WEIGHT: Final = 0.25
#: A look counts as no more than so many limits: then two in a row stay below one.
_CLIP: Final = 2.0
#: To begin with, and at most, in seconds without signs until copies are made again.
FIRST_HOLD_S: Final = 1.0
LONGEST_HOLD_S: Final = 32.0
#: Share of a core, without copies, that leaves room for them: a mirrored request costs 2.5 times as much.
ROOM: Final = 0.4
#: Seconds over which a worker's use of its core is averaged, while it makes no copies.
_USE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class OverloadStatistics:
    """A snapshot.

    Attributes:
        lag_s, queue: smoothed.
        use: share of a core that is used without copies; 1.0 while they are made.
        hold_s: how long signs must stay away.
        begun: how often it began.
    """

    lag_s: float
    queue: float
    use: float
    hold_s: float
    begun: int


class Overload:
    """Tells whether one worker is overloaded.

    Attributes:
        is_shedding: it is: no new copies.
    """

    __slots__ = (
        "_begun", "_busy_s", "_ended_s", "_hold_s", "_lag_s", "_limit_s", "_queue", "_then_s",
        "_use", "_used_s", "is_shedding",
    )  # fmt: skip

    def __init__(self, limit_s: float, now_s: float) -> None:
        """Begin calm.

        Args:
            limit_s: lag above which requests may be said to wait; 0: there is never overload.
            now_s: monotonic seconds.
        """
        self._limit_s = limit_s
        self._lag_s = self._queue = 0.0
        self._then_s = self._busy_s = self._ended_s = now_s
        self._hold_s = FIRST_HOLD_S
        self._begun = 0
        self._use, self._used_s = 1.0, 0.0
        self.is_shedding = False

    def statistics(self) -> OverloadStatistics:
        """Return a snapshot."""
        return OverloadStatistics(self._lag_s, self._queue, self._use, self._hold_s, self._begun)

    def look(self, late_s: float, requests: int, used_s: float, now_s: float) -> bool:
        """Take one look at the event loop; return whether the next should come soon.

        Args:
            late_s: how much later than planned it comes.
            requests: that have come since the last look.
            used_s: processor time of the worker, ever.
            now_s: monotonic seconds; a time that has passed changes nothing.
        """
        span_s = now_s - self._then_s
        if not self._limit_s or span_s <= 0:
            return False
        self._then_s = now_s
        late_s = max(late_s, 0.0)
        self._note_use(used_s, span_s)
        waiting = min(requests * min(late_s / span_s, 1.0), _CLIP * LEAST_QUEUE)
        self._queue += _WEIGHT * (waiting - self._queue)
        self._lag_s += _WEIGHT * (min(late_s, _CLIP * self._limit_s) - self._lag_s)
        if self.is_shedding:
            self._look_for_the_end(now_s)
            return False
        if self._is_above(1.0):
            self._begin(now_s)
            return False
        return late_s > self._limit_s / 2

    def _is_above(self, share: float) -> bool:
        """Tell whether lag and queue both are above a share of their limits."""
        return self._lag_s > share * self._limit_s and self._queue > share * LEAST_QUEUE

    def _note_use(self, used_s: float, span_s: float) -> None:
        """Average the share of a core that is used; with copies it says nothing of what is without."""
        weight = min(span_s / _USE_S, 1.0)
        share = min((used_s - self._used_s) / span_s, 1.0)
        self._used_s = used_s
        self._use = self._use + weight * (share - self._use) if self.is_shedding else 1.0

    def _begin(self, now_s: float) -> None:
        self.is_shedding = True
        self._begun += 1
        self._busy_s = now_s
        is_again = self._begun > 1 and now_s - self._ended_s < self._hold_s
        self._hold_s = min(2 * self._hold_s, LONGEST_HOLD_S) if is_again else FIRST_HOLD_S

    def _look_for_the_end(self, now_s: float) -> None:
        if self._is_above(0.5):
            self._busy_s = now_s
            return
        hold_s = self._hold_s if self._use < ROOM else LONGEST_HOLD_S
        if now_s - self._busy_s >= hold_s:
            self.is_shedding = False
            self._ended_s = now_s
