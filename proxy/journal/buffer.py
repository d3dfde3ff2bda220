"""Pairs that wait to be written: appended one by one, taken in batches of a frame each."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.journal.frames import MAX_CONTENT_BYTES

#: Pairs that had to wait become frames of so much (uncompressed); a larger pair has one of its own.
FRAME_BYTES = MAX_CONTENT_BYTES // 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs on their way to the disk: lines, how many, their bytes with line ends."""

    lines: list[bytes]
    pairs: int
    size_bytes: int


class PairBuffer:
    """The buffer of a journal's writer.

    Attributes:
        buffered_bytes: uncompressed bytes that wait.
        buffered_pairs: pairs that wait.
    """

    def __init__(self) -> None:
        self.buffered_bytes = 0
        self.buffered_pairs = 0
        self._lines: list[bytes] = []

    def append(self, line: bytes) -> None:
        """Buffer one pair: a JSON object without a newline. The hot path does nothing more."""
        self._lines.append(line)
        self.buffered_bytes += len(line)
        self.buffered_pairs += 1

    def take(self) -> Batch | None:
        """Take the oldest pairs out, as many as go into one frame; None without any."""
        lines, pairs, size = self._lines, self.buffered_pairs, self.buffered_bytes
        if not lines:
            return None
        self._lines = []
        if size > FRAME_BYTES and pairs > 1:
            pairs, size = 1, len(lines[0])
            while pairs < len(lines) and size + len(lines[pairs]) <= FRAME_BYTES:
                size += len(lines[pairs])
                pairs += 1
            lines, self._lines = lines[:pairs], lines[pairs:]
        self.buffered_pairs -= pairs
        self.buffered_bytes -= size
        return Batch(lines, pairs, size + pairs)
