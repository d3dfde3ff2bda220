"""The recorder steps back for whoever serves users.

It wakes with every flush of a worker and then computes for about a millisecond; on a machine whose
cores are all in use, that millisecond would be taken from a worker or from a model in the middle of a
request. A pair can wait: it is in the journal.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

#: A share of about a tenth of a core against a process of usual priority, and all of an idle one.
NICENESS: Final = 10


def step_back() -> None:
    """Let every process of usual priority go first; where the system forbids it, nothing happens."""
    with suppress(OSError):
        os.nice(NICENESS)
    if hasattr(os, "SCHED_BATCH"):  # Linux: a wake-up does not interrupt others (sched(7))
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def step_aside() -> None:
    """Offer the processor to whoever waits for it; about 0.5 us when nobody does.

    A process of low priority still keeps a core for its slice, up to 3 ms, once it has it (sched(7)).
    """
    os.sched_yield()
