"""Waiting for a condition with a deadline: the only way a test here may wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from proxy.telemetry import monotonic_s

T = TypeVar("T")

#: How long a test waits for what will surely happen. Such a deadline only ends a test that would hang,
#: and a disk of a CI machine may stand still for half a minute: it must never be the claim of a test.
PATIENCE_S = 60.0
#: The same, for a command from its start to its end and for a server until it serves: each loads hundreds
#: of files first.
START_PATIENCE_S = 120.0


def wait_for(
    condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S, *, every_s: float = 0.01
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
