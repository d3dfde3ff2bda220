"""A worker that is killed at any moment leaves books that its successor settles exactly.

A kill is simulated where it matters to the microsecond: the stores into the page stop after some of
them, as they would, and what is in `state_dir` then is what the successor finds.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Config, digest
from proxy.control.ledger import imbalances, ledger
from proxy.control.snapshot import Observer
from proxy.dataplane import journaling
from proxy.dataplane.takeover import take_over
from proxy.dataplane.worker import Worker
from proxy.errors import StateError
from proxy.journal.buffer import Batch
from proxy.journal.reader import JournalReader
from proxy.journal.scan import count_lines
from proxy.journal.writer_statistics import FlushResult
from proxy.state.stats_file import StatsPage, open_left, segment_pairs
from tests.support.dataplane import Plane, dataplane, prepare, until
from tests.support.resolved_config import write_config
from tests.support.upstreams import Upstream, echo

REQUESTS = 3
CANDIDATES = ("v2", "v3")
GIB = 1 << 30

pytestmark = pytest.mark.skipif(
    os.environ.get("UNDERSTUDY_COMPILED") == "1",
    reason="compiled code does not take the double that ends the stores half-way",
)


class _KilledError(BaseException):
    """Nothing more happens in this process."""


class _Mortal:
    """Counts the steps of a process, and ends it after some of them."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> None:
        if not self.left:
            raise _KilledError
        self.left -= 1


class _Cells:
    """Counters that can be written to until the process is killed."""

    def __init__(self, cells: memoryview[int], life: _Mortal) -> None:
        self._cells, self._life = cells, life

    def __getitem__(self, cell: int) -> int:
        return self._cells[cell]

    def __setitem__(self, cell: int, value: int) -> None:
        self._life.step()
        self._cells[cell] = value

    def release(self) -> None:
        """Let the page be closed."""
        self._cells.release()


def _make_mortal(page: StatsPage, life: _Mortal) -> None:
    """Have every store into a page be a step."""
    page.cells = _Cells(page.cells, life)  # type: ignore[assignment]
    for name in ("count_segment", "open_books", "close_books"):
        store = getattr(page, name)

        def stepping(*arguments: int, store: object = store) -> None:
            life.step()
            store(*arguments)  # type: ignore[operator]

        setattr(page, name, stepping)


@asynccontextmanager
async def _with_pairs_in_memory(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Plane]:
    """Run a worker that has some pairs in its journal, and some more that it has not flushed."""
    monkeypatch.setattr(journaling, "FLUSH_S", 60.0)
    async with Upstream(echo) as one, Upstream(echo) as two:
        ports = dict.fromkeys(CANDIDATES, two.port)
        async with dataplane(state_dir, primary=one.port, candidates=ports) as plane:
            for _ in range(2):
                await _flush(plane)
                await asyncio.gather(
                    *(plane.request(b"POST", b"/", body=b"{}") for _ in range(REQUESTS))
                )
                due = REQUESTS * len(CANDIDATES)
                await until(lambda: plane.worker.journal.buffered_pairs == due, "the pairs")  # noqa: B023 - awaited at once
            yield plane


async def _flush(plane: Plane) -> None:
    """Have a worker write what it has buffered, and book it."""
    plane.worker.journaling.flush()
    await until(lambda: not plane.worker.journaling.is_busy, "the flush")


def _settled(config: Config) -> dict[str, dict[str, int]]:
    """Start a worker and stop it, check that the books balance, and return the lines' parts."""
    loop = asyncio.get_running_loop()
    worker = Worker(config, 0, loop)
    worker.journal.close()
    worker.stats.close_books()
    for pool in worker.pools.values():
        pool.close()
    observer = Observer(config)
    snapshot = observer.snapshot()
    observer.close()
    assert imbalances(snapshot, quiet=True) == []
    assert snapshot.unsettled == 0
    return {account.name: account.parts for account in ledger(snapshot)}


def _killed_in_flush(plane: Plane, steps: int) -> bool:
    """Let a worker flush until it is killed; return whether it was."""
    worker, life = plane.worker, _Mortal(steps)
    cells, write, thread = worker.cells, worker.journal.write, worker.journaling._writing

    def writing(batch: Batch) -> FlushResult:
        life.step()
        written = write(batch)
        life.step()
        return written

    worker.cells = _Cells(cells, life)  # type: ignore[assignment]
    worker.journal.write = writing  # type: ignore[method-assign]  # each step may be the last
    # Here and now, because the steps of two threads have no order.
    thread.do = lambda job: thread._done(job())  # type: ignore[method-assign]  # see above
    count_segment = worker.stats.count_segment

    def counting(number: int, pairs: int) -> None:
        life.step()
        count_segment(number, pairs)

    worker.stats.count_segment = counting  # type: ignore[method-assign]
    try:
        worker.journaling.flush()
    except _KilledError:
        return True
    finally:
        worker.cells, worker.journal.write = cells, write  # type: ignore[method-assign]  # as it was
        del thread.do
        worker.stats.count_segment = count_segment  # type: ignore[method-assign]
    return False


async def test_a_flush_that_a_kill_cuts_anywhere_is_counted_or_lost_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reached the journal is journaled, else it died; a killed successor changes nothing."""
    pairs = REQUESTS * len(CANDIDATES)
    steps, is_killed, journaled = 0, True, []
    while is_killed:
        state_dir = tmp_path / str(steps)
        async with _with_pairs_in_memory(state_dir, monkeypatch) as plane:
            is_killed = _killed_in_flush(plane, steps)
            left = tmp_path / f"{steps}-left"
            shutil.copytree(state_dir, left)
            config = replace(plane.worker.config, state_dir=str(left))
        lines = _lines(left)
        for successor in (0, 1, 2, 5, 8, 13):
            _take_over_until_killed(config, successor)
        parts = _settled(config)["pairs decided"]
        assert parts["journaled"] == lines
        assert segment_pairs(left, 0, 1) == lines
        assert parts.get("lost worker_died", 0) == 2 * pairs - lines
        journaled.append(lines)
        steps += 1
    assert journaled == sorted(journaled)
    assert set(journaled) == {pairs, 2 * pairs}
    assert journaled.count(2 * pairs) > 3, "several of the kills came after the write"


def _take_over_until_killed(config: Config, steps: int) -> None:
    state_dir = Path(config.state_dir)
    page = open_left(state_dir, 0)
    _make_mortal(page, _Mortal(steps))
    with suppress(_KilledError):
        take_over(config, 0, page)
    page.close()


def _lines(state_dir: Path) -> int:
    return sum(count_lines(path, 0) for path in (state_dir / "journal").glob("worker-0/*.zst"))


async def test_pairs_whose_frame_was_torn_later_are_damaged_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes the end of a segment that was counted: the reader knows what is not there."""
    pairs = REQUESTS * len(CANDIDATES)
    state_dir = tmp_path / "state"
    async with _with_pairs_in_memory(state_dir, monkeypatch) as plane:
        await _flush(plane)
        left = tmp_path / "left"
        shutil.copytree(state_dir, left)
        config = replace(plane.worker.config, state_dir=str(left))
    directory = left / "journal" / "worker-0"
    (segment,) = directory.glob("*.zst")
    os.truncate(segment, segment.stat().st_size - 3)
    with suppress(AssertionError):
        _settled(config)  # the reader has not come to the segment's end, so these are missing yet
    (directory / "000000000009.ndjson.zst").touch()
    reader = JournalReader(directory, pairs_of=lambda number: segment_pairs(left, 0, number))
    batch = reader.read(GIB)
    assert (len(batch.lines), batch.damaged_pairs) == (pairs, pairs)
    reader.commit(batch.position, {"acknowledged": pairs, "dropped.damaged": pairs})
    reader.close()
    assert _settled(config)["pairs journaled"] == {"acknowledged": pairs, "dropped damaged": pairs}


async def test_a_worker_that_still_finishes_keeps_its_books(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor may not start, and settles nothing: the pairs in memory will be journaled."""
    async with _with_pairs_in_memory(tmp_path / "state", monkeypatch) as plane:
        with pytest.raises(StateError, match="held by another process"):
            Worker(plane.worker.config, 0, asyncio.get_running_loop())
        await _flush(plane)
        decided = sum(plane.count("pairs_decided", "iris", name) for name in CANDIDATES)
        journaled = sum(plane.count("pairs_journaled", "iris", name) for name in CANDIDATES)
        assert decided == journaled == 2 * REQUESTS * len(CANDIDATES)


@pytest.mark.parametrize("change", ["other routes", "fewer workers"])
async def test_a_restart_with_another_config_settles_what_a_killed_worker_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Nobody counts on its page any more, so the first worker of the new config settles it."""
    pairs = REQUESTS * len(CANDIDATES)
    state_dir, left = tmp_path / "state", tmp_path / "left"
    async with _with_pairs_in_memory(state_dir, monkeypatch) as plane:
        assert _killed_in_flush(plane, pairs + 3)  # it is written, and counted for one candidate
        shutil.copytree(state_dir, left)
        config = replace(plane.worker.config, state_dir=str(left))
    write_config(config)
    if change == "other routes":
        config = replace(config, routes=(replace(config.routes[0], name="rose"),))
    else:
        for place in ("journal", "stats"):
            for path in (left / place).glob("worker-0*"):
                path.rename(path.with_name(path.name.replace("worker-0", "worker-1")))
    config = replace(config, version="")
    config = replace(config, version=digest(config))
    prepare(config)
    accounts = _settled(config)
    assert accounts["pairs journaled"] == {"acknowledged": 0, "retained": 2 * pairs}


@pytest.mark.parametrize("steps", [0, 8, 13, 15, 17, 18])
async def test_a_kill_after_a_reload_is_settled_to_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """In one flush are pairs of a route that is gone by now, and of one that was not there before."""
    pairs = REQUESTS * len(CANDIDATES)
    state_dir, left = tmp_path / "state", tmp_path / "left"
    async with _with_pairs_in_memory(state_dir, monkeypatch) as plane:
        await plane.reload(
            lambda config: replace(config, routes=(replace(config.routes[0], name="rose"),))
        )
        await asyncio.gather(*(plane.request(b"POST", b"/", body=b"{}") for _ in range(REQUESTS)))
        await until(lambda: plane.worker.journal.buffered_pairs == 2 * pairs, "the pairs")
        assert _killed_in_flush(plane, steps)
        shutil.copytree(state_dir, left)
        config = replace(plane.worker.config, state_dir=str(left))
    lines = _lines(left)
    assert lines == (pairs if steps <= 2 * pairs else 3 * pairs)
    parts = _settled(config)["pairs decided"]
    assert parts["journaled"] == lines
    assert parts.get("lost worker_died", 0) == 3 * pairs - lines
    assert segment_pairs(left, 0, 1) == lines
