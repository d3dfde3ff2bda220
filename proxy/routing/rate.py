"""How many copies per second: a token bucket. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BucketStatistics:
    """A snapshot: tokens at the last `take`, and how many were taken and refused."""

    tokens: float
    taken: int
    refused: int


class Bucket:
    """Passes at most `rate * t + burst` in any `t` seconds.

    The burst is what one second brings, and one at least: else a rate below 1 would pass nothing.
    """

    __slots__ = ("_refused", "_taken", "_then_s", "_tokens", "burst", "rate")

    def __init__(self, rate: float, now_s: float) -> None:
        """Begin full.

        Args:
            rate: per second, above 0.
            now_s: monotonic seconds.
        """
        self.rate = rate
        self.burst = max(1.0, rate)
        self._tokens = self.burst
        self._then_s = now_s
        self._taken = self._refused = 0

    def statistics(self) -> BucketStatistics:
        """Return a snapshot."""
        return BucketStatistics(self._tokens, self._taken, self._refused)

    def take(self, now_s: float) -> bool:
        """Take one token at `now_s` (monotonic); False when there is none. A past time adds none."""
        if now_s > self._then_s:
            self._tokens = min(self.burst, self._tokens + (now_s - self._then_s) * self.rate)
            self._then_s = now_s
        if self._tokens < 1.0:
            self._refused += 1
            return False
        self._tokens -= 1.0
        self._taken += 1
        return True
