"""The recorder goes last: it must never take the processor from a worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxy.recorder.priority import NICENESS

_CHILD = """
import os
from proxy.recorder.priority import step_back
before = os.nice(0)
step_back()
print(os.nice(0) - before, os.sched_getscheduler(0) == os.SCHED_BATCH)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux tells the scheduler")
def test_it_is_nicer_and_interrupts_nobody() -> None:
    """In a process of its own: a priority that was given up does not come back."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.split() == [str(NICENESS), "True"]
