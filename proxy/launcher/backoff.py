"""How long a process that ended waits for its restart. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 5.0
#: A process that lived this long was healthy: its next end starts again from `FIRST_S`.
HEALTHY_S = 10.0


@dataclass(slots=True)
class Backoff:
    """The waits of one process: 0.1 s, doubling to 5 s, and back after 10 s of life."""

    next_s: float = FIRST_S

    def after(self, lived_s: float) -> float:
        """Return how many seconds to wait before the restart of a process that lived `lived_s`."""
        wait_s = FIRST_S if lived_s >= HEALTHY_S else self.next_s
        self.next_s = min(wait_s * 2, LONGEST_S)
        return wait_s
