"""The stats pages: one worker writes, everybody reads, and a successor settles the account."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import StateError
from proxy.state.stats_page import Layout, adopt, open_stats, page_path
from tests.support.resolved_config import small_config


def test_a_reader_sees_what_the_worker_counts(tmp_path: Path) -> None:
    """Another mapping of the same page shows the same cells, and who beat last."""
    layout = Layout(small_config(tmp_path))
    worker = open_stats(tmp_path, 0, layout, create=True)
    reader = open_stats(tmp_path, 0, layout, create=False)
    worker.add(3, "mirror_sent", "iris", "v2")
    worker.beat(pid=42, now_ms=1_000)
    assert reader.get("mirror_sent", "iris", "v2") == 3
    assert reader.heartbeat() == (42, 1_000)
    assert page_path(tmp_path, 0, layout).stat().st_mode & 0o777 == 0o600
    worker.close()
    reader.close()


def test_a_page_is_missing_until_its_worker_has_started(tmp_path: Path) -> None:
    """Readers never create it."""
    layout = Layout(small_config(tmp_path))
    with pytest.raises(StateError, match="cannot open"):
        open_stats(tmp_path, 0, layout, create=False)
    (tmp_path / "stats").mkdir()
    page_path(tmp_path, 0, layout).touch()
    with pytest.raises(StateError, match="not started"):
        open_stats(tmp_path, 0, layout, create=False)


def test_a_successor_settles_what_its_predecessor_had_in_hand(tmp_path: Path) -> None:
    """Unjournaled pairs are lost to `worker_died`, open requests `reset`, gauges start from 0."""
    layout = Layout(small_config(tmp_path))
    page = open_stats(tmp_path, 0, layout, create=True)
    page.add(10, "routed", "iris")
    page.add(8, "served", "iris", "ok")
    page.add(2, "in_flight", "iris")
    page.add(10, "pairs_decided", "iris", "v2")
    page.add(7, "pairs_journaled", "iris", "v2")
    page.add(5, "mirror_decided", "iris", "v2")
    page.add(4, "mirror_sent", "iris", "v2")
    page.close()
    successor = open_stats(tmp_path, 0, layout, create=True)
    assert adopt(successor) == 3
    assert successor.get("pairs_lost", "iris", "v2", "worker_died") == 3
    assert successor.get("served", "iris", "reset") == 2
    assert successor.get("mirror_skipped", "iris", "v2", "shutdown") == 1
    assert successor.get("in_flight", "iris") == 0
    assert adopt(successor) == 0
    successor.close()
