"""The recorder steps back for whoever serves users.

It wakes with every flush of a worker and then computes for about a millisecond; on a machine whose
cores are all in use, that millisecond would be taken from a worker or from a model in the middle of a
request. A pair can wait: it is in the journal.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from proxy.recorder.sink import SinkState, SinkStatus
from proxy.recorder.starvation import Took, starved
from proxy.telemetry import monotonic_s, queued_s

#: What is delivered so long after it was journaled is late; it takes a second or two as a rule.
LATE_S: Final = 5.0


def step_back(niceness: int) -> None:
    """Let every process of usual priority go first; where the system forbids it, nothing happens.

    Args:
        niceness: 10 is a share of about a tenth of a core against one process of usual priority, and all
            of an idle core.
    """
    with suppress(OSError):
        os.nice(niceness)
    if hasattr(os, "SCHED_BATCH"):  # Linux: a wake-up does not interrupt others (sched(7))
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def step_aside() -> None:
    """Offer the processor to whoever waits for it; about 0.5 us when nobody does.

    A process of low priority still keeps a core for its slice, up to 3 ms, once it has it (sched(7)).
    """
    os.sched_yield()


class Stopwatch:
    """Measures from its making on, for the thread that made it."""

    def __init__(self) -> None:
        self._began_s = monotonic_s()
        self._queued_s = queued_s() or 0.0

    def took(self) -> Took:
        """Return what it has been until now; never starved where the system does not tell."""
        return Took(monotonic_s() - self._began_s, (queued_s() or 0.0) - self._queued_s)


class Punctuality:
    """Tells whether a recorder is late for want of a processor, whatever its sink says of itself."""

    def __init__(self) -> None:
        self._since_on_time = Stopwatch()

    def judge(self, found: SinkStatus, lag_s: float | None) -> SinkStatus:
        """Return how a sink is doing that delivers `lag_s` after the journaling; None: not known."""
        if lag_s is not None and lag_s < LATE_S:
            self._since_on_time = Stopwatch()
            return found
        took = self._since_on_time.took()
        is_late = lag_s is not None or took.all_s > LATE_S
        is_starved = is_late and took.is_starved and found.state is SinkState.OK
        return starved(took) if is_starved else found
