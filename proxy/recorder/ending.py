"""How long a recorder that has been asked to end goes on.

Until its journals are empty, if it may. It leaves the rest to the next one when it is told to (the
launcher does so in time for the whole stop to keep within `limits.shutdown`), and when nothing moves any
more: a broker that is away should not make every stop as long as it may get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


async def work_to_the_end(
    work: Coroutine[Any, Any, None],
    stop: asyncio.Event,
    leave: asyncio.Event,
    *,
    moved: Callable[[], int],
    patience_s: float,
) -> None:
    """Do `work`, which ends by itself some time after `stop`; cancel it when it is too late.

    Args:
        work: what is to be done.
        stop: the end is wanted.
        leave: what is not done now shall be left.
        moved: counts how far the work has come.
        patience_s: since `stop`, how long that may stay as it is.
    """
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        waiting = group.create_task(_too_late(stop, leave, moved, patience_s))
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        waiting.cancel()


async def _too_late(
    stop: asyncio.Event, leave: asyncio.Event, moved: Callable[[], int], patience_s: float
) -> None:
    """Return when, after `stop`, the work shall be left or has not moved for too long."""
    await stop.wait()
    before = -1
    while not leave.is_set() and before != (now := moved()):
        before = now
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await leave.wait()
