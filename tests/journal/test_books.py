"""What a journal says to those who only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.resolved import Journal
from proxy.journal.books import JournalBooks, read_books
from proxy.journal.reader import JournalReader
from proxy.journal.segments import Dropped, doomed_path, segment_path, store_dropped
from proxy.journal.writer import JournalWriter

GIB = 1 << 30


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a worker's journal goes; it is not there yet."""
    return tmp_path / "worker-0"


def test_pairs_are_retained_until_they_are_shipped(directory: Path) -> None:
    """Those of every segment behind the position, and of its own those behind the offset."""
    assert read_books(directory) == JournalBooks()
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    for number in range(30):
        writer.append(b'{"seq":%d}' % number)
        if number % 10 == 9:
            writer.flush()
    assert read_books(directory).retained == 30
    reader = JournalReader(directory)
    batch = reader.read(1)
    reader.commit(batch.position, {"acknowledged": 8, "dropped.too_large": 2})
    store_dropped(directory, Dropped(7, 1))
    books = read_books(directory)
    assert (books.retained, books.journal_full) == (20, 7)
    assert books.accounts == {"acknowledged": 8, "dropped.too_large": 2}
    assert books.backlog_bytes == reader.statistics().backlog_bytes > 0
    reader.close()
    writer.close()


def test_a_segment_that_is_being_dropped_is_dropped(directory: Path) -> None:
    """It has its other name before it is counted; a writer may have died in between."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    for _ in range(3):
        writer.append(b"{}")
        writer.flush()
    segment_path(directory, 1).rename(doomed_path(directory, 1, 1))
    for _ in range(2):
        books = read_books(directory)
        assert (books.retained, books.journal_full) == (2, 1)
        store_dropped(directory, Dropped(1, 1, 1))
    writer.close()


def test_what_was_shipped_out_of_turn_is_not_retained(directory: Path) -> None:
    """Of the newest segment only what lies behind it."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=40))
    for _ in range(12):
        writer.append(b"{}")
        writer.flush()
    reader = JournalReader(directory, window_bytes=64)
    first, newest = reader.read(1), reader.read_newest(1)
    assert newest is not None
    count = len(first.lines) + len(newest.lines)
    ahead = {newest.position.segment: newest.position}
    reader.commit(first.position, {"acknowledged": count}, ahead)
    books = read_books(directory)
    assert (books.retained, count) == (10, 2)
    assert books.backlog_bytes == reader.statistics().backlog_bytes
    reader.close()
    writer.close()


def test_a_large_backlog_is_not_counted_by_the_way(directory: Path) -> None:
    """It would keep a status waiting."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    writer.append(b"{}")
    size = writer.close().bytes_written
    assert read_books(directory, counted_bytes=size - 1).retained is None
    assert read_books(directory, counted_bytes=size).retained == 1


def test_a_directory_that_cannot_be_read_fails_no_status(tmp_path: Path) -> None:
    """Nothing is known of what it retains."""
    (tmp_path / "file").touch()
    assert read_books(tmp_path / "file").retained is None
