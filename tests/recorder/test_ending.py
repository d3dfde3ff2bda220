"""When a recorder that is to end leaves what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.recorder.ending import work_to_the_end
from tests.support.deadline import PATIENCE_S


class Work:
    """Work that goes on until it is finished or cancelled.

    Attributes:
        moved: how far it has come.
        ends: how it has ended, once it has.
        stop, leave: what ends it.
    """

    def __init__(self) -> None:
        self.moved = 0
        self.ends: list[str] = []
        self.stop, self.leave, self.finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        """Wait for the end."""
        try:
            await self.finished.wait()
            self.ends.append("finished")
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise


@asynccontextmanager
async def at_work(patience_s: float) -> AsyncIterator[Work]:
    """Do some work in the background."""
    work = Work()
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        group.create_task(
            work_to_the_end(
                work(), work.stop, work.leave, moved=lambda: work.moved, patience_s=patience_s
            )
        )
        yield work


async def test_it_is_finished_though_it_takes_longer_than_the_patience() -> None:
    """As long as it moves."""
    async with at_work(patience_s=0.5) as work:
        work.stop.set()
        for _ in range(20):
            work.moved += 1
            await asyncio.sleep(0.05)  # twenty times: twice the patience
        assert work.ends == []
        work.finished.set()
    assert work.ends == ["finished"]


async def test_it_is_left_when_it_does_not_move() -> None:
    """But not before the stop, however long it stands still."""
    async with at_work(patience_s=0.01) as work:
        await asyncio.sleep(0.1)  # ten times the patience
        assert work.ends == []
        work.stop.set()
    assert work.ends == ["cancelled"]


async def test_it_is_left_when_told() -> None:
    """At once, and though it moves; and not before the stop, which is what comes first."""
    async with at_work(patience_s=PATIENCE_S) as work:
        work.leave.set()
        await asyncio.sleep(0.05)  # time for what must not happen
        assert work.ends == []
        work.stop.set()
    assert work.ends == ["cancelled"]
