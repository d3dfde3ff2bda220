"""When the live calls of a candidate are a burst of bad ones. Pure: time is an argument.

Bad is what failed, or was too slow; which is which is the caller's to say. The last `calls` bad calls
are a burst if they came

- in a row, however slowly: a route with few users finds out with as many of them, or
- within `within_s`, and of all calls from the first of them to the last at least `share` was bad.

No average and no test: what must be found out is "it is broken", within milliseconds, and the ramp's
gates look after everything finer. A share beside the number, because at thousands of calls a second
five failures in one of them are nothing; the number beside the share, because one call is no share.
At half of the calls a candidate that fails in 1% of them makes a burst once in hours of 1,000 calls a
second, and one that fails in all of them after `calls` calls (tests/routing/test_burst.py).

A good call costs one addition (`calls += 1`) and no clock; what is kept is the last bad calls alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from proxy.config.resolved import FULL_BP, CanaryGuard


@dataclass(frozen=True, slots=True)
class Found:
    """A burst: what the guard goes by, and what it says.

    Attributes:
        failed, slow: the bad calls, which are as many as the guard asks for.
        calls: from the first of them to the last, the good ones between them included.
        span_s: from the first of them to the last.
    """

    failed: int
    slow: int
    calls: int
    span_s: float


@dataclass(frozen=True, slots=True)
class _Bad:
    """A bad call: its number among all calls, when it was known to be bad, and why it is."""

    number: int
    at_s: float
    is_slow: bool


class Burst:
    """Counts the live calls of one candidate in one worker, and says when bad ones are a burst.

    Attributes:
        calls: all that were counted; add to it for a good one.
    """

    __slots__ = ("_bad", "_limits", "calls")

    def __init__(self, limits: CanaryGuard) -> None:
        self._limits = limits
        self._bad: deque[_Bad] = deque(maxlen=max(1, limits.failures))
        self.calls = 0

    def bad(self, now_s: float, *, is_slow: bool) -> Found | None:
        """Count a bad call at `now_s` (monotonic); return the burst that it makes, if it does.

        Its number is `calls` afterwards, for `forgive`.
        """
        self.calls += 1
        bad, limits = self._bad, self._limits
        bad.append(_Bad(self.calls, now_s, is_slow))
        if len(bad) < limits.failures or not limits.failures:
            return None
        first = bad[0]
        calls, span_s = self.calls - first.number + 1, now_s - first.at_s
        is_dense = span_s <= limits.within_s and len(bad) * FULL_BP >= limits.share_bp * calls
        if calls > len(bad) and not is_dense:
            return None
        slow = sum(each.is_slow for each in bad)
        return Found(len(bad) - slow, slow, calls, span_s)

    def forgive(self, number: int) -> None:
        """Take a bad call for a good one: it was none of the candidate's doing."""
        for each in self._bad:
            if each.number == number:
                self._bad.remove(each)
                return

    def clear(self) -> None:
        """Forget every bad call."""
        self._bad.clear()
