"""What the broker says in its answers that aiokafka passes over.

How long a quota holds us back is in every answer (KIP-13 and KIP-219) and is read by nobody, and an
error that the library does not know becomes `UnknownError`, which may be anything. One look at each
answer on its way through keeps both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

#: Error INVALID_RECORD (KIP-467): the broker's own validation refuses the batch for good.
_INVALID_RECORD: Final = 87


class AnswerWatch:
    """Looks at the answers of one client.

    Attributes:
        throttle_ms: what the last answer that says so said; 0 is "not held back".
        throttled_ms: the sum of them.
    """

    def __init__(self) -> None:
        self.throttle_ms = 0
        self.throttled_ms = 0
        self._invalid: set[int] = set()

    def around(self, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return `send` with a look at what it returns."""

        async def watched(*arguments: Any, **options: Any) -> Any:
            answer = await send(*arguments, **options)
            self.look(answer)
            return answer

        return watched

    def look(self, answer: Any) -> None:
        """Take note of what an answer says."""
        if type(answer).__name__.startswith("ProduceResponse"):
            self.throttle_ms = getattr(answer, "throttle_time_ms", 0)
            self.throttled_ms += self.throttle_ms
            for _, partitions in answer.topics:
                self._invalid |= {each[0] for each in partitions if each[1] == _INVALID_RECORD}

    def is_invalid(self, partition: int) -> bool:
        """Return, once, whether the broker found something invalid in a batch of `partition`."""
        found = partition in self._invalid
        self._invalid.discard(partition)
        return found
