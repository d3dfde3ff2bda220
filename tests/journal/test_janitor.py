"""What happens beside the event loop: segments end by age, are synced, dropped, or kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from proxy.config.resolved import DropPolicy, Fsync, Journal
from proxy.journal import janitor as janitor_module
from proxy.journal.reader import JournalReader
from proxy.journal.segments import (
    Dropped,
    JournalFullError,
    Position,
    Shipped,
    doomed_path,
    load_dropped,
    segment_numbers,
    segment_path,
    store_dropped,
    store_shipped,
)
from proxy.journal.writer import RETRY_S, JournalWriter

GIB = 1 << 30


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a worker's journal goes; it is not there yet."""
    return tmp_path / "journal" / "worker-0"


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


def put(writer: JournalWriter, seq: int) -> None:
    """Flush one pair that hardly compresses, of about 100 bytes."""
    writer.append(b'{"seq":%d,"x":"%s"}' % (seq, os.urandom(70).hex().encode()))
    writer.flush()


def seqs(lines: list[bytes]) -> list[int]:
    """Return the sequence numbers of lines."""
    return [int(line.split(b",")[0][7:]) for line in lines]


def test_a_segment_ends_by_age_though_nothing_follows(directory: Path, clock: Clock) -> None:
    """What is shipped of it can be removed then; an empty one follows, and no second one."""
    journal = Journal(segment_age_s=60)
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    reader = JournalReader(directory)
    put(writer, 1)
    clock.now_s += 59
    writer.tick()
    assert segment_numbers(directory) == [1]
    clock.now_s += 1
    for _ in range(3):
        writer.tick()
        clock.now_s += 100
    assert segment_numbers(directory) == [1, 2]
    reader.commit(reader.read(GIB).position)
    assert segment_numbers(directory) == [2]
    put(writer, 2)
    writer.close()
    assert seqs(reader.read(GIB).lines) == [2]
    reader.close()


def test_without_syncs_and_within_budget_there_is_no_thread(directory: Path, clock: Clock) -> None:
    """What is off costs nothing."""
    before = set(threading.enumerate())
    writer = JournalWriter(directory, disk_budget_bytes=GIB, clock=clock)
    for seq in range(20):
        put(writer, seq)
        clock.now_s += 10
        writer.tick()
    assert set(threading.enumerate()) <= before
    assert writer.statistics().syncs == 0
    writer.close()


@pytest.mark.parametrize(("fsync", "syncs"), [(Fsync.INTERVAL, 2), (Fsync.FLUSH, 10)])
def test_what_is_written_is_synced_as_often_as_asked(
    directory: Path, clock: Clock, fsync: Fsync, syncs: int
) -> None:
    """Each second, or after each flush; nothing when nothing was written; and at the end."""
    journal = Journal(fsync=fsync, fsync_interval_s=1)
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    for seq in range(10):
        put(writer, seq)
        clock.now_s += 0.2
        writer.tick()
        assert writer.settle(5)
    assert writer.statistics().syncs == syncs
    clock.now_s += 10
    writer.tick()
    writer.settle(5)
    assert writer.statistics().syncs == syncs
    put(writer, 11)
    writer.close()
    assert writer.statistics().syncs == syncs + 1
    assert writer.statistics().sync_errors == 0


def test_a_disk_that_hangs_stops_neither_flushes_nor_the_end(
    directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sync is under way and one due for each segment; what cannot be synced is counted."""
    hangs = threading.Event()
    monkeypatch.setattr(janitor_module, "_sync_data", lambda _: hangs.wait(10))
    monkeypatch.setattr("proxy.journal.writer.CLOSE_S", 0.05)
    journal = Journal(fsync=Fsync.FLUSH, segment_bytes=1)
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    open_before = psutil.Process().num_fds()
    for seq in range(100):
        put(writer, seq)
    assert writer.statistics().sync_errors > 60
    assert psutil.Process().num_fds() < open_before + 40
    writer.close()
    hangs.set()
    assert writer.statistics().pairs == 100


def test_a_sync_that_fails_is_counted(
    directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the journal goes on."""

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(janitor_module, "_sync_data", refuse)
    journal = Journal(fsync=Fsync.FLUSH)
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    put(writer, 1)
    assert writer.settle(5)
    put(writer, 2)
    writer.close()
    assert writer.statistics().sync_errors == 2
    assert writer.statistics().pairs == 2


def test_without_threads_or_descriptors_pairs_are_journaled_all_the_same(
    directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be synced for want of them is no loss of what is written."""

    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    journal = Journal(fsync=Fsync.FLUSH)
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", refuse)
        put(writer, 1)
    assert writer.statistics().sync_errors == 1
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        put(writer, 2)
    put(writer, 3)
    writer.close()
    assert writer.statistics().pairs == 3
    assert writer.statistics().syncs > 0


def test_with_drop_newest_the_oldest_stay(directory: Path, clock: Clock) -> None:
    """What comes when it is full is refused and counted, until the reader has made room."""
    journal = Journal(segment_bytes=2_000, drop=DropPolicy.NEWEST)
    writer = JournalWriter(directory, disk_budget_bytes=16_000, journal=journal, clock=clock)
    taken, refused = [], []
    for seq in range(300):
        try:
            put(writer, seq)
            taken.append(seq)
        except JournalFullError:
            refused.append(seq)
        clock.now_s += 0.1
    assert taken == list(range(len(taken)))
    assert writer.statistics().failed_pairs == len(refused) > 50
    on_disk = sum(path.stat().st_size for path in directory.glob("*.zst"))
    assert 16_000 <= on_disk < 16_000 + 200  # a frame more at most
    assert writer.settle(5)  # no look that began before there is room

    reader = JournalReader(directory)
    batch = reader.read(GIB)
    assert seqs(batch.lines) == taken
    reader.commit(batch.position)
    clock.now_s += RETRY_S
    with pytest.raises(JournalFullError):
        put(writer, 300)  # asks the janitor to look
    assert writer.settle(5)
    put(writer, 301)
    writer.close()
    assert seqs(reader.read(GIB).lines) == [301]
    assert writer.statistics().dropped_pairs == 0
    reader.close()


def test_what_the_reader_has_in_hand_is_not_dropped(directory: Path, clock: Clock) -> None:
    """Its pairs may be at the sink already: dropped, they would be counted twice."""
    journal = Journal(segment_bytes=2_000)
    writer = JournalWriter(directory, disk_budget_bytes=16_000, journal=journal, clock=clock)
    for seq in range(30):
        put(writer, seq)
    reader = JournalReader(directory)
    in_hand = reader.read(1)
    for seq in range(30, 400):
        put(writer, seq)
        writer.settle(5)
    assert 1 in segment_numbers(directory)
    more = []
    while batch := reader.read(GIB).lines:
        more += batch
    writer.close()
    reader.close()
    assert len(in_hand.lines) + len(more) + writer.statistics().dropped_pairs == 400


@pytest.mark.parametrize("is_counted", [False, True])
def test_a_writer_killed_while_it_drops_counts_once(directory: Path, is_counted: bool) -> None:
    """Its successor counts and removes the segment that was begun to be dropped."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    for seq in range(3):
        put(writer, seq)
    writer.close()
    segment_path(directory, 1).rename(doomed_path(directory, 1, 7))
    dropped = Dropped(10, 2, 0)
    store_dropped(directory, dropped.plus(1, 7) if is_counted else dropped)
    successor = JournalWriter(directory, disk_budget_bytes=GIB)
    successor.close()
    assert load_dropped(directory) == Dropped(17, 3, 1)
    assert successor.statistics().dropped_pairs == 17
    assert not list(directory.glob("*.dropped"))


def test_segments_of_a_dead_worker_are_dropped_to_the_pair(directory: Path, clock: Clock) -> None:
    """Its successor has not written them: it asks the frames, also of one shipped in part."""
    journal = Journal(segment_bytes=2_000)
    first = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal, clock=clock)
    for seq in range(100):
        put(first, seq)
    first.close()
    reader = JournalReader(directory)
    shipped = reader.read(1)
    store_shipped(directory, Shipped(shipped.position))
    reader.close()
    second = JournalWriter(directory, disk_budget_bytes=4_000, journal=journal, clock=clock)
    for seq in range(100, 200):
        put(second, seq)
    second.close()
    reader = JournalReader(directory)
    left = reader.read(GIB).lines
    reader.close()
    assert seqs(left)[-1] == 199
    assert len(shipped.lines) + second.statistics().dropped_pairs + len(left) == 200


def test_what_only_looks_like_a_segment_harms_nobody(directory: Path, clock: Clock) -> None:
    """A folder, a pipe that would never open, a link; nor does a number that is the last of its length."""
    directory.mkdir(parents=True)
    segment_path(directory, 7).mkdir()
    os.mkfifo(segment_path(directory, 8))
    outside = directory.parent / "outside"
    outside.write_bytes(b"mine")
    segment_path(directory, 9).symlink_to(outside)
    foreign = set(directory.iterdir())
    segment_path(directory, 999_999_999_999).touch()
    writer = JournalWriter(directory, disk_budget_bytes=GIB, clock=clock)
    put(writer, 1)
    writer.close()
    reader = JournalReader(directory)
    batch = reader.read(GIB)
    assert seqs(batch.lines) == [1]
    assert batch.position == Position(10**12, writer.statistics().disk_bytes)
    reader.close()
    assert foreign <= set(directory.iterdir())
    assert outside.read_bytes() == b"mine"
