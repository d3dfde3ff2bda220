"""Orders that were refused, in the decisions log: what was asked, by whom, and why it was not done.

A program that repeats a hopeless order all day must not push what happened out of the log, so the
refusals of one process are bounded in time; what is left out is counted, and told by the next one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from proxy.errors import StateError
from proxy.state import decisions
from proxy.state.decision_record import Decision
from proxy.telemetry import monotonic_s

#: Refusals of one process that are logged in `SPAN_S` seconds.
MOST: Final = 60
SPAN_S: Final = 60.0


@dataclass(slots=True)
class Allowance:
    """How many refusals this process may still log."""

    until_s: float = 0.0
    left: int = MOST
    unlogged: int = 0

    def take(self, now_s: float) -> bool:
        """Return whether one may be logged at `now_s` (monotonic); else it is counted."""
        if now_s >= self.until_s:
            self.until_s, self.left = now_s + SPAN_S, MOST
        if not self.left:
            self.unlogged += 1
            return False
        self.left -= 1
        return True


_allowance = Allowance()


def log_refusal(state_dir: Path, order: Decision, why: str) -> None:
    """Log that `order`, whose `new` is what was asked for, was refused; a full disk refuses no less."""
    if not _allowance.take(monotonic_s()):
        return
    left_out, _allowance.unlogged = _allowance.unlogged, 0
    note = f"{left_out} refusals before this one are not in the log" if left_out else order.note
    with suppress(StateError):
        decisions.append(state_dir, replace(order, refusal=why, note=note))
