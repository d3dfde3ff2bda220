"""The stats pages: one worker writes, everybody reads, and a successor settles the account."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import StateError
from proxy.state.stats_page import SEGMENTS, Layout, open_stats, page_path, segment_pairs
from proxy.state.takeover import adopt
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
    page.add(13, "received")
    page.add(2, "unrouted", "loop")
    page.add(10, "routed", "iris")
    page.add(8, "served", "iris", "ok")
    page.add(2, "in_flight", "iris")
    page.add(10, "pairs_decided", "iris", "v2")
    page.add(7, "pairs_journaled", "iris", "v2")
    page.add(8, "leg", "iris", "v2", "ok")
    page.add(5, "mirror_decided", "iris", "v2")
    page.add(4, "mirror_sent", "iris", "v2")
    page.close()
    successor = open_stats(tmp_path, 0, layout, create=True)
    assert adopt(successor) == 3
    assert successor.get("pairs_lost", "iris", "v2", "worker_died") == 3
    assert successor.get("served", "iris", "reset") == 2
    assert successor.get("mirror_skipped", "iris", "v2", "worker_died") == 1
    assert successor.get("leg", "iris", "v2", "cancelled") == 2
    assert successor.get("unrouted", "worker_died") == 1
    assert successor.get("in_flight", "iris") == 0
    assert adopt(successor) == 0
    successor.close()


def test_books_that_say_too_much_do_not_keep_a_worker_from_starting(tmp_path: Path) -> None:
    """They stay as they are, and the ledger tells."""
    page = open_stats(tmp_path, 0, Layout(small_config(tmp_path)), create=True)
    page.add(8, "served", "iris", "ok")
    page.add(7, "pairs_journaled", "iris", "v2")
    page.add(4, "mirror_sent", "iris", "v2")
    page.add(3, "unrouted", "loop")
    before = page.cells.tolist()
    assert adopt(page) == 0
    assert page.cells.tolist() == before
    page.close()


def test_the_pairs_of_a_segment_are_known_for_a_while(tmp_path: Path) -> None:
    """Whatever the layout of the page is: a reader asks by the number alone."""
    page = open_stats(tmp_path, 3, Layout(small_config(tmp_path)), create=True)
    page.count_segment(1, 10)
    page.count_segment(2, 5)
    page.count_segment(2, 2**31)
    many = 5 + 2**31
    assert [segment_pairs(tmp_path, 3, number) for number in (1, 2, 9)] == [10, many, None]
    assert segment_pairs(tmp_path, 0, 1) is None
    page.count_segment(1 + SEGMENTS, 7)
    assert segment_pairs(tmp_path, 3, 1) is None
    assert page.segments() == {2: many, 1 + SEGMENTS: 7}
    (tmp_path / "stats" / "worker-3.cafe.page").write_bytes(b"of another time")
    assert segment_pairs(tmp_path, 3, 2) == many
    page.close()
