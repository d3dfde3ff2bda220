"""Throwing clients away, whatever they are still doing.

Their `stop()` waits for a broker that is frozen, and gives up on nothing (aiokafka issues 1101 and
1013), so it gets a deadline, and what it leaves behind is cancelled.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import aiokafka


async def stopped(client: Any, timeout_s: float) -> None:
    """Stop a producer or consumer; return when it has stopped or its time is over."""
    await _ended(client.stop(), timeout_s)
    # A stop that was cut short has not come to the connections.
    connections = getattr(client, "client", None) or client._client  # noqa: SLF001 - a consumer's
    await _ended(connections.close(), timeout_s)


async def _ended(call: Coroutine[Any, Any, None], timeout_s: float) -> None:
    """Return when a call has ended, however, or its time is over.

    It is waited for from outside: a consumer whose broker is gone swallows the cancellation that a
    timeout around it would be, and goes on waiting.
    """
    task = asyncio.get_running_loop().create_task(call)
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if not done:
        task.cancel()
    elif not task.cancelled():
        task.exception()  # looked at, so that nobody complains that nobody did


async def end_client_tasks(timeout_s: float) -> None:
    """Cancel whatever tasks clients have left running.

    An abandoned client would go on retrying beside its successor, and keep its buffers. All clients
    of this event loop must be abandoned: every task that runs the library's code is ended.
    """
    library = os.path.dirname(aiokafka.__file__)  # noqa: PTH120 - compared as text below
    left = []
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename.startswith(library):
            task.cancel()
            left.append(task)
    if left:
        await asyncio.wait(left, timeout=timeout_s)
