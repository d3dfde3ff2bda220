"""An event loop for readers that are not asynchronous, also inside somebody else's.

A notebook's kernel runs its cells inside a running event loop, where `asyncio.Runner` refuses to run
another one: there, a thread of its own runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

_T = TypeVar("_T")


class EventLoop:
    """Runs coroutines to their end, one after the other, on one loop; a context manager.

    What ends the waiting, such as Ctrl-C, ends neither the loop nor the coroutine that it runs; the
    next one waits for that.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1, "understudy-reader") if _is_inside_a_loop() else None

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is None:
            self._runner.close()
        else:
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return what `coroutine` returns, or raise what it raises."""
        if self._thread is None:
            return self._runner.run(coroutine)
        return self._thread.submit(self._runner.run, coroutine).result()


def _is_inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
