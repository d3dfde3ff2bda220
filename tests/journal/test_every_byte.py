"""Every byte of a segment damaged, and the file cut at every length, one at a time.

Through the reader that the recorder uses: whatever is on the disk, each line it gives is one that
was written, in order, and what it did not give is counted to the byte.

By default each byte gets one other value and there are some hundred double flips. All 255 values,
and more double flips (minutes):

    UNDERSTUDY_BYTE_VALUES=255 UNDERSTUDY_DOUBLE_FLIPS=200000 pytest tests/journal/test_every_byte.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.journal.reader import JournalReader
from proxy.journal.segments import Position, segment_path
from proxy.journal.writer import JournalWriter

GIB = 1 << 30
FRAMES = 5
PAIRS_PER_FRAME = 60
#: Of each byte, how many other values are tried.
VALUES = int(os.environ.get("UNDERSTUDY_BYTE_VALUES", "1"))
DOUBLE_FLIPS = int(os.environ.get("UNDERSTUDY_DOUBLE_FLIPS", "500"))

pytestmark = pytest.mark.timeout(60 + 5 * VALUES + DOUBLE_FLIPS // 100)


@dataclass
class Segment:
    """A segment that a writer made, and an empty one behind it: it has ended.

    Attributes:
        frames: the lines of each frame.
        ends: where each frame ends.
    """

    directory: Path
    content: bytes
    frames: list[list[bytes]]
    ends: list[int]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return segment_path(self.directory, 1)

    def holds(self, content: bytes) -> None:
        """Change the file to `content`, in place: ext4 writes a file that is replaced at once."""
        descriptor = os.open(self.path, os.O_WRONLY)
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
        os.close(descriptor)

    def frame_at(self, offset: int) -> int:
        """Return the number of the frame that a byte belongs to."""
        return next(number for number, end in enumerate(self.ends) if offset < end)

    def size(self, frame: int) -> int:
        """Return the compressed bytes of a frame."""
        return self.ends[frame] - (self.ends[frame - 1] if frame else 0)

    def read(self, window_bytes: int) -> tuple[list[bytes], int, Position]:
        """Return all lines that a fresh reader gives, what it skipped, and where it stands."""
        reader = JournalReader(self.directory, window_bytes=window_bytes)
        try:
            lines: list[bytes] = []
            # Damage can take a read without a line; the end is where the position stands still.
            position, skipped = Position(), 0
            while True:
                batch = reader.read(GIB)
                lines += batch.lines
                skipped += batch.skipped_bytes
                if batch.position == position:
                    return lines, skipped, position
                position = batch.position
        finally:
            reader.close()

    def check(self, hit: set[int], window_bytes: int = GIB) -> None:
        """Check what is read while the frames `hit` are damaged: the others, and no more."""
        lines, skipped, position = self.read(window_bytes)
        kept = [n for n in range(FRAMES) if n not in hit]
        whole = [line for n in kept for line in self.frames[n]]
        if lines != whole:
            # A flip may leave a frame as good as it was (an unused bit); then it is given as it was.
            given = set(lines)
            kept = [n for n in range(FRAMES) if n not in hit or self.frames[n][0] in given]
            assert lines == [line for n in kept for line in self.frames[n]]
        assert skipped == len(self.content) - sum(self.size(n) for n in kept)
        assert position == Position(2, 0)


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """Return a segment of some hundred pairs; small, so that each of its bytes can be tried."""
    chance = random.Random(7)
    directory = tmp_path / "worker-0"
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    frames, ends = [], []
    for frame in range(FRAMES):
        lines = []
        for pair in range(PAIRS_PER_FRAME):
            seq = frame * PAIRS_PER_FRAME + pair
            line = b'{"seq":%d,"request_id":"%08x","primary_body":"{}"}'
            lines.append(line % (seq, chance.getrandbits(32)))
            writer.append(lines[-1])
        writer.flush()
        frames.append(lines)
        ends.append(segment_path(directory, 1).stat().st_size)
    writer.close()
    segment_path(directory, 2).touch()
    return Segment(directory, segment_path(directory, 1).read_bytes(), frames, ends)


def _damaged(segment: Segment, flips: list[tuple[int, int]]) -> set[int]:
    """Overwrite some bytes; return the frames they belong to."""
    content = bytearray(segment.content)
    for at, flip in flips:
        content[at] ^= flip
    segment.holds(bytes(content))
    return {segment.frame_at(at) for at, flip in flips if content[at] != segment.content[at]}


def _values(at: int) -> Iterator[int]:
    """Yield what a byte is changed by: each value once, the first one another for each byte."""
    for step in range(VALUES):
        yield (at * 37 + step) % 255 + 1


# 300 bytes are less than a frame: the window must grow for it, and damage is met at its edges.
@pytest.mark.parametrize("window_bytes", [GIB, 300])
def test_every_byte_flipped(segment: Segment, window_bytes: int) -> None:
    """At most the frame that a flipped byte belongs to is missing, and is counted."""
    assert window_bytes == GIB or window_bytes < min(segment.size(n) for n in range(FRAMES))
    for at in range(len(segment.content)):
        for flip in _values(at):
            segment.check(_damaged(segment, [(at, flip)]), window_bytes)


def test_two_bytes_flipped_by_chance(segment: Segment) -> None:
    """At most the two frames that they belong to are missing."""
    chance = random.Random(11)
    size = len(segment.content)
    for _ in range(DOUBLE_FLIPS):
        flips = [(chance.randrange(size), chance.randrange(1, 256)) for _ in range(2)]
        segment.check(_damaged(segment, flips))


def test_cut_at_every_length(segment: Segment) -> None:
    """What was whole before the cut is given; half a frame is counted, once its segment has ended."""
    for length in range(len(segment.content)):
        segment.holds(segment.content[:length])
        lines, skipped, position = segment.read(GIB)
        whole = segment.frame_at(length)
        assert lines == [line for frame in segment.frames[:whole] for line in frame]
        assert skipped == length - (segment.ends[whole - 1] if whole else 0)
        assert position == Position(2, 0)


def test_the_successor_cuts_what_a_writer_left_at_every_length(segment: Segment) -> None:
    """As after SIGKILL in the middle of a write: whole frames stay, the torn rest goes, counted."""
    segment_path(segment.directory, 2).unlink()
    for length in range(len(segment.content)):
        segment.holds(segment.content[:length])
        writer = JournalWriter(segment.directory, disk_budget_bytes=GIB)
        writer.close()
        whole = segment.frame_at(length)
        end = segment.ends[whole - 1] if whole else 0
        assert writer.statistics().torn_bytes == length - end
        assert segment.path.read_bytes() == segment.content[:end]


def test_zeros_for_a_tail(segment: Segment) -> None:
    """What a power cut leaves where the file's length was written and its content was not."""
    for frame in range(FRAMES):
        start = segment.ends[frame - 1] if frame else 0
        zeros = bytes(len(segment.content) - start)
        segment.holds(segment.content[:start] + zeros)
        segment.check(set(range(frame, FRAMES)))
