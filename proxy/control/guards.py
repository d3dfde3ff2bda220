"""Makes what one worker's guard has found hold for all of them: a kill of the candidate's canary.

Workers write no control page, and wait for nobody: the one that met the burst has stopped by itself,
the others do when they meet it. This is what makes it last, be seen, and take the ramp down, a tenth of
a second later; after a pause of control it makes up for what it has missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from proxy.control.ejections import Ejection, standing
from proxy.errors import StateError
from proxy.state.control_page import ControlPage, ControlState, Part
from proxy.state.kill import Scope
from proxy.state.orders import OvertakenError, Source, order_ejection
from proxy.telemetry import monotonic_s, wall_ns

#: Who it is in the decisions log.
WHO: Final = "guard"
#: How often the workers' notes are looked at.
LOOK_S: Final = 0.1
#: After a kill that failed, which may have waited 2 s for a lock, control has other things to do, too.
AGAIN_S: Final = 5.0

logger = logging.getLogger("understudy.control")


class Guards:
    """Watches the notes of all workers.

    Args:
        found: reads the notes.
        page: returns the control page; raises StateError when it cannot be opened.
        on_kill: told after kills, so that ramps need not wait for their next look.
    """

    def __init__(
        self,
        found: Callable[[], tuple[Ejection, ...]],
        page: Callable[[], ControlPage],
        on_kill: Callable[[], None],
    ) -> None:
        self._found = found
        self._page = page
        self._on_kill = on_kill
        self._again_s = 0.0

    async def run(self) -> None:
        """Look until cancelled; a fault is logged, and the next look comes."""
        while True:
            try:
                self.look()
            except Exception:
                logger.exception("a look at the guards failed")
            await asyncio.sleep(LOOK_S)

    def look(self) -> int:
        """Kill what has been taken out and is not killed yet; return how many that were."""
        found = self._found()
        if not found or monotonic_s() < self._again_s:
            return 0
        killed = 0
        try:
            page = self._page()
            state = page.read()
            for each in standing(found, state).values():
                if not _is_killed(state, each):
                    killed += self._kill(page, each)
        except StateError as exc:  # without a readable page only the primary serves
            logger.error("a candidate that was taken out cannot be killed: %s", exc)  # noqa: TRY400 - the text says all
            self._again_s = monotonic_s() + AGAIN_S
        if killed:
            self._on_kill()
        return killed

    def _kill(self, page: ControlPage, found: Ejection) -> bool:
        """Latch the canary of a candidate; tell whether it was still to be latched.

        Raises:
            StateError: the page cannot be changed.
        """
        source = Source(WHO, f"worker {found.worker}", found.words, wall_ns() // 1_000_000)
        try:
            change = order_ejection(page, Scope(found.route, found.candidate), found.mark, source)
        except OvertakenError:  # revived since we looked
            return False
        logger.error("kill of the canary of %s: %s", found.name, found.words)
        if change.log_error:
            logger.error("%s", change.log_error)
        return True


def _is_killed(state: ControlState, found: Ejection) -> bool:
    """Tell whether the candidate's own canary is latched, or there is nothing to latch any more."""
    route = state.routes.get(found.route)
    candidate = None if route is None else route.candidates.get(found.candidate)
    return candidate is None or bool(candidate.killed & Part.CANARY)
