"""What a snapshot says of one candidate, for the status, the problems and the metrics. Pure."""

from __future__ import annotations

from typing import Any

from proxy.control.ejections import Ejection, standing
from proxy.control.snapshot import Snapshot
from proxy.routing.breaker import State


def ramp_of(snapshot: Snapshot, route: str, candidate: str) -> dict[str, Any]:
    """Return what the driver of ramps saw last of a candidate; idle before it has."""
    found: dict[str, Any] = snapshot.ramps.get(f"{route}/{candidate}", {})
    return {"phase": "idle", "words": "idle", "step": 0, "pairs": 0, "waits": "", **found}


def breaker_word(snapshot: Snapshot, route: str, candidate: str) -> str:
    """Return the state of a candidate's breaker: closed, half_open or open, the worst worker's."""
    return State(snapshot.counters.get(("breaker", route, candidate), 0)).name.lower()


def ejection_of(snapshot: Snapshot, route: str, candidate: str) -> Ejection | None:
    """Return what a guard has taken a candidate out for; None when it has not, or it was revived."""
    if snapshot.state is None:
        return None
    return standing(snapshot.ejections, snapshot.state).get(f"{route}/{candidate}")
