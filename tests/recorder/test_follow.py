"""Which reloads concern a recorder, and that it notices them by the page."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Config, Kafka
from proxy.recorder import follow
from proxy.recorder.follow import next_config
from proxy.state.control_page import ControlState, for_config, open_page, update
from proxy.state.running_config import read_state
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.resolved_config import small_config, write_config


def _put(config: Config) -> None:
    write_config(config)
    page = open_page(Path(config.state_dir), create=True)
    update(page, lambda before: for_config(config, before))
    page.close()


async def test_only_another_sink_concerns_the_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routes are the business of the config that a pair was made under; an unreadable page of nobody."""
    monkeypatch.setattr(follow, "LOOK_S", 0.005)
    looks = 0

    def looked_at(state_dir: Path) -> ControlState:
        nonlocal looks
        looks += 1
        return read_state(state_dir)

    async def look() -> None:
        """Return when what is there now has been looked at."""
        before = looks
        await until(lambda: looks > before + 1, "a look")

    monkeypatch.setattr(follow, "read_state", looked_at)
    config = small_config(tmp_path)
    _put(config)
    task = asyncio.get_running_loop().create_task(next_config(config))
    _put(replace(config, version="a", routes=()))
    await look()
    page = tmp_path / "control.page"
    whole = page.read_bytes()
    page.write_bytes(bytes(len(whole)))
    await look()
    assert not task.done()
    page.write_bytes(whole)
    kafka = Kafka(("k:1",), "shadow", {})
    _put(replace(config, version="b", record=replace(config.record, kafka=kafka)))
    found = await asyncio.wait_for(task, PATIENCE_S)
    assert found.version == "b"
