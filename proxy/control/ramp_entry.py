"""One candidate that may be ramped, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.config.resolved import Candidate, Ramp, Route
from proxy.control.ramp_files import Kept
from proxy.ramp.phases import JUDGED
from proxy.ramp.window import Judgement


@dataclass(slots=True)
class Entry:
    """One candidate that may be ramped; `waits` says why it does not move."""

    route: Route
    candidate: Candidate
    plan: Ramp
    kept: Kept
    waits: str = ""
    trouble: str = ""
    judged: Judgement = field(default_factory=Judgement)

    @property
    def name(self) -> str:
        """`route/candidate`."""
        return f"{self.route.name}/{self.candidate.name}"


def told(entry: Entry) -> dict[str, Any]:
    """Return what the status tells of it; `judged_by` is empty where this instance judges, and now."""
    state, judged = entry.kept.state, entry.judged
    gates: list[dict[str, Any]] = []
    if judged.verdict is not None and state.phase in JUDGED:
        for gate, by in zip(judged.verdict.gates, judged.verdict.params.gates, strict=True):
            standing: dict[str, Any] = orjson.loads(orjson.dumps(gate.standing))
            said = {"metric": gate.metric, "outcome": gate.outcome, "reason": gate.reason}
            gates.append({**said, **standing, "margin": by.margin, "acts_at": 1 / by.alpha})
    return {
        "phase": state.phase,
        "words": state.words,
        "step": state.step + 1,
        "steps": len(entry.plan.steps),
        "weight_bp": state.weight_bp,
        "entered_ms": state.entered_ms,
        "who": state.who,
        "why": state.why,
        "waits": entry.waits if state.phase in JUDGED else "",
        "trouble": entry.trouble,
        "outcome": judged.outcome if state.phase in JUDGED else None,
        "pairs": judged.pairs if state.phase in JUDGED else 0,
        "is_fresh": judged.is_fresh and state.phase in JUDGED,
        "gates": gates,
        "judged_by": "",
        "judged_ms": None,
    }
