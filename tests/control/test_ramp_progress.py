"""How far a ramp is in its step: what is asked, and the time that is left."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.resolved import Gate, Ramp, Step
from proxy.control.ramp_progress import progress

PLAN = Ramp(
    (Step(100, 10, 60.0, 600.0, "auto"), Step(10_000, 500, 0.0, 0.0, "manual")),
    (Gate("availability", 0.01, 0.0),),
    None,
    None,
)


def _told(phase: str, step: int) -> dict[str, Any]:
    return {"phase": phase, "step": step, "entered_ms": 1_000}


@pytest.mark.parametrize("step", [0, 1])
def test_the_clock_runs_to_both_ends(step: int) -> None:
    """In the shadow, the first step's times count; none goes below 0."""
    phase = "stepping" if step else "shadow"
    soon = progress(PLAN, _told(phase, step), 21_000)
    assert (soon["elapsed_s"], soon["wait_s"], soon["expires_s"]) == (20.0, 40.0, 580.0)
    assert (soon["weights_bp"], soon["min_pairs"]) == ([100, 10_000], 10)
    late = progress(PLAN, _told(phase, step), 9_001_000)
    assert (late["wait_s"], late["expires_s"]) == (0.0, 0.0)
    assert progress(PLAN, _told(phase, step), 0)["elapsed_s"] == 0.0


def test_a_step_without_a_limit_does_not_expire() -> None:
    """And says that an operator has the last word."""
    found = progress(PLAN, _told("holding", 2), 2_000)
    assert (found["expires_s"], found["approval"], found["min_pairs"]) == (None, "manual", 500)


@pytest.mark.parametrize("phase", ["idle", "promoted", "paused", "rolled_back"])
def test_no_clock_runs_where_nothing_is_waited_for(phase: str) -> None:
    """A step that the plan does not have any more is its last one."""
    found = progress(PLAN, _told(phase, 7), 2_000)
    assert (found["elapsed_s"], found["wait_s"], found["expires_s"]) == (None, None, None)
    assert found["min_pairs"] == 500


def test_what_another_replica_judges_has_an_age() -> None:
    """Never a negative one, whatever the clocks say."""
    told = _told("stepping", 1)
    assert progress(PLAN, told, 21_000)["judged_s"] is None
    assert progress(PLAN, told | {"judged_ms": 18_000}, 21_000)["judged_s"] == 3.0
    assert progress(PLAN, told | {"judged_ms": 22_000}, 21_000)["judged_s"] == 0.0
