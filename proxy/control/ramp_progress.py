"""What a ramp's plan asks of the step that it is in, and how much time is left. Pure.

Told beside what the driver saw last, for the status document and whoever shows it; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from proxy.config.resolved import Ramp
from proxy.ramp.phases import Phase

#: Phases in which the clock of a step runs.
_TIMED: Final = frozenset({Phase.SHADOW, Phase.STEPPING, Phase.HOLDING})


def progress(plan: Ramp, told: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return the plan's weights, what the present step asks for, and its times.

    `elapsed_s`, `wait_s` (until `min_duration` is over, at least 0) and `expires_s` (until it is rolled
    back, at least 0; None where the plan has no limit) are None while no clock runs. `judged_s` is how long
    ago another replica said what the gates say; None where this one does.

    Args:
        plan: of the config that runs.
        told: what the driver saw last.
        now_ms: wall clock, milliseconds.
    """
    number = min(max(int(told["step"]), 1), len(plan.steps)) - 1
    step = plan.steps[number]  # in the shadow, the times and pairs of the first count
    elapsed_s = wait_s = expires_s = None
    if told["phase"] in _TIMED:
        elapsed_s = max(0, now_ms - int(told["entered_ms"])) / 1000
        wait_s = max(0.0, step.min_duration_s - elapsed_s)
        if step.max_duration_s:
            expires_s = max(0.0, step.max_duration_s - elapsed_s)
    judged_ms = told.get("judged_ms")
    return {
        "judged_s": None if judged_ms is None else max(0, now_ms - int(judged_ms)) / 1000,
        "weights_bp": [each.weight_bp for each in plan.steps],
        "min_pairs": step.min_pairs,
        "approval": step.approval,
        "elapsed_s": elapsed_s,
        "wait_s": wait_s,
        "expires_s": expires_s,
    }
