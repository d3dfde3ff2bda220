"""What a recorder ships beside its pairs: on a thread of its own, with an event loop of its own.

The client of one topic must not wait for another's, and `proxy.recorder.kafka` throws away every task of
the client that it finds on its event loop. A thread that has nothing to ship costs next to nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from proxy.errors import UnderstudyError
from proxy.recorder.sink import Delivery, Message, SinkStatus
from proxy.telemetry import wall_ns

#: Between looks at what there is to ship.
POLL_S: Final = 0.25
#: Between two statistics.
REPORT_S: Final = 1.0


class PlainSink(Protocol):
    """The part of `proxy.recorder.sink.Sink` that is needed here, in the same words."""

    @property
    def name(self) -> str:
        """Say what kind of sink it is, and where."""
        ...

    @property
    def status(self) -> SinkStatus:
        """Say how the sink is doing now."""
        ...

    async def write(self, pairs: list[Message]) -> Delivery:
        """Return when every message is acknowledged or given up."""
        ...

    async def close(self) -> None:
        """Let all resources go."""
        ...


class Beside(ABC):
    """Ships from `start` until `request_stop`; the caller's loop is free.

    Args:
        name: of the thread.
        stop_s: how long it goes on after it was asked to stop.
        statistics: the file that says how it is doing.
    """

    def __init__(self, name: str, stop_s: float, statistics: Path) -> None:
        self._stop_s = stop_s
        self._statistics = statistics
        self._stop = threading.Event()
        self._wake: Callable[[], object] = bool
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def request_stop(self) -> None:
        """Ask it to ship what is there and end, within `stop_s`."""
        self._stop.set()
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Return when it has ended, or after `timeout_s`; what is left then waits on the disk."""
        self._thread.join(timeout_s)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._stop.is_set()

    @abstractmethod
    def is_wanted(self) -> bool:
        """Return whether there is something to ship; until then nothing is opened."""

    @abstractmethod
    async def ship(self, stopping: asyncio.Event) -> None:
        """Ship until `stopping` is set and all is shipped; see `for_a_while`."""

    async def for_a_while(self, stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, and be done `stop_s` after the stop, whatever the sink is doing."""
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(stopping.wait())
            working = group.create_task(work)
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([working], timeout=self._stop_s)
            working.cancel()
            stopped.cancel()

    def store(self, content: Mapping[str, object]) -> None:
        """Replace the statistics; a file that grows old is told as such."""
        path = self._statistics
        fresh = path.with_name(f".{path.name}.new")
        data = orjson.dumps({"updated_ms": wall_ns() // 1_000_000, **content})
        with suppress(OSError):
            # Not synced, because it is stale after a second anyway.
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            fresh.replace(path)

    def _run(self) -> None:
        """Wait until it is wanted, then ship; a fault of the sink's settings is told, and final."""
        while not self.is_wanted():
            if self._stop.wait(POLL_S):
                return
        try:
            asyncio.run(self._live())
        except UnderstudyError as exc:
            self.store({"state": "misconfigured", "message": str(exc)})

    async def _live(self) -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stopping.set)

        self._wake = wake
        if self._stop.is_set():  # since before there was anybody to wake
            stopping.set()
        await self.ship(stopping)


async def rest(stopping: asyncio.Event) -> None:
    """Return after `POLL_S`, or when there is a stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            await stopping.wait()
