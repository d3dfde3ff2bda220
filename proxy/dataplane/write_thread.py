"""A thread for what may wait for the disk: one job at a time, so that no user waits for it.

A `write` into the page cache takes microseconds, until the disk hangs: then it may wait for as long as
the disk does (ext4 lets it wait for the journal's commit), and whoever calls it stands still. The event
loop of a worker must not. The thread begins with the first job, and is a daemon: a disk that hangs must
not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

Job = Callable[[], Any]


class WriteThread:
    """Does jobs beside an event loop. Only the loop's thread may call it.

    Args:
        name: of the thread.
        loop: where `done` is called.
        done: called with what a job returned, or with the exception that it raised.

    Attributes:
        is_busy: a job is under way, or its result was not handed over yet.
    """

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, done: Callable[[Any], None]
    ) -> None:
        self.is_busy = False
        self._name, self._loop, self._done = name, loop, done
        self._result: Any = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Job) -> None:
        """Begin a job; not while it `is_busy`."""
        assert not self.is_busy
        self.is_busy = True
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads for this process: done here, then, as ever
                self._result = self._attempt(job)
                self._loop.call_soon(self._finish)
                return
            self._thread = thread
        self._jobs.put(job)

    def close(self) -> None:
        """Let the thread end, if it is not caught in a job; a later job begins another one."""
        if not self.is_busy and self._thread is not None:
            self._thread = None
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._result = self._attempt(job)
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                self._loop.call_soon_threadsafe(self._finish)

    @staticmethod
    def _attempt(job: Job) -> Any:
        try:
            return job()
        except Exception as exc:  # noqa: BLE001 - whoever gave the job is told
            return exc

    def _finish(self) -> None:
        result, self._result = self._result, None
        self.is_busy = False
        self._done(result)
