"""When the pieces of an answer came: the gaps between them, and its first content. Pure.

A piece is what one read brought of the body: TCP keeps no boundary between two chunks that arrive
together, and nobody could have seen the time between them.
"""

from __future__ import annotations

import re
from typing import Final

#: Gaps are counted by size: by the microsecond up to 64, and from there on 32 sizes to each doubling,
#: all of one width. The middle of one is at most a 64th (1.6%) from any gap in it.
_BITS: Final = 6
MEDIAN_ERROR: Final = 1 / 2**_BITS
#: So many gaps are counted at a time. Of a thousand streams each is out of all caches between two
#: events, and the table of counts is four lines of memory against two of a list's end.
_RECENT: Final = 32

#: An OpenAI chunk has choices. The first of a stream only names the role, with no or empty text,
#: and the last only counts tokens: neither is content.
_CHOICES: Final = b'"choices"'
_CONTENT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|refusal|arguments|name)"[ ]?:[ ]?"[^"]'
)
_DATA: Final = re.compile(rb"(?:\A|[\r\n])data:")


class StreamTimes:
    """The times of one answer that comes in pieces; its size does not grow with their number.

    Attributes:
        content_s: when the first content of an event stream came; 0.0 before.
        is_waiting: the first content of an event stream is still to come.
        longest_s: the longest gap.
        gaps: how many there were.
    """

    __slots__ = ("_counts", "_last_s", "_recent_us", "content_s", "gaps", "is_waiting", "longest_s")

    def __init__(self, *, is_event_stream: bool = False) -> None:
        self.is_waiting = is_event_stream
        self.content_s = self.longest_s = self._last_s = 0.0
        self.gaps = 0
        self._recent_us: list[int] = []
        self._counts: dict[int, int] = {}

    def piece(self, now_s: float) -> None:
        """Note that a read brought a piece at `now_s` (monotonic seconds)."""
        last_s, self._last_s = self._last_s, now_s
        if last_s:
            gap_s = now_s - last_s
            self.gaps += 1
            if gap_s > self.longest_s:
                self.longest_s = gap_s
            recent = self._recent_us
            recent.append(int(gap_s * 1e6))
            if len(recent) >= _RECENT:
                self._count_recent()

    def _count_recent(self) -> None:
        """Count the gaps that have not been counted."""
        counts = self._counts
        for micros in self._recent_us:
            shift = max(micros.bit_length() - _BITS, 0)
            size = (shift << _BITS) + (micros >> shift)
            counts[size] = counts.get(size, 0) + 1
        self._recent_us = []

    def look_for_content(self, pieces: list[bytes], now_s: float) -> None:
        """Note the first content of an event stream, if one of these pieces brings it."""
        for piece in pieces:
            if has_content(piece):
                self.content_s = now_s
                self.is_waiting = False
                return

    def held(self) -> None:
        """Leave the gap under way out: our own client holds the answer back."""
        self._last_s = 0.0

    def median_s(self) -> float:
        """Return the median gap (the lower of two), off by `MEDIAN_ERROR` and 1 us at most.

        Without a gap it is 0.0.
        """
        self._count_recent()
        left = (self.gaps + 1) // 2
        for size in sorted(self._counts):
            left -= self._counts[size]
            if left <= 0:
                shift = size >> _BITS
                start_us = (size & (2**_BITS - 1)) << shift
                return min((start_us + (1 << shift) / 2) * 1e-6, self.longest_s)
        return 0.0


def has_content(piece: bytes) -> bool:
    """Tell whether a piece of an event stream brings content: an event with data.

    A comment (`: ping`) does not. Of OpenAI's chunks only those do that carry text, reasoning or a
    tool call. An event that a read cuts in two may be told by the next one only.
    """
    if _CHOICES in piece:
        return _CONTENT.search(piece) is not None
    return _DATA.search(piece) is not None
