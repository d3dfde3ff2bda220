"""A journal that the disk does not take: users notice nothing, pairs are lost and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy.config.resolved import Config, DropPolicy, Fsync, Journal
from proxy.dataplane import journaling
from proxy.journal import writer
from proxy.journal.reader import JournalReader
from proxy.state.stats_file import UnkeptStats
from proxy.state.stats_page import Lost
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.disks import read_only, small_disk
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Upstream, answer

BODY = bytes(range(256)) * 16
GIB = 1 << 30


def _with(journal: Journal) -> Options:
    def adapt(config: Config) -> Config:
        return replace(config, journal=journal)

    return Options(adapt=adapt)


async def _ask(plane: Plane, count: int) -> None:
    """Send some requests; every one must be answered as if nothing were wrong."""
    for _ in range(count):
        status, _, body = await plane.request(b"POST", b"/iris", body=b"{}")
        assert (status, body) == (200, BODY)


def _lost(plane: Plane) -> Mapping[str, int]:
    counts = {str(reason): plane.count("pairs_lost", "iris", "v2", reason) for reason in Lost}
    return {reason: count for reason, count in counts.items() if count}


async def _settled(plane: Plane, pairs: int) -> None:
    """Wait until that many pairs are journaled or lost."""

    def is_settled() -> bool:
        journaled = plane.count("pairs_journaled", "iris", "v2")
        return journaled + sum(_lost(plane).values()) == pairs

    await until(is_settled, f"{pairs} pairs to be journaled or lost")
    check_ledger(plane)


async def test_a_full_disk_costs_pairs_and_no_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost pairs are counted as `journal_error`; it goes on by itself when there is room."""
    monkeypatch.setattr(journaling, "LOSS_LOG_S", 60.0)
    with small_disk(tmp_path / "disk", size_kib=1024) as disk:
        state = disk.path / "state"
        async with (
            Upstream(answer(BODY)) as primary,
            Upstream(answer(BODY)) as candidate,
            dataplane(state, primary=primary.port, candidates={"v2": candidate.port}) as plane,
        ):
            await _ask(plane, 5)
            await _settled(plane, 5)
            disk.fill()
            with caplog.at_level(logging.ERROR):
                for round_ in range(1, 7):  # a frame each, or more
                    await _ask(plane, 10)
                    await _settled(plane, 5 + 10 * round_)
            lost = _lost(plane)
            # A page may have had room for a frame or two.
            assert set(lost) == {"journal_error"}
            assert lost["journal_error"] > 20
            assert "No space left on device" in caplog.text
            assert caplog.text.count("are lost and counted") == 1

            disk.make_room()
            await _ask(plane, 10)
            await _settled(plane, 75)
            assert _lost(plane) == lost
            assert plane.worker.journal.statistics().error == ""
            assert len(plane.lines()) == 75 - lost["journal_error"]


async def test_a_full_disk_lets_the_recorder_remove_what_it_has_shipped(tmp_path: Path) -> None:
    """Its position needs a block; what is delivered makes the room for it."""
    with small_disk(tmp_path / "disk", size_kib=1024) as disk:
        journal = _with(Journal(segment_bytes=1))
        async with (
            Upstream(answer(BODY)) as primary,
            Upstream(answer(BODY)) as candidate,
            dataplane(
                disk.path / "state",
                primary=primary.port,
                candidates={"v2": candidate.port},
                options=journal,
            ) as plane,
        ):
            for pairs in range(4, 24, 4):  # a frame, and so a segment, for each few
                await _ask(plane, 4)
                await _settled(plane, pairs)
            disk.fill()
            reader = JournalReader(disk.path / "state" / "journal" / "worker-0")
            try:
                batch = reader.read(GIB)
                assert batch.position.segment > 3
                reader.commit(batch.position, {"acknowledged": len(batch.lines)})
                assert reader.committed == batch.position
            finally:
                reader.close()
            await _ask(plane, 5)
            await _settled(plane, 25)
            assert not _lost(plane)


async def test_a_folder_that_became_read_only_costs_pairs_and_no_answers(tmp_path: Path) -> None:
    """The open segment is written on; the next one cannot be made, until it can."""
    journal = _with(Journal(segment_bytes=1, fsync=Fsync.FLUSH))
    async with (
        Upstream(answer(BODY)) as primary,
        Upstream(answer(BODY)) as candidate,
        dataplane(
            tmp_path / "state",
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=journal,
        ) as plane,
    ):
        await _ask(plane, 2)
        await _settled(plane, 2)
        with read_only(tmp_path / "state" / "journal" / "worker-0"):
            await _ask(plane, 5)
            await _settled(plane, 7)
            assert _lost(plane) == {"journal_error": 5}
            error = plane.worker.journal.statistics().error
            assert "Read-only file system" in error or "Permission denied" in error
        await _ask(plane, 2)
        await _settled(plane, 9)
        assert _lost(plane) == {"journal_error": 5}
        assert plane.worker.journal.settle(5)
        assert plane.worker.journal.statistics().syncs > 0


async def test_a_worker_starts_without_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder cannot be made: users are served, every pair is counted, and later it is taken."""
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    state = tmp_path / "state"
    (state / "journal").mkdir(parents=True)
    async with Upstream(answer(BODY)) as primary, Upstream(answer(BODY)) as candidate:
        (state / "journal" / "worker-0").touch()
        async with dataplane(
            state, primary=primary.port, candidates={"v2": candidate.port}
        ) as plane:
            await _ask(plane, 3)
            await _settled(plane, 3)
            assert _lost(plane) == {"journal_error": 3}
            (state / "journal" / "worker-0").unlink()
            await asyncio.sleep(writer.RETRY_S)
            await _ask(plane, 3)
            await _settled(plane, 6)
            assert _lost(plane) == {"journal_error": 3}
            assert len(plane.lines()) == 3


async def test_a_worker_that_starts_on_a_read_only_disk_counts_in_memory_and_then_on_its_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users are served; what it counted meanwhile is added to what was counted before, once."""
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    state = tmp_path / "state"
    async with Upstream(answer(BODY)) as primary, Upstream(answer(BODY)) as candidate:
        start = partial(dataplane, state, primary=primary.port, candidates={"v2": candidate.port})
        async with start() as plane:
            await _ask(plane, 3)
            await _settled(plane, 3)
        with read_only(state / "stats"), read_only(state / "journal" / "worker-0"):
            async with start() as plane:
                assert isinstance(plane.worker.stats, UnkeptStats)
                assert "counts in its memory" in caplog.text
                await _ask(plane, 4)
                await until(lambda: _lost(plane) == {"journal_error": 4}, "four pairs to be lost")
                assert plane.count("routed", "iris") == 4
        async with start() as plane:  # what died with that worker stays unknown
            await _ask(plane, 1)
            await _settled(plane, 4)
        with read_only(state / "stats"), read_only(state / "journal" / "worker-0"):
            disk = AsyncExitStack()
            plane = await disk.enter_async_context(start())
            await _ask(plane, 5)
            await until(lambda: _lost(plane) == {"journal_error": 5}, "five pairs to be lost")
        async with disk:
            await until(lambda: not isinstance(plane.worker.stats, UnkeptStats), "its page")
            assert plane.count("routed", "iris") == 9
            await asyncio.sleep(writer.RETRY_S)
            await _ask(plane, 2)
            await _settled(plane, 11)
            assert plane.count("routed", "iris") == 11
            assert _lost(plane) == {"journal_error": 5}
            assert len(plane.lines()) == 6


async def test_a_full_budget_that_keeps_the_oldest_refuses_new_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `drop: newest` they are lost as `journal_full`, until the reader has made room."""
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    options = _with(Journal(drop=DropPolicy.NEWEST))
    options.limits = {"journal_disk_bytes": 16 * 1024}
    async with (
        Upstream(answer(BODY)) as primary,
        Upstream(answer(BODY)) as candidate,
        dataplane(
            tmp_path / "state",
            primary=primary.port,
            candidates={"v2": candidate.port},
            options=options,
        ) as plane,
    ):
        asked = 0
        while not _lost(plane):
            await _ask(plane, 10)
            asked += 10
            await _settled(plane, asked)
        assert set(_lost(plane)) == {"journal_full"}
        reader = JournalReader(tmp_path / "state" / "journal" / "worker-0")
        try:
            batch = reader.read(GIB)
            reader.commit(batch.position, {"acknowledged": len(batch.lines)})
        finally:
            reader.close()
        await asyncio.sleep(writer.RETRY_S)
        lost = -1
        while lost != sum(_lost(plane).values()):  # the first flush asks, the second is told
            lost = sum(_lost(plane).values())
            await _ask(plane, 3)
            asked += 3
            await _settled(plane, asked)
        assert len(batch.lines) + sum(_lost(plane).values()) < asked
