"""Looks at the event loop of a worker and tells it when to make no copies.

What overload is, `proxy.routing.overload` decides. The look is a part of the worker's tick; when one
comes late, others follow at each turn of the loop, so that a queue is found within some 100 ms, and a worker
that has little to do is not woken up for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Config
from proxy.routing.overload import Overload
from proxy.telemetry import monotonic_s, thread_cpu_s

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker

#: From a look that was late to the next: less than a turn of a loop that is late takes. So the next look
#: comes with the next turn, and is as late as what has to wait for a whole turn.
SOON_S: Final = 0.001

logger = logging.getLogger("understudy.worker")


class Shedding:
    """Keeps `worker.is_shedding` up to date.

    Args:
        worker: with its config and its stats page open.
        loop: its event loop.
    """

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker, self._loop = worker, loop
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._begun_s = 0.0
        self._received = worker.cells[worker.received_cell]
        self._now, self._total = map(worker.stats.layout.index, ("workers_shedding", "sheddings"))
        self._limit_s = -1.0
        self.follow(worker.config)

    def follow(self, config: Config) -> None:
        """Go by the limits of another config; one without candidates has no copies to leave out."""
        has_copies = any(route.candidates for route in config.routes)
        limit_s = config.limits.mirror_lag_s if has_copies else 0.0
        if limit_s != self._limit_s:
            self._limit_s = limit_s
            self.overload = Overload(limit_s, monotonic_s())
            self._tell(monotonic_s())

    def look(self, now_s: float, due_s: float) -> None:
        """Look at how late a tick comes.

        Args:
            now_s: monotonic seconds.
            due_s: when it should have come.
        """
        cells, cell = self._worker.cells, self._worker.received_cell
        received, self._received = self._received, cells[cell]
        came = max(0, self._received - received)
        if self.overload.look(now_s - due_s, came, thread_cpu_s(), now_s):
            self._look_soon(now_s)
        if self.overload.is_shedding is not self._worker.is_shedding:
            self._tell(now_s)
        cells[self._now] = self._worker.is_shedding

    def stop(self) -> None:
        """Look no more; a worker that has ended sheds nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._worker.cells[self._now] = 0

    def _look_soon(self, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = now_s + SOON_S
        self._timer = self._loop.call_later(SOON_S, self._look_again)

    def _look_again(self) -> None:
        self.look(monotonic_s(), self._due_s)

    def _tell(self, now_s: float) -> None:
        """Let the worker shed, or make copies again; say so."""
        worker, is_shedding = self._worker, self.overload.is_shedding
        if is_shedding is worker.is_shedding:
            return
        worker.is_shedding = is_shedding
        if is_shedding:
            self._begun_s = now_s
            worker.cells[self._total] += 1
            found = self.overload.statistics()
            logger.warning(
                "overloaded: requests wait %.0f ms for the event loop, %.0f at a time "
                "(limits.mirror_lag); no copies are made",
                found.lag_s * 1e3,
                found.queue,
            )
        else:
            logger.warning(
                "no longer overloaded: copies are made again after %.1f s", now_s - self._begun_s
            )
