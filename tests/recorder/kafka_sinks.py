"""A Kafka sink with deadlines that fit into a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from proxy.config.resolved import Kafka
from proxy.recorder.kafka import Deadlines, KafkaSink
from proxy.recorder.sink import Pair, SinkState
from tests.support.deadline import PATIENCE_S

#: Short enough to see a frozen broker within a test.
SHORT = Deadlines(
    connect_s=4, deliver_s=2, close_s=0.5, request_s=1, slow_s=1.0, backoff_s=0.1,
    backoff_limit_s=0.5,
)  # fmt: skip
#: Nothing of a healthy broker takes so long, whatever else the machine does.
PATIENT = replace(SHORT, deliver_s=120, request_s=120, slow_s=120)


@asynccontextmanager
async def opened(
    bootstrap: str,
    prefix: str,
    options: dict[str, str] | None = None,
    deadlines: Deadlines = PATIENT,
) -> AsyncIterator[KafkaSink]:
    """Give a sink, closed at the end; with `SHORT` it soon notices a broker that says nothing."""
    sink = KafkaSink(Kafka((bootstrap,), prefix, options or {}), deadlines)
    try:
        yield sink
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await sink.close()


async def until(sink: KafkaSink, *states: SinkState) -> None:
    """Return when the sink is in one of `states`."""
    async with asyncio.timeout(PATIENCE_S):
        while sink.status.state not in states:  # noqa: ASYNC110 - a state is no event
            await asyncio.sleep(0.02)


async def until_ok(sink: KafkaSink, pair: Pair) -> None:
    """Write a pair again and again, and return when nothing is wrong any more."""
    async with asyncio.timeout(PATIENCE_S):
        while sink.status.state is not SinkState.OK:
            await sink.write([pair])


def library_tasks() -> list[str]:
    """Return the tasks of aiokafka that are still there."""
    return [str(task) for task in asyncio.all_tasks() if "aiokafka" in str(task)]
