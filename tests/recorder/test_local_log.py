"""The local log keeps what it acknowledged, in files that other tools read."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from pathlib import Path

import pytest
import zstandard

from proxy.errors import StateError
from proxy.recorder.local_log import FRAME_BYTES, LocalLog, Rotation
from proxy.recorder.sink import Delivery, SinkState, SinkStatus
from tests.recorder.support import pair
from tests.support.dataplane import until

GIB = 1 << 30


def files(directory: Path) -> list[Path]:
    """Return the log's files, oldest first."""
    return sorted(directory.glob("*.ndjson.zst"))


def content(directory: Path) -> bytes:
    """Return all lines of the log, in the order of its files."""
    found = b""
    for path in files(directory):
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            found += reader.read()
    return found


async def test_pairs_are_appended_as_ndjson(tmp_path: Path) -> None:
    """Acknowledged means in the file; the file is private."""
    log = LocalLog(tmp_path / "pairs", 0, disk_budget_bytes=GIB)
    pairs = [pair(number) for number in range(5)]
    assert await log.write(pairs[:3]) == Delivery(3)
    assert content(tmp_path / "pairs").splitlines() == [each.value for each in pairs[:3]]
    await log.write(pairs[3:])
    (path,) = files(tmp_path / "pairs")
    assert content(tmp_path / "pairs").splitlines() == [each.value for each in pairs]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await log.close()
    assert log.status.state is SinkState.CLOSED


async def test_a_large_batch_is_several_frames(tmp_path: Path) -> None:
    """So that whoever reads it needs little memory."""
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB)
    await log.write([pair(number, 100_000) for number in range(30)])
    await log.close()
    (path,) = files(tmp_path)
    assert path.read_bytes().count(b"\x28\xb5\x2f\xfd") == -(-30 * 100_000 // FRAME_BYTES)


async def test_files_end_by_size_and_by_age(tmp_path: Path) -> None:
    """A new one is begun with the next pair."""
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB, rotation=Rotation(file_bytes=1))
    for number in range(3):
        await log.write([pair(number)])
    await log.close()
    assert len(files(tmp_path)) == 3
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB, rotation=Rotation(file_age_s=0))
    for number in range(2):
        await log.write([pair(number)])
    await log.close()
    assert len(files(tmp_path)) == 5


async def test_over_budget_the_oldest_file_expires(tmp_path: Path) -> None:
    """It is counted; the current one always stays."""
    log = LocalLog(tmp_path, 0, disk_budget_bytes=4_000, rotation=Rotation(file_bytes=500))
    for _ in range(40):
        await log.write([pair(1)._replace(value=os.urandom(200).hex().encode())])
    await log.close()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 4_000
    statistics = log.statistics()
    assert statistics["expired_files"] > 0
    assert statistics["expired_bytes"] + statistics["disk_bytes"] == statistics["written_bytes"]


async def test_a_torn_file_is_cut_at_start(tmp_path: Path) -> None:
    """What a killed predecessor left half written does not trouble readers."""
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB)
    await log.write([pair(1)])
    await log.write([pair(2)])
    await log.close()
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - 3)

    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB)

    assert log.statistics()["torn_bytes"] > 0
    assert content(tmp_path).splitlines() == [pair(1).value]
    await log.close()


async def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """Nothing is acknowledged before it is written, and the state says why."""
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB)
    await log.write([pair(1)])
    (path,) = files(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(log.write([pair(2)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            refused = log.status
            assert not writing.done()
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.state is SinkState.DISK_ERROR
    assert "File too large" in refused.message
    assert writing.result() == Delivery(1)
    assert log.status.state is SinkState.OK
    assert content(tmp_path).splitlines() == [pair(1).value, pair(2).value]
    await log.close()


def test_an_unusable_directory_is_the_operators_error(tmp_path: Path) -> None:
    """It names the directory."""
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot use the local log"):
        LocalLog(tmp_path / "file" / "pairs", 0, disk_budget_bytes=GIB)


async def test_synced_means_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame, and the name of each file; a disk that refuses is asked again, and told."""
    synced: list[bool] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(is_folder)
        if len(synced) == 1:
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr("proxy.recorder.local_log._RETRY_S", 0.05)
    log = LocalLog(tmp_path, 0, disk_budget_bytes=GIB, is_synced=True)
    writing = asyncio.get_running_loop().create_task(log.write([pair(1)]))
    await until(lambda: log.status.state is SinkState.DISK_ERROR, "the refusal to be told")
    assert not writing.done()
    assert await writing == Delivery(1)
    assert log.status == SinkStatus(SinkState.OK)
    await log.write([pair(2)])
    assert synced == [False, False, True, False]
    await log.close()
