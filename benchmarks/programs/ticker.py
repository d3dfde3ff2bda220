"""A periodic call on the event loop that keeps to its plan (Linux timerfd_create(2)).

libuv's timers have a resolution of one millisecond, which is the size of the latencies that are to
be measured. A timerfd is a high-resolution timer of the kernel; the loop sees it as a file that
becomes readable, and a read tells how often it has fired since the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar

_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1
_SECOND_NS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_: ClassVar[Any] = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_: ClassVar[Any] = [("it_interval", _Timespec), ("it_value", _Timespec)]


class Ticker:
    """Calls `on_tick` at `start_ns` (monotonic clock) and every `interval_ns` after it.

    A late loop gets one call for all the ticks that it missed; what is due is for the callee to
    work out from the clock.
    """

    def __init__(self, start_ns: int, interval_ns: int, on_tick: Callable[[], None]) -> None:
        self._on_tick = on_tick
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        when = _Itimerspec(_timespec(interval_ns), _timespec(start_ns))
        if libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(when), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def stop(self) -> None:
        """End it; there is no call after this one."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._on_tick()


def _timespec(ns: int) -> _Timespec:
    return _Timespec(ns // _SECOND_NS, ns % _SECOND_NS)
