"""A Kafka sink with deadlines that fit into a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.config.resolved import Kafka
from proxy.recorder.kafka import Deadlines, KafkaSink
from proxy.recorder.sink import SinkState

#: Short enough to see a frozen broker within a test.
SHORT = Deadlines(
    connect_s=4, deliver_s=2, close_s=0.5, request_s=1, slow_s=1.0, backoff_s=0.1,
    backoff_limit_s=0.5,
)  # fmt: skip


@asynccontextmanager
async def opened(
    bootstrap: str,
    prefix: str,
    options: dict[str, str] | None = None,
    deadlines: Deadlines = SHORT,
) -> AsyncIterator[KafkaSink]:
    """Give a sink with short deadlines, closed at the end."""
    sink = KafkaSink(Kafka((bootstrap,), prefix, options or {}), deadlines)
    try:
        yield sink
    finally:
        async with asyncio.timeout(5):
            await sink.close()


async def until(sink: KafkaSink, *states: SinkState) -> None:
    """Return when the sink is in one of `states`."""
    async with asyncio.timeout(15):
        while sink.status.state not in states:  # noqa: ASYNC110 - a state is no event
            await asyncio.sleep(0.02)


def library_tasks() -> list[str]:
    """Return the tasks of aiokafka that are still there."""
    return [str(task) for task in asyncio.all_tasks() if "aiokafka" in str(task)]
