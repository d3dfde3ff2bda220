"""Whether an event loop has stood still, by how late its ticks come.

A loop stands still when the machine does, when a quota of the processor is used up (CPU limits of a container
do it for tenths of a second), or when something in it takes long. Afterwards it finds its timers before it
finds what has come over its sockets meanwhile. So the first tick after a standstill ends nobody for being
late: answers that are there are read before the next one.
"""

from __future__ import annotations

from typing import Final

#: A tick that is later than this says that the loop stood still. Its lag is some milliseconds under load.
STALL_S: Final = 0.25


class Standstill:
    """Watches the ticks of one loop; all times are monotonic.

    Attributes:
        due_s: when the next tick should come.
        resumed_s: when one last came after a standstill.
    """

    __slots__ = ("_was_first", "due_s", "resumed_s")

    def __init__(self, due_s: float = 0.0) -> None:
        self.due_s = due_s
        self.resumed_s = 0.0
        self._was_first = False

    def lasts(self, now_s: float) -> bool:
        """Tell whether the loop has stood still until now, and no tick has come since."""
        return now_s > self.due_s + STALL_S

    def tick(self, now_s: float, next_s: float) -> bool:
        """Note a tick; tell whether it is the first one after a standstill.

        Where every tick is as late, only each other one is: deadlines hold nevertheless.

        Args:
            now_s: when it comes.
            next_s: how long until the next one.
        """
        has_stalled = self.lasts(now_s)
        if has_stalled:
            self.resumed_s = now_s
        self.due_s = now_s + next_s
        self._was_first = has_stalled and not self._was_first
        return self._was_first
