"""Waiting for a condition with a deadline: the only way a test here may wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from proxy.telemetry import monotonic_s

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T], what: str, timeout_s: float = 20.0, *, every_s: float = 0.01
) -> T:
    """Return the first true value of `condition`; fail after `timeout_s` with `what`."""
    deadline_s = monotonic_s() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if monotonic_s() > deadline_s:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}; last: {value!r}")
        time.sleep(every_s)
