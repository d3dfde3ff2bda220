"""The watch of the config file: what an editor, a swapped link or a missing folder does to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.config import load
from proxy.config.resolved import Config
from proxy.control import config_watch, reload
from proxy.control.config_watch import ConfigWatch
from proxy.control.reload import Reloader, Result
from proxy.errors import StateError
from proxy.state.running_config import config_path
from tests.support.dataplane import until
from tests.support.reload_stage import SOURCE, Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage whose file is watched."""
    found = Stage(tmp_path)
    task = asyncio.get_running_loop().create_task(ConfigWatch(found.reloader).run())
    await asyncio.sleep(0)
    yield found
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    found.observer.close()


async def _counted(stage: Stage, result: Result, count: int = 1) -> None:
    await until(lambda: stage.told["reloads"][result] == count, f"{count} {result}")


async def test_a_file_that_is_written_or_replaced_is_read(stage: Stage) -> None:
    """In place, and by a rename; what happens beside it is not its business."""
    stage.write(log={"slow": "1s"})
    await _counted(stage, Result.RELOADED)
    beside = stage.path.with_name("other.yaml")
    beside.write_text("x: 1")
    beside.write_text(stage.path.read_text().replace("slow: 1s", "slow: 2s"))
    beside.replace(stage.path)
    await _counted(stage, Result.RELOADED, 2)
    stage.path.write_text("routes: [")
    await _counted(stage, Result.INVALID)
    stage.path.unlink()
    stage.write(log={"slow": "2s"})
    await _counted(stage, Result.UNCHANGED)


async def test_where_nothing_can_be_watched_the_file_is_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No watches left, say: it is said once, and changes are found all the same."""
    monkeypatch.setattr(config_watch, "RETRY_S", 0.01)

    def no_watches(*_: object, **__: object) -> None:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(config_watch, "awatch", no_watches)
    watch = asyncio.get_running_loop().create_task(ConfigWatch(stage.reloader).run())
    await until(lambda: caplog.records, "the complaint")
    stage.write(log={"slow": "1s"})
    await _counted(stage, Result.RELOADED)
    watch.cancel()
    assert sum("cannot be watched" in record.message for record in caplog.records) == 1


async def test_a_good_file_that_the_disk_did_not_take_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad one is not."""
    stage = Stage(tmp_path)
    monkeypatch.setattr(config_watch, "LOOK_MS", 20)
    monkeypatch.setattr(config_watch, "AGAIN_S", 0.1)
    watch = asyncio.get_running_loop().create_task(ConfigWatch(stage.reloader).run())
    with monkeypatch.context() as patch:

        def hang(config: Config) -> Path:
            raise StateError(f"cannot write the config to {config.state_dir}")

        patch.setattr(load, "write_again", hang)
        stage.write(log={"slow": "1s"})
        await until(lambda: stage.told["reloads"][Result.FAILED] > 2, "some tries")
    await _counted(stage, Result.RELOADED)
    stage.path.write_text("routes: [")
    await until(lambda: stage.told["reloads"][Result.INVALID], "the refusal")
    refused = stage.told["reloads"][Result.INVALID]
    await asyncio.sleep(
        3 * config_watch.AGAIN_S
    )  # nothing must happen, so there is nothing to wait for
    assert stage.told["reloads"][Result.INVALID] == refused
    watch.cancel()
    stage.observer.close()


async def test_what_changed_while_control_was_down_is_read_at_its_start(tmp_path: Path) -> None:
    """By the times of the file and of what runs."""
    stage = Stage(tmp_path)
    assert not Reloader(stage.config, stage.path, stage.observer).is_behind()
    running = config_path(stage.state_dir, stage.config.version)
    await until(lambda: _is_later(running), "the clock of the file system")
    stage.write(log={"slow": "1s"})
    reloader = Reloader(stage.config, stage.path, stage.observer)
    assert reloader.is_behind()
    assert reloader.reload(SOURCE).is_good
    assert not reloader.is_behind()
    stage.observer.close()


def _is_later(path: Path) -> bool:
    probe = path.with_name("probe")
    probe.touch()
    is_later = probe.stat().st_mtime_ns // 1_000_000 > path.stat().st_mtime_ns // 1_000_000
    probe.unlink()
    return is_later


def test_a_defect_in_reading_leaves_the_old_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control lives, and says that it is our fault."""
    stage = Stage(tmp_path)
    stage.write(log={"slow": "1s"})

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reload, "differences", fails)
    outcome = stage.reloader.reload(SOURCE)
    assert outcome.result is Result.FAILED
    assert "a fault of Understudy" in outcome.faults[0]
    stage.observer.close()


def test_old_configs_are_kept_in_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest ones, the one that runs among them."""
    monkeypatch.setattr(reload, "MAX_VERSIONS", 3)
    stage = Stage(tmp_path)
    for number in range(5):
        stage.write(record={"redact": {"json": [f"key{number}"]}})
        assert stage.reloader.reload(SOURCE).is_good
    kept = {path.stem for path in (stage.state_dir / "config").glob("*.json")}
    assert len(kept) == 3
    assert stage.observer.config.version in kept
    stage.observer.close()
