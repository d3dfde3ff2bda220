"""Far behind, the newest lines are read beside the oldest; each once, and every position is exact."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.config.resolved import Journal
from proxy.journal.cursor import Batch
from proxy.journal.reader import JournalReader
from proxy.journal.segments import Position, load_dropped, segment_numbers, segment_path
from proxy.journal.writer import JournalWriter

GIB = 1 << 30


def seqs(batch: Batch) -> list[int]:
    """Return the numbers in a batch."""
    return [int(line) for line in batch.lines]


class Tail:
    """A reader that keeps the places of what it has delivered, as the recorder does."""

    def __init__(
        self, directory: Path, pairs_of: Callable[[int], int | None] = lambda _: None
    ) -> None:
        self.reader = JournalReader(directory, window_bytes=64, pairs_of=pairs_of)
        self.delivered = self.reader.committed
        self.ahead = dict(self.reader.ahead)
        self.count = self.reader.accounts.get("n", 0)
        self.damaged = self.reader.accounts.get("damaged", 0)

    def take(self, batch: Batch) -> list[int]:
        """Deliver a batch."""
        if batch.is_ahead:
            self.ahead[batch.position.segment] = batch.position
        else:
            self.delivered = batch.position
        self.count += len(batch.lines)
        self.damaged += batch.damaged_pairs
        return seqs(batch)

    def commit(self) -> None:
        """Make it durable."""
        accounts = {"n": self.count, "damaged": self.damaged}
        self.reader.commit(self.delivered, accounts, self.ahead)


def append(writer: JournalWriter, numbers: range) -> None:
    """Journal a frame, and so a segment, for each number."""
    for number in numbers:
        writer.append(b"%d" % number)
        writer.flush()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where a worker's journal goes."""
    return tmp_path / "worker-0"


def test_nothing_is_read_out_of_turn_without_a_backlog(directory: Path) -> None:
    """A segment that has just ended is no backlog."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    append(writer, range(2))
    tail = Tail(directory)
    assert seqs(tail.reader.read(1)) == [0]
    assert tail.reader.read_newest(1) is None
    writer.close()
    tail.reader.close()


def test_the_newest_do_not_wait_for_the_oldest(directory: Path) -> None:
    """And what is done out of turn is removed at once: it must not use up the disk budget."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=1))
    append(writer, range(10))
    tail = Tail(directory)
    found = []
    for number in range(10, 14):
        for batch in (tail.reader.read(1), tail.reader.read_newest(1)):
            assert batch is not None
            found += tail.take(batch)
        append(writer, range(number, number + 1))
        tail.commit()
    assert found == [0, 9, 1, 10, 2, 11, 3, 12]
    # Segment n + 1 holds number n; the one of 12 has just ended, which no read has seen yet.
    assert segment_numbers(directory) == [4, 5, 6, 7, 8, 9, 13, 14]
    assert tail.reader.statistics().backlog_bytes > 0
    while (batch := tail.reader.read(1)).lines:
        found += tail.take(batch)
    assert sorted(found) == list(range(14))
    tail.commit()
    assert (tail.reader.ahead, tail.reader.statistics().backlog_bytes) == ({}, 0)
    writer.close()
    tail.reader.close()


def test_the_disk_budget_counts_only_what_is_not_shipped_ahead(directory: Path) -> None:
    """A segment that was read out of turn and is dropped later has cost its rest."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=100))
    append(writer, range(40))
    tail = Tail(directory)
    tail.reader.read(1)
    for _ in range(2):
        batch = tail.reader.read_newest(1)
        assert batch is not None
        tail.take(batch)
    tail.commit()
    tail.reader.close()
    writer.close()
    # A budget for nothing: every closed segment goes, with a new line in a segment of its own.
    writer = JournalWriter(directory, disk_budget_bytes=1, journal=Journal(segment_bytes=1))
    append(writer, range(40, 42))
    writer.close()
    assert load_dropped(directory).pairs == 40 - 2 + 1


def can_drop(directory: Path, number: int) -> bool:
    """Return whether the writer could drop a segment: nobody has it in hand."""
    with segment_path(directory, number).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_segment_that_is_left_in_the_middle_is_in_hand_until_it_is_committed(
    directory: Path,
) -> None:
    """What is on its way to the sink must not be dropped; what waits for hours may be."""
    writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=100))
    append(writer, range(40))
    tail = Tail(directory)
    tail.take(tail.reader.read(1))
    batch = tail.reader.read_newest(1)
    assert batch is not None
    left = batch.position.segment
    append(writer, range(40, 60))
    further = tail.reader.read_newest(1)
    assert further is not None
    assert further.position.segment > left + 1
    tail.commit()
    assert not can_drop(directory, left), "its batch is under way"
    tail.take(batch)
    tail.commit()
    assert can_drop(directory, left)
    assert not can_drop(directory, 1), "it is being read"
    assert not can_drop(directory, further.position.segment), "it is being read"
    writer.close()
    tail.reader.close()


_STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "oldest", "newest", "commit", "crash"]), st.integers(1, 9)),
    max_size=60,
)


@given(_STEPS, st.sampled_from([1, 60, 200]))
def test_every_line_is_delivered_and_counted_once(
    steps: list[tuple[str, int]], segment_bytes: int
) -> None:
    """Whatever is read in which order; a crash repeats what was not committed, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "worker-0"
        writer = JournalWriter(
            directory, disk_budget_bytes=GIB, journal=Journal(segment_bytes=segment_bytes)
        )
        tail, written = Tail(directory), 0
        durable: Counter[int] = Counter()
        fresh: list[int] = []
        for step, number in [*steps, ("commit", 0), ("crash", 0), ("drain", 0), ("commit", 0)]:
            if step == "write":
                append(writer, range(written, written + number))
                written += number
            elif step == "oldest":
                fresh += tail.take(tail.reader.read(number))
            elif step == "newest":
                if (batch := tail.reader.read_newest(number)) is not None:
                    fresh += tail.take(batch)
            elif step == "drain":
                while (batch := tail.reader.read(GIB)).lines:
                    fresh += tail.take(batch)
            elif step == "commit":
                tail.commit()
                durable.update(fresh)
                fresh = []
                assert tail.reader.accounts["n"] == durable.total()
            else:
                tail.reader.close()
                tail, fresh = Tail(directory), []
        assert durable == Counter(range(written))
        assert tail.reader.statistics().backlog_bytes == 0
        assert tail.reader.committed >= Position()
        tail.reader.close()
        writer.close()


def spoil(directory: Path, number: int) -> None:
    """Damage the checksum of the last frame of a segment."""
    with segment_path(directory, number).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


_READS = st.lists(
    st.sampled_from(["oldest", "newest", "newest", "write", "write", "spoilt", "commit", "crash"]),
    max_size=60,
)


@given(_READS)
def test_each_pair_is_read_or_damaged_once_whoever_reads_the_segment(steps: list[str]) -> None:
    """Segments of a few pairs, some damaged, read from both ends with crashes in between."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "worker-0"
        journal = Journal(segment_bytes=60)
        writer = JournalWriter(directory, disk_budget_bytes=GIB, journal=journal)
        known: Counter[int] = Counter()
        spoilt = 0
        tail = Tail(directory, known.get)
        for step in [*["write"] * 9, "oldest", *steps, *["write"] * 9, "commit", "crash"]:
            if step == "oldest":
                tail.take(tail.reader.read(1))
            elif step == "newest":
                if (batch := tail.reader.read_newest(1)) is not None:
                    tail.take(batch)
            elif step == "commit":
                tail.commit()
            elif step == "crash":
                tail.reader.close()
                tail = Tail(directory, known.get)
            else:
                append(writer, range(1))
                known[writer.segment] += 1
                if step == "spoilt":
                    spoil(directory, writer.segment)
                    spoilt += 1
        while (batch := tail.reader.read(GIB)).lines:
            tail.take(batch)
        tail.take(batch)
        assert (tail.count, tail.damaged) == (known.total() - spoilt, spoilt)
        tail.reader.close()
        writer.close()
