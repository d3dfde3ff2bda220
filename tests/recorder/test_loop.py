"""Windows are delivered in order, one while the next is expanded, and committed behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from proxy.config.resolved import Config
from proxy.journal.reader import JournalReader
from proxy.journal.segments import Position, load_shipped
from proxy.recorder import loop
from proxy.recorder.expansion import Expansion, PairMaker
from proxy.recorder.loop import Recorder
from proxy.recorder.sink import Delivery, Pair, SinkState, SinkStatus
from tests.recorder.support import config_for, journal, statistics
from tests.support.deadline import PATIENCE_S


class SlowSink:
    """A sink that acknowledges as many writes as it is told to."""

    name = "slow"
    status = SinkStatus(SinkState.OK)

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.permits = asyncio.Semaphore(0)
        self.active = 0

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def write(self, pairs: Sequence[Pair]) -> Delivery:
        """Take note of the pairs and wait for the word."""
        self.active += 1
        assert self.active == 1, "two deliveries at once"
        self.writes.append([pair.request_id for pair in pairs])
        try:
            await self.permits.acquire()
        finally:
            self.active -= 1
        return Delivery(len(pairs))

    async def close(self) -> None:
        """Nothing to close."""

    def statistics(self) -> Mapping[str, int]:
        """Nothing is counted."""
        return {}


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a state is no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(config: Config, sink: SlowSink) -> AsyncIterator[asyncio.Event]:
    """Run a recorder with windows of ten pairs; give the event that stops it."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(Recorder(config, 0, sink).run(stop, asyncio.Event()))
        try:
            yield stop
        finally:
            stop.set()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return a config with 50 journaled pairs, ten to a window."""
    monkeypatch.setattr(loop, "WINDOW_BYTES", 1)
    monkeypatch.setattr(loop, "COMMIT_BYTES", 1)
    found = config_for(tmp_path)
    journal(found, range(50))
    return found


def acknowledged(config: Config) -> int:
    """Return what the durable accounts say."""
    worker = Path(config.state_dir) / "journal" / "worker-0"
    return load_shipped(worker).accounts.get("acknowledged", 0)


async def test_the_next_window_is_expanded_while_one_is_delivered(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that waiting for a broker costs no throughput; order and accounts are kept."""
    expanded: list[int] = []
    expand = PairMaker.expand

    def noting(maker: PairMaker, lines: list[bytes], into: Expansion) -> None:
        expanded.append(len(lines))
        expand(maker, lines, into)

    monkeypatch.setattr(PairMaker, "expand", noting)
    sink = SlowSink()
    async with running(config, sink):
        await until(lambda: len(expanded) == 2 and bool(sink.writes))
        assert [len(write) for write in sink.writes] == [10]
        assert acknowledged(config) == 0
        for _ in range(5):
            sink.permits.release()
        await until(lambda: acknowledged(config) == 50)
    assert list(chain(*sink.writes)) == [f"request-{number}" for number in range(50)]


async def test_what_was_delivered_is_committed_when_the_rest_is_stuck(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next recorder begins with what nobody acknowledged."""
    monkeypatch.setattr(loop, "COMMIT_BYTES", 1 << 20)
    limits = replace(config.limits, shutdown_s=0.5)
    sink = SlowSink()
    sink.permits.release()
    sink.permits.release()
    async with running(replace(config, limits=limits), sink):
        await until(lambda: len(sink.writes) == 3)
    assert acknowledged(config) == 20
    rest = SlowSink()
    for _ in range(3):
        rest.permits.release()
    async with running(config, rest):
        await until(lambda: acknowledged(config) == 50)
    assert rest.writes[0][0] == "request-20"


async def test_how_late_pairs_are_is_told(config: Config) -> None:
    """Nothing is known before the first are delivered; while the sink is stuck they get later."""
    sink = SlowSink()
    async with running(config, sink):
        await until(lambda: statistics(config) != {})
        assert statistics(config)["lag_s"] is None
        for _ in range(5):
            sink.permits.release()
        await until(lambda: statistics(config)["lag_s"] is not None)
        # Of a full window it is the pairs that tell: these were made long ago.
        await until(lambda: statistics(config)["lag_s"] < 2)
        journal(config, range(50, 60))
        await until(lambda: statistics(config)["lag_s"] > 2)
        sink.permits.release()
        await until(lambda: statistics(config)["lag_s"] < 2)


async def test_commits_are_few_and_an_idle_stream_has_none_left(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit costs as much as ten pairs: several windows share one."""
    monkeypatch.setattr(loop, "COMMIT_BYTES", 1 << 20)
    commits: list[Position] = []
    commit = JournalReader.commit

    def noting(
        reader: JournalReader,
        position: Position,
        accounts: Mapping[str, int],
        ahead: Mapping[int, Position],
        notes: object,
    ) -> None:
        commits.append(position)
        commit(reader, position, accounts, ahead, notes)

    monkeypatch.setattr(JournalReader, "commit", noting)
    sink = SlowSink()
    for _ in range(5):
        sink.permits.release()
    async with running(config, sink):
        await until(lambda: acknowledged(config) == 50)
    assert len(commits) == 1


async def test_the_newest_pairs_get_every_second_window_of_a_backlog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, today's evidence does not wait for yesterday's; the accounts are exact."""
    monkeypatch.setattr(loop, "WINDOW_BYTES", 1)
    monkeypatch.setattr(loop, "COMMIT_BYTES", 1)
    config = config_for(tmp_path)
    for start in range(0, 60, 20):  # each writer begins a segment of its own
        journal(config, range(start, start + 20))
    sink = SlowSink()
    for _ in range(6):
        sink.permits.release()
    async with running(config, sink):
        await until(lambda: acknowledged(config) == 60)
    firsts = [write[0] for write in sink.writes]
    assert firsts == [f"request-{number}" for number in (0, 40, 10, 50, 20, 30)]
