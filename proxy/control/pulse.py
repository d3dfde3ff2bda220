"""Whether an order that control reads now may have waited for it, for longer than anybody meant.

The launcher keeps the admin socket open while control is frozen, dead or being replaced, so what was
sent meanwhile is read afterwards, perhaps long after its giver gave up and killed by another way. An
order that says what its giver had seen can be judged by that. One that says nothing cannot; it is
doubtful right after a stall or a start, and what would open or raise something is refused then.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How often control beats; a gap of more than `STALL_S` between two beats is a stall.
BEAT_S = 0.5
STALL_S = 1.5
#: For how long after a stall or a start what is read may be old: a queue of 2,048 connections
#: takes less than a second to read.
SETTLE_S = 2.0


@dataclass(slots=True)
class Pulse:
    """Control's own heartbeat. One that has never beaten (as in tests) doubts nothing."""

    _last_s: float | None = None
    _doubtful_until_s: float = 0.0

    def beat(self, now_s: float) -> None:
        """Say that the loop runs at `now_s` (monotonic)."""
        if self._last_s is None or now_s - self._last_s > STALL_S:
            self._doubtful_until_s = now_s + SETTLE_S
        self._last_s = now_s

    def is_doubtful(self, now_s: float) -> bool:
        """Return whether an order read at `now_s` may have been sent before a stall ended."""
        if self._last_s is None:
            return False
        return now_s < self._doubtful_until_s or now_s - self._last_s > STALL_S
