"""Who hangs: heartbeats that stand still, told from late ones, new ones and frozen launchers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.launcher.hung_watch import LOOK_S, PATIENCE, HungWatch
from proxy.state.stats_file import Layout, StatsPage, open_stats
from tests.support.resolved_config import small_config

PID = 4711


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatsPage]:
    """The page of worker 0."""
    page = open_stats(tmp_path, 0, Layout(small_config(tmp_path)))
    yield page
    page.close()


def _looks(watch: HungWatch, first: int, last: int) -> list[int]:
    """Look once a second; return the seconds at which worker 0 was found hung."""
    return [n for n in range(first, last) if watch.hung(n * LOOK_S, {0: PID}) == [0]]


def test_a_heartbeat_that_stands_still_is_found_after_ten_seconds(
    tmp_path: Path, page: StatsPage
) -> None:
    """And a single beat in between starts the count again."""
    watch = HungWatch(tmp_path)
    page.beat(pid=PID, now_ms=1)
    assert _looks(watch, 0, PATIENCE) == []
    page.beat(pid=PID, now_ms=2)
    assert _looks(watch, PATIENCE, 2 * PATIENCE) == []
    assert _looks(watch, 2 * PATIENCE, 3 * PATIENCE)[:1] == [2 * PATIENCE + 1]


def test_a_worker_that_has_not_beaten_yet_is_starting(tmp_path: Path, page: StatsPage) -> None:
    """Its predecessor's last beat is still on the page."""
    watch = HungWatch(tmp_path)
    page.beat(pid=PID - 1, now_ms=1)
    assert _looks(watch, 0, 50) == []


def test_time_in_which_the_launcher_did_not_look_counts_for_nobody(
    tmp_path: Path, page: StatsPage
) -> None:
    """After a suspended night everybody's heartbeat is old."""
    watch = HungWatch(tmp_path)
    page.beat(pid=PID, now_ms=1)
    assert _looks(watch, 0, 3) == []
    assert watch.hung(30_000.0, {0: PID}) == []
    assert watch.hung(30_000.1, {0: PID}) == []


def test_a_worker_without_a_page_is_starting(tmp_path: Path) -> None:
    """It makes its page itself."""
    assert _looks(HungWatch(tmp_path), 0, 50) == []
