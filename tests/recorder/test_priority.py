"""The recorder goes last: it must never take the processor from a worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxy.recorder import priority
from proxy.recorder.priority import Punctuality, Stopwatch
from proxy.recorder.sink import SinkState, SinkStatus
from proxy.recorder.starvation import Took
from proxy.telemetry import queued_s
from tests.support.deadline import START_PATIENCE_S

_CHILD = """
import os
from proxy.recorder.priority import step_back
before = os.nice(0)
step_back(7)
print(os.nice(0) - before, os.sched_getscheduler(0) == os.SCHED_BATCH)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux tells the scheduler")
def test_it_is_nicer_and_interrupts_nobody() -> None:
    """In a process of its own: a priority that was given up does not come back."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_PATIENCE_S,
    )
    assert done.stdout.split() == ["7", "True"]


#: One process wants all of a core, another one steps back and wants a little of it.
_STARVED = """
import os, subprocess, sys
from proxy.recorder.priority import Stopwatch, step_back
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    step_back(19)
    watch = Stopwatch()
    while (took := watch.took()).all_s < 1.0:
        pass
finally:
    busy.kill()
print(took.is_starved)
"""


@pytest.mark.skipif(queued_s() is None, reason="this kernel counts nobody's waiting (sched-stats)")
def test_whoever_gets_no_processor_knows_it() -> None:
    """Beside a process that wants the same core."""
    done = subprocess.run(
        [sys.executable, "-c", _STARVED],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_PATIENCE_S,
    )
    assert done.stdout.split() == ["True"]


def test_half_of_the_time_is_the_border() -> None:
    """Waiting for something else is no lack of processors."""
    assert Took(10.0, 6.0).is_starved
    assert not Took(10.0, 4.0).is_starved
    assert not Took(0.0, 0.0).is_starved


def test_a_system_that_does_not_tell_starves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that is not Linux."""
    monkeypatch.setattr(priority, "queued_s", lambda: None)
    assert Stopwatch().took().queued_s == 0.0


def test_whoever_is_late_for_want_of_a_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not who is on time, nor who is late for another reason, which goes first."""
    monkeypatch.setattr(priority, "queued_s", lambda: 0.0)
    well, down = SinkStatus(SinkState.OK), SinkStatus(SinkState.BROKER_DOWN, "no broker")
    punctuality = Punctuality()
    assert punctuality.judge(well, 60.0) is well
    monkeypatch.setattr(priority, "queued_s", lambda: 3_600.0)
    starved = punctuality.judge(well, 60.0)
    assert starved.state is SinkState.STARVED
    assert "3600.0 s for one" in starved.message
    assert "record.niceness" in starved.remedy
    assert punctuality.judge(down, 60.0) is down
    assert punctuality.judge(well, None) is well, "it has only just begun"
    monkeypatch.setattr(priority, "LATE_S", 0.0)
    assert punctuality.judge(well, None).state is SinkState.STARVED
    monkeypatch.setattr(priority, "LATE_S", 5.0)
    assert punctuality.judge(well, 0.5) is well
    assert punctuality.judge(well, 60.0) is well, "it was on time since"
