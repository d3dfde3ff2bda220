"""A plan of three steps and what may be seen on the way, for tests of the ramp's core."""

from __future__ import annotations

from typing import Any, Final

from proxy.comparison.verdict import Outcome
from proxy.config.resolved import Gate, Ramp, Step
from proxy.ramp.policy import Sight
from proxy.ramp.state import Cause

MIN_PAIRS: Final = 100
MIN_S: Final = 60.0
MAX_S: Final = 600.0
PLAN: Final = Ramp(
    steps=(
        Step(100, MIN_PAIRS, MIN_S, MAX_S, "auto"),
        Step(2_500, MIN_PAIRS, MIN_S, MAX_S, "manual"),
        Step(10_000, MIN_PAIRS, MIN_S, MAX_S, "auto"),
    ),
    gates=(Gate("agreement", 0.01, 0.0),),
)
START_MS: Final = 1_700_000_000_000


def good(now_s: float, live_bp: int = 0, **changes: Any) -> Sight:
    """Return a sight at which every step passes, `now_s` after the start; `changes` make it worse."""
    fields: dict[str, Any] = {
        "outcome": Outcome.PROMOTE,
        "reason": "within_margin",
        "pairs": MIN_PAIRS,
        "is_fresh": True,
    }
    return Sight(START_MS + round(now_s * 1000), live_bp, **{**fields, **changes})


def by_operator(now_s: float = 0.0, live_bp: int = 0) -> Cause:
    """Return an operator's cause, `now_s` after the start."""
    return Cause("ada", "try it", START_MS + round(now_s * 1000), live_bp)
