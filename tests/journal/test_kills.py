"""Writers killed with SIGKILL at any moment: what they had flushed is there once, or counted.

`UNDERSTUDY_KILLS=5000` kills more of them; a failure prints its seed, `UNDERSTUDY_KILLS_SEED` takes it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from itertools import count
from pathlib import Path

import pytest

from proxy.config.resolved import Fsync, Journal
from proxy.journal.reader import JournalReader
from proxy.journal.segments import load_dropped, segment_numbers, segment_path
from proxy.journal.writer import JournalWriter

KILLS = int(os.environ.get("UNDERSTUDY_KILLS", "12"))
SEED = int(os.environ.get("UNDERSTUDY_KILLS_SEED", random.randrange(1 << 30)))
GIB = 1 << 30
PAIRS_PER_FLUSH = 20
#: Filled every few milliseconds, so that many are killed while they drop a segment.
SMALL_BUDGET = 50_000

pytestmark = [
    pytest.mark.timeout(30 + KILLS),
    pytest.mark.skipif(sys.platform != "linux", reason="forks a test process"),
]


def write_until_killed(directory: Path, budget: int, fsync: Fsync, first: int, told: int) -> None:
    """Journal numbered pairs as fast as can be; tell each number once it is flushed."""
    writer = JournalWriter(
        directory,
        disk_budget_bytes=budget,
        journal=Journal(segment_bytes=50_000, fsync=fsync),
    )
    for number in count(first):
        writer.append(b'{"n":%d,"x":"%b"}' % (number, os.urandom(40).hex().encode()))
        if number % PAIRS_PER_FLUSH == PAIRS_PER_FLUSH - 1:
            writer.flush()
            writer.tick()
            os.pwrite(told, b"%020d" % number, 0)


def numbers_of(lines: list[bytes]) -> list[int]:
    """Return the numbers of lines."""
    return [int(line[5 : line.index(b",")]) for line in lines]


def last_on_disk(directory: Path) -> int:
    """Return the highest number in the newest segments, -1 where they hold none; looks only."""
    for number in reversed(segment_numbers(directory)):
        copy = directory.parent / "copy"
        copy.mkdir(exist_ok=True)
        segment_path(copy, 1).write_bytes(segment_path(directory, number).read_bytes())
        reader = JournalReader(copy)
        lines = reader.read(GIB).lines
        reader.close()
        if lines:
            return numbers_of(lines)[-1]
    return -1


@pytest.mark.parametrize(
    ("budget", "fsync"),
    [(GIB, Fsync.NONE), (SMALL_BUDGET, Fsync.NONE), (SMALL_BUDGET, Fsync.FLUSH)],
)
def test_what_was_flushed_survives_kills_or_is_counted(
    tmp_path: Path, budget: int, fsync: Fsync
) -> None:
    """Delivered and dropped pairs are all that were written; none twice, none out of order."""
    chance = random.Random(SEED)
    directory = tmp_path / "worker-0"
    told = os.open(tmp_path / "told", os.O_RDWR | os.O_CREAT)
    reader = JournalReader(directory)
    delivered: list[int] = []
    written = 0
    for _ in range(KILLS):
        os.pwrite(told, b"%020d" % (written - 1), 0)
        child = multiprocessing.get_context("fork").Process(
            target=write_until_killed, args=(directory, budget, fsync, written, told)
        )
        child.start()
        child.join(chance.uniform(0.001, 0.03))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"seed {SEED}"
        flushed = int(os.pread(told, 20, 0)) + 1
        known = max(last_on_disk(directory), delivered[-1] if delivered else -1) + 1
        # A frame that was written and not told yet; never half of one.
        assert known - flushed in (0, PAIRS_PER_FLUSH), f"seed {SEED}"
        written = known
        if chance.random() < 0.5:
            batch = reader.read(chance.choice([1, 20_000, GIB]))
            delivered += numbers_of(batch.lines)
            if chance.random() < 0.7:
                reader.commit(batch.position)
    os.close(told)
    last = JournalWriter(directory, disk_budget_bytes=budget)
    last.close()
    while lines := reader.read(GIB).lines:
        delivered += numbers_of(lines)
    reader.close()
    assert delivered == sorted(set(delivered)), f"seed {SEED}"
    dropped = load_dropped(directory).pairs
    assert budget == SMALL_BUDGET or not dropped, f"seed {SEED}"
    assert len(delivered) + dropped == written, f"seed {SEED}"
