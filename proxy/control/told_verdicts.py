"""Which verdicts on ramps go into the decisions log by themselves: each that says something new. Pure.

A ramp is judged twice a second, and every transition carries its verdict. What is left to tell is that
the gates say something else than before. Evidence at a threshold may go to and fro, so a ramp tells at
most one a minute; `halt` is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.comparison.verdict import Outcome, Verdict

#: Between two verdicts of a ramp that are told.
PAUSE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class _Told:
    outcome: Outcome
    reason: str
    at_ms: int


class ToldVerdicts:
    """Remembers what was last told of each ramp."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def news(self, name: str, verdict: Verdict, now_ms: int) -> tuple[str | None, str] | None:
        """Return the outcome that was told before (None: none) and the one to tell now; None: nothing.

        Args:
            name: `route/candidate`.
            verdict: what the gates say now.
            now_ms: wall clock, milliseconds.
        """
        last = self._told.get(name)
        if last is not None:
            if (last.outcome, last.reason) == (verdict.outcome, verdict.reason):
                return None
            if verdict.outcome is not Outcome.HALT and now_ms - last.at_ms < PAUSE_MS:
                return None
        self._told[name] = _Told(verdict.outcome, verdict.reason, now_ms)
        return (None if last is None else str(last.outcome)), str(verdict.outcome)

    def forget(self, name: str) -> None:
        """Begin anew: another step has its own verdicts."""
        self._told.pop(name, None)
