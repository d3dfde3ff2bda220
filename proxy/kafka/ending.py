"""Throwing clients away, whatever they are still doing.

Their `stop()` waits for a broker that is frozen, and gives up on nothing (aiokafka issues 1101 and
1013), so it gets a deadline, and what it leaves behind is cancelled.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import aiokafka
from aiokafka import errors


async def stopped(client: Any, timeout_s: float) -> None:
    """Stop a producer or consumer; return when it has stopped or its time is over."""
    with suppress(errors.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await client.stop()
    # A stop that was cut short has not come to the connections.
    connections = getattr(client, "client", None) or client._client  # noqa: SLF001 - a consumer's
    with suppress(errors.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await connections.close()


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
