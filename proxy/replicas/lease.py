"""For how long a replica may take what it knows for what is so. Pure.

A replica that has read its own beat has read all that was in the topic when that beat was sent. So what it
knows is as old as the latest beat that came back, by the time it was *sent* at: after a long stop (SIGSTOP,
a machine that sleeps or swaps) an old beat may still come out of a socket, and says nothing of now. Beyond
the lease's length another one may lead.

A stop itself is noticed by whoever looks first after it: by the clock, since nothing else tells it. From
then on only a beat counts that was sent afterwards. No clock tells of some pauses of a virtual machine;
what is decided after one holds no more than anything else of a term that is over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Of the length: a gap between two looks that is a stop. A group gives the lead away no sooner than after
#: three quarters: its members beat four times in that time.
STOP: Final = 0.5
#: Beats on their way that are remembered; four are sent in the time of a lease.
_MOST_SENT: Final = 64


class Lease:
    """The lease of one replica.

    Args:
        length_s: how old what is known may be.
    """

    __slots__ = ("_known_s", "_length_s", "_looked_s", "_sent", "_woke_s")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._sent: deque[tuple[int, float]] = deque(maxlen=_MOST_SENT)
        self._known_s: float | None = None
        self._looked_s: float | None = None
        self._woke_s = float("-inf")

    def look(self, now_s: float) -> bool:
        """Take note that this process runs; return whether it had stood still."""
        has_stopped = self._has_stopped(now_s)
        if has_stopped:
            self._woke_s = now_s
        self._looked_s = now_s
        return has_stopped

    def sent(self, number: int, now_s: float) -> None:
        """Take note of a beat; each has a higher number."""
        self._sent.append((number, now_s))

    def came_back(self, number: int) -> None:
        """Take note that a beat has come through the topic."""
        while self._sent and self._sent[0][0] <= number:
            found, sent_s = self._sent.popleft()
            if found == number:
                self._known_s = sent_s

    def holds(self, now_s: float) -> bool:
        """Return whether what is known may be acted on."""
        if self._known_s is None or self._known_s < self._woke_s or self._has_stopped(now_s):
            return False
        return now_s - self._known_s <= self._length_s

    def age_s(self, now_s: float) -> float | None:
        """Return how old what is known is; None before the first beat has come back."""
        return None if self._known_s is None else now_s - self._known_s

    def _has_stopped(self, now_s: float) -> bool:
        return self._looked_s is not None and now_s - self._looked_s > STOP * self._length_s
