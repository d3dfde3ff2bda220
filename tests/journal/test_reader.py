"""The reader gives each line once, in order, from a position that survives anything."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.config.resolved import Journal
from proxy.errors import StateError
from proxy.journal.frame_file import compressor
from proxy.journal.reader import JournalReader
from proxy.journal.segments import SHIPPED, Position, segment_numbers, segment_path
from proxy.journal.writer import JournalWriter

GIB = 1 << 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a worker's journal goes; it is not there yet."""
    return tmp_path / "journal" / "worker-0"


def write(directory: Path, numbers: range, *, segment_bytes: int = GIB, per_flush: int = 1) -> None:
    """Journal a line per number, some to a flush."""
    writer = JournalWriter(
        directory, disk_budget_bytes=8 * GIB, journal=Journal(segment_bytes=segment_bytes)
    )
    for number in numbers:
        noise = hashlib.sha256(b"%d" % number).hexdigest()[:40]
        writer.append(b'{"seq":%d,"x":"%s"}' % (number, noise.encode()))
        if number % per_flush == per_flush - 1:
            writer.flush()
    writer.close()


def seqs(lines: list[bytes]) -> list[int]:
    """Return the sequence numbers of lines."""
    return [int(line.split(b",")[0][7:]) for line in lines]


def drain(reader: JournalReader, max_bytes: int = GIB) -> list[int]:
    """Return the sequence numbers of everything there is, window by window."""
    found = []
    while batch := reader.read(max_bytes).lines:
        found += seqs(batch)
    return found


def test_lines_come_once_and_in_order_over_segments(directory: Path) -> None:
    """Whatever the window."""
    write(directory, range(500), segment_bytes=1_000, per_flush=3)
    for max_bytes in (1, 1_000, GIB):
        reader = JournalReader(directory)
        assert drain(reader, max_bytes) == list(range(500))
        reader.close()


def test_lines_come_without_newlines_and_empty_ones_not_at_all(directory: Path) -> None:
    """However a frame ends."""
    directory.mkdir(parents=True)
    zstd = compressor()
    frames = [zstd.compress(content) for content in (b"a\r\n\nbc\n", b"d", b"\n", b"", b"e\n")]
    segment_path(directory, 1).write_bytes(b"".join(frames))
    reader = JournalReader(directory)
    assert reader.read(GIB).lines == [b"a\r", b"bc", b"d", b"e"]
    reader.close()


def test_a_window_is_bounded(directory: Path) -> None:
    """At most one frame more than asked for."""
    write(directory, range(1_000), per_flush=10)
    reader = JournalReader(directory, window_bytes=512)
    batch = reader.read(2_000)
    assert 2_000 <= batch.content_bytes < 2_000 + 600
    reader.close()


def test_a_frame_larger_than_the_window_is_read_whole(directory: Path) -> None:
    """The window grows for it, and shrinks again."""
    write(directory, range(2_000), per_flush=1_000)
    reader = JournalReader(directory, window_bytes=64)
    assert drain(reader) == list(range(2_000))
    reader.close()


def test_nothing_is_given_twice_without_a_restart(directory: Path) -> None:
    """An idle journal gives empty batches at the same position."""
    write(directory, range(3))
    reader = JournalReader(directory)
    position = reader.read(GIB).position
    again = reader.read(GIB)
    assert (again.lines, again.position) == ([], position)
    reader.close()


def test_a_journal_that_does_not_exist_yet_is_empty(directory: Path) -> None:
    """The worker may come later."""
    reader = JournalReader(directory)
    assert reader.read(GIB).lines == []
    write(directory, range(3))
    assert drain(reader) == [0, 1, 2]
    reader.close()


def test_a_growing_segment_is_followed_into_the_next(directory: Path) -> None:
    """Lines flushed between two reads appear in the second, across rotation."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    reader = JournalReader(directory)
    for number in range(5):
        writer.append(b'{"seq":%d,' % number)
        writer.flush()
        assert seqs(reader.read(GIB).lines) == [number]
    writer.close()
    reader.close()


def test_only_what_is_committed_is_not_read_again(directory: Path) -> None:
    """A crash after reading and before committing repeats lines, and loses none."""
    write(directory, range(20))
    reader = JournalReader(directory)
    first = reader.read(200)
    reader.commit(first.position, {"acknowledged": len(first.lines)})
    reader.read(200)
    reader.close()

    reader = JournalReader(directory)
    assert reader.accounts == {"acknowledged": len(first.lines)}
    assert seqs(first.lines) + drain(reader) == list(range(20))
    reader.close()


def test_segments_are_removed_once_they_are_shipped(directory: Path) -> None:
    """All but the newest, which may still grow."""
    write(directory, range(100), segment_bytes=500)
    reader = JournalReader(directory)
    batch = reader.read(GIB)
    assert len(segment_numbers(directory)) > 2
    reader.commit(batch.position)
    assert segment_numbers(directory) == [batch.position.segment]
    assert reader.statistics().backlog_bytes == 0
    reader.close()


def test_the_backlog_is_what_is_not_committed(directory: Path) -> None:
    """Reading alone does not shrink it."""
    write(directory, range(10))
    size = segment_path(directory, 1).stat().st_size
    reader = JournalReader(directory)
    reader.read(GIB)
    assert reader.statistics().backlog_bytes == size
    reader.close()


def test_a_journal_has_one_reader(directory: Path) -> None:
    """A second recorder cannot ship the same pairs."""
    reader = JournalReader(directory)
    with pytest.raises(StateError, match="held by another process"):
        JournalReader(directory)
    reader.close()
    reader.close()
    JournalReader(directory).close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"segment":"x"}', b'{"segment":1}'])
def test_a_damaged_position_means_from_the_beginning(directory: Path, content: bytes) -> None:
    """Twice is repaired by `pair_id`; lost is lost."""
    write(directory, range(5))
    (directory / SHIPPED).write_bytes(content)
    reader = JournalReader(directory)
    assert drain(reader) == list(range(5))
    reader.close()


def test_a_dropped_segment_is_stepped_over(directory: Path) -> None:
    """The writer may drop what has not been read; the reader goes on behind it."""
    write(directory, range(30), segment_bytes=1)
    reader = JournalReader(directory)
    first = reader.read(1)
    reader.commit(first.position)
    for number in (1, 2, 3):
        segment_path(directory, number).unlink(missing_ok=True)
    assert seqs(first.lines) + drain(reader) == [0, *range(3, 30)]
    reader.close()


def test_a_torn_tail_waits_and_is_skipped_when_its_segment_has_ended(directory: Path) -> None:
    """Half a frame may still be being written, until a newer segment says otherwise."""
    write(directory, range(3))
    segment = segment_path(directory, 1)
    os.truncate(segment, segment.stat().st_size - 2)
    reader = JournalReader(directory)
    batch = reader.read(GIB)
    assert (seqs(batch.lines), batch.skipped_bytes) == ([0, 1], 0)
    torn = segment.stat().st_size - batch.position.offset
    segment_path(directory, 2).write_bytes(b"")
    assert reader.read(GIB).skipped_bytes == torn
    assert reader.read(GIB).position == Position(2, 0)
    reader.close()


def test_garbage_larger_than_a_window_is_stepped_over(directory: Path) -> None:
    """It is counted to the byte, and the frames behind it are read."""
    write(directory, range(2))
    segment = segment_path(directory, 1)
    garbage = os.urandom(5_000)
    segment.write_bytes(garbage + segment.read_bytes())
    reader = JournalReader(directory, window_bytes=1_000)
    skipped, found = 0, []
    for _ in range(20):
        batch = reader.read(GIB)
        skipped += batch.skipped_bytes
        found += seqs(batch.lines)
    assert (found, skipped) == ([0, 1], 5_000)
    reader.close()


@given(data=st.data())
def test_damage_costs_the_frame_it_hits_and_is_counted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A flipped byte anywhere in a journal of two segments: at most one frame is missing."""
    directory = tmp_path_factory.mktemp("journal")
    write(directory, range(12), segment_bytes=300, per_flush=2)
    numbers = segment_numbers(directory)
    assert len(numbers) > 1
    segment = segment_path(directory, data.draw(st.sampled_from(numbers[:-1])))
    content = bytearray(segment.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    segment.write_bytes(content)

    reader = JournalReader(directory)
    batch = reader.read(GIB)
    reader.close()

    missing = set(range(12)) - set(seqs(batch.lines))
    assert seqs(batch.lines) == sorted(set(range(12)) - missing)
    assert len(missing) in (0, 2)
    assert bool(missing) <= bool(batch.skipped_bytes)


def test_what_cannot_be_read_now_takes_nothing_along(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines before it, of the same window, are delivered; it comes once it can be read."""
    write(directory, range(30), segment_bytes=1, per_flush=10)
    bad, pread = segment_path(directory, 2).stat().st_ino, os.pread

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, offset)

    reader = JournalReader(directory)
    with monkeypatch.context() as disk:
        disk.setattr(os, "pread", failing)
        assert seqs(reader.read(GIB).lines) == list(range(10))
        with pytest.raises(OSError, match="Input/output"):
            reader.read(GIB)
    assert drain(reader) == list(range(10, 30))
    reader.close()


@given(damaged=st.sets(st.integers(0, 5)), restarts=st.integers(1, 4))
def test_every_pair_is_read_or_known_to_be_damaged(
    tmp_path_factory: pytest.TempPathFactory, damaged: set[int], restarts: int
) -> None:
    """Six frames in two segments that have ended, over restarts of the reader in their middle."""
    directory = tmp_path_factory.mktemp("journal")
    write(directory, range(60), segment_bytes=GIB, per_flush=10)
    frames = segment_path(directory, 1).read_bytes().split(b"\x28\xb5\x2f\xfd")[1:]
    for number, content in enumerate(frames):
        frame = bytearray(b"\x28\xb5\x2f\xfd" + content)
        frame[-1] ^= number in damaged  # the checksum
        segment = segment_path(directory, 1 + number // 3)
        segment.write_bytes((segment.read_bytes() if number % 3 else b"") + frame)
    write(directory, range(60, 70), per_flush=10)
    known = {1: 30, 2: 30}
    read = lost = 0
    for _ in range(restarts * 3):
        reader = JournalReader(directory, pairs_of=known.get)
        batch = reader.read(1)
        read, lost = read + len(batch.lines), lost + batch.damaged_pairs
        reader.commit(batch.position)
        reader.close()
    reader = JournalReader(directory, pairs_of=known.get)
    batch = reader.read(GIB)
    read, lost = read + len(batch.lines), lost + batch.damaged_pairs
    reader.close()
    assert (read, lost) == (70 - 10 * len(damaged), 10 * len(damaged))
