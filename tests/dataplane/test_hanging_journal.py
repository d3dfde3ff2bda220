"""A disk that hangs under the journal: no user waits, pairs wait in memory, and the books add up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.dataplane import journaling
from proxy.dataplane.write_thread import WriteThread
from proxy.journal.frame_file import FrameFile
from proxy.state.stats_page import Lost
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.deadline import PATIENCE_S
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Upstream, answer

BODY = bytes(range(256)) * 64


class Disk:
    """Lets writes of journals through, or keeps each waiting as long as it `hangs`."""

    def __init__(self) -> None:
        self._works = threading.Event()
        self._works.set()
        self.waiting = 0

    def hang(self) -> None:
        """Take no write from now on."""
        self._works.clear()

    def go_on(self) -> None:
        """Take writes, those that wait first."""
        self._works.set()

    def take(self) -> None:
        """Return when the disk takes a write."""
        self.waiting += 1
        assert self._works.wait(PATIENCE_S)
        self.waiting -= 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk under every journal of this process."""
    found, append = Disk(), FrameFile.append

    def appending(self: FrameFile, content: bytes) -> int:
        found.take()
        return append(self, content)

    monkeypatch.setattr(FrameFile, "append", appending)
    yield found
    found.go_on()


@asynccontextmanager
async def _plane(state_dir: Path, options: Options | None = None) -> AsyncIterator[Plane]:
    async with (
        Upstream(answer(BODY)) as one,
        Upstream(answer(BODY)) as two,
        dataplane(
            state_dir, primary=one.port, candidates={"v2": two.port}, options=options
        ) as plane,
    ):
        yield plane


async def _ask(plane: Plane, count: int) -> None:
    for _ in range(count):
        status, _, body = await plane.request(b"POST", b"/iris", body=b"{}")
        assert (status, body) == (200, BODY)


async def _hang_with_five_waiting(plane: Plane, disk: Disk) -> None:
    """Hang with one pair on its way to the disk, and five in memory."""
    disk.hang()
    await _ask(plane, 1)
    await until(lambda: disk.waiting, "a write that hangs")
    await _ask(plane, 5)
    await until(lambda: plane.worker.journal.buffered_pairs == 5, "pairs in memory")


def _lost(plane: Plane) -> int:
    return plane.count("pairs_lost", "iris", "v2", str(Lost.JOURNAL_ERROR))


async def test_users_are_served_while_the_disk_hangs_and_no_pair_is_lost(
    tmp_path: Path, disk: Disk
) -> None:
    """What was being written and what came after it is written when the disk goes on."""
    async with _plane(tmp_path / "state") as plane:
        await _ask(plane, 3)
        await plane.pairs(3)
        disk.hang()
        await _ask(plane, 1)
        await until(lambda: disk.waiting, "a write that hangs")
        await _ask(plane, 20)
        await until(lambda: plane.worker.journal.buffered_pairs == 20, "pairs in memory")
        assert len(plane.lines()) == 3
        disk.go_on()
        lines = await plane.pairs(24)
        assert [line["seq"] for line in lines] == list(range(1, 25))
        assert _lost(plane) == 0
        check_ledger(plane)


async def test_memory_is_bounded_while_the_disk_hangs(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A quarter of `limits.memory` waits; what comes then is lost, counted and told."""
    monkeypatch.setattr(journaling, "HANGS_S", 0.0)
    options = Options(limits={"memory_bytes": 1 << 20})
    async with _plane(tmp_path / "state", options) as plane:
        disk.hang()
        await _ask(plane, 1)
        await until(lambda: disk.waiting, "a write that hangs")
        asked = 1
        while not _lost(plane):
            await _ask(plane, 1)
            asked += 1
        assert 1 << 18 < plane.worker.journal.buffered_bytes < (1 << 18) + 4 * len(BODY)
        assert "the disk has not taken a write for" in caplog.text
        disk.go_on()
        await plane.pairs(asked - _lost(plane))
        await until(plane.is_flushed, "the flush")
        assert plane.count("pairs_journaled", "iris", "v2") == asked - _lost(plane)
        check_ledger(plane)


async def test_a_disk_that_is_only_busy_loses_nothing(tmp_path: Path, disk: Disk) -> None:
    """Over the bound of memory, too: pairs of a burst are not lost to a write of a moment."""
    options = Options(limits={"memory_bytes": 1 << 20})
    async with _plane(tmp_path / "state", options) as plane:
        disk.hang()
        await _ask(plane, 1)
        await until(lambda: disk.waiting, "a write that hangs")
        plane.worker.journaling._begun_s = float("inf")  # it has only just begun
        await _ask(plane, 40)
        await until(lambda: plane.worker.journal.buffered_pairs == 40, "pairs in memory")
        assert plane.worker.journal.buffered_bytes > 1 << 18
        disk.go_on()
        await plane.pairs(41)
        assert _lost(plane) == 0


async def test_a_stop_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is lost and counted; the flush under way is for the successor to settle."""
    monkeypatch.setattr(journaling, "CLOSE_S", 0.05)
    async with _plane(tmp_path / "state") as plane:
        await _hang_with_five_waiting(plane, disk)
        await asyncio.wait_for(plane.worker.stop(0.1), PATIENCE_S)
        assert _lost(plane) == 5
        assert plane.worker.stats.is_open
        disk.go_on()
        await until(lambda: not plane.worker.journaling.is_busy, "the write")
        assert len(plane.lines()) == 1
        assert plane.count("pairs_journaled", "iris", "v2") == 1


async def test_a_stop_waits_for_a_slow_disk_for_the_time_that_copies_leave(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost to it then."""
    monkeypatch.setattr(journaling, "CLOSE_S", 0.05)
    async with _plane(tmp_path / "state") as plane:
        await _hang_with_five_waiting(plane, disk)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            stopping = group.create_task(plane.worker.stop(PATIENCE_S))
            await asyncio.sleep(0.2)  # four times what a stop without time to give would wait
            assert not stopping.done()
            disk.go_on()
        assert _lost(plane) == 0
        assert not plane.worker.stats.is_open
        assert len(plane.lines()) == 6


async def test_a_thread_hands_over_what_a_job_returns_or_raises() -> None:
    """One after another, and in the loop's own thread."""
    found: list[object] = []
    threads: set[int] = set()

    def done(result: object) -> None:
        threads.add(threading.get_ident())
        found.append(result)

    thread = WriteThread("test", asyncio.get_running_loop(), done)
    thread.do(threading.get_ident)
    assert thread.is_busy
    await until(lambda: not thread.is_busy, "the job")
    thread.do(lambda: 1 // 0)
    await until(lambda: not thread.is_busy, "the other job")
    assert found[0] != threading.get_ident()
    assert isinstance(found[1], ZeroDivisionError)
    assert threads == {threading.get_ident()}
    thread.close()


async def test_a_thread_that_was_ended_is_followed_by_another() -> None:
    """At once, too, while the first one has not ended yet; each job is done once."""
    found: list[object] = []
    thread = WriteThread("test", asyncio.get_running_loop(), found.append)
    for number in range(200):
        thread.do(lambda number=number: number)  # type: ignore[misc]  # a default binds it
        await until(lambda: not thread.is_busy, "the job")
        thread.close()
    assert found == list(range(200))


async def test_where_no_thread_can_be_started_the_job_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that may have no more threads writes its pairs all the same."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found: list[object] = []
    thread = WriteThread("test", asyncio.get_running_loop(), found.append)
    thread.do(lambda: "done")
    await until(lambda: not thread.is_busy, "the job")
    assert found == ["done"]
