"""The stats pages: one worker writes, everybody reads, and a successor settles the account."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state import stats_file
from proxy.state.key_file import append_keys
from proxy.state.stats_file import (
    SEGMENTS,
    Layout,
    keys_path,
    open_stats,
    page_path,
    read_stats,
    segment_pairs,
)
from proxy.state.takeover import adopt
from tests.support.resolved_config import small_config


def test_a_reader_sees_what_the_worker_counts(tmp_path: Path) -> None:
    """Another mapping of the same page shows the same cells, and who beat last."""
    layout = Layout(small_config(tmp_path))
    worker = open_stats(tmp_path, 0, layout)
    reader = read_stats(tmp_path, 0)
    worker.add(3, "mirror_sent", "iris", "v2")
    worker.beat(pid=42, now_ms=1_000)
    assert reader.get("mirror_sent", "iris", "v2") == 3
    assert reader.heartbeat() == (42, 1_000)
    assert page_path(tmp_path, 0).stat().st_mode & 0o777 == 0o600
    worker.close()
    reader.close()


def test_a_page_is_missing_until_its_worker_has_started(tmp_path: Path) -> None:
    """Readers never create it."""
    with pytest.raises(StateError, match="cannot open"):
        read_stats(tmp_path, 0)
    (tmp_path / "stats").mkdir()
    page_path(tmp_path, 0).touch()
    with pytest.raises(StateError, match="not started"):
        read_stats(tmp_path, 0)


def test_a_successor_settles_what_its_predecessor_had_in_hand(tmp_path: Path) -> None:
    """Unjournaled pairs are lost to `worker_died`, open requests `reset`, gauges start from 0."""
    layout = Layout(small_config(tmp_path))
    page = open_stats(tmp_path, 0, layout)
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
    successor = open_stats(tmp_path, 0, layout)
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
    page = open_stats(tmp_path, 0, Layout(small_config(tmp_path)))
    page.add(8, "served", "iris", "ok")
    page.add(7, "pairs_journaled", "iris", "v2")
    page.add(4, "mirror_sent", "iris", "v2")
    page.add(3, "unrouted", "loop")
    before = page.cells.tolist()
    assert adopt(page) == 0
    assert page.cells.tolist() == before
    page.close()


def test_the_pairs_of_a_segment_are_known_for_a_while(tmp_path: Path) -> None:
    """A reader asks by the number alone, and needs no config."""
    page = open_stats(tmp_path, 3, Layout(small_config(tmp_path)))
    page.count_segment(1, 10)
    page.count_segment(2, 5)
    page.count_segment(2, 2**31)
    many = 5 + 2**31
    assert [segment_pairs(tmp_path, 3, number) for number in (1, 2, 9)] == [10, many, None]
    assert segment_pairs(tmp_path, 0, 1) is None
    page.count_segment(1 + SEGMENTS, 7)
    assert segment_pairs(tmp_path, 3, 1) is None
    assert page.segments() == {2: many, 1 + SEGMENTS: 7}
    page.extend(Layout(_renamed(small_config(tmp_path), "rose")))
    page_path(tmp_path, 4).write_bytes(b"of another time")
    assert segment_pairs(tmp_path, 4, 2) is None
    assert segment_pairs(tmp_path, 3, 2) == many
    page.close()


def _renamed(config: Config, name: str) -> Config:
    """Return `config` with another name for its route."""
    return replace(config, routes=(replace(config.routes[0], name=name),))


def test_a_page_that_takes_over_another_config_moves_no_counter(tmp_path: Path) -> None:
    """What is known keeps its cell, over a growth of the mapping too; readers see what is new."""
    config = small_config(tmp_path)
    page = open_stats(tmp_path, 0, Layout(config))
    old_cells, cell = page.cells, page.layout.index("routed", "iris")
    page.add(5, "routed", "iris")
    reader = read_stats(tmp_path, 0)
    for number in range(20):
        page.extend(Layout(_renamed(config, f"rose-{number}")))
    assert len(page.cells) > len(old_cells)
    assert page.layout.index("routed", "iris") == cell
    old_cells[cell] += 1  # by an exchange that began before
    page.add(3, "routed", "rose-19")
    assert page.get("routed", "iris") == reader.get("routed", "iris") == 6
    assert not reader.is_current()
    later = read_stats(tmp_path, 0)
    assert (later.get("routed", "iris"), later.get("routed", "rose-19")) == (6, 3)


def test_names_that_were_half_written_do_not_count(tmp_path: Path) -> None:
    """A worker that was killed while it wrote them leaves no counter without a name."""
    config = small_config(tmp_path)
    page = open_stats(tmp_path, 0, Layout(config))
    page.add(5, "routed", "iris")
    with keys_path(page.path).open("ab") as file:
        file.write(b"routed\tros")
    assert read_stats(tmp_path, 0).layout.size == page.layout.size
    successor = open_stats(tmp_path, 0, Layout(_renamed(config, "rose")))
    assert successor.get("routed", "iris") == 5
    assert successor.get("routed", "rose") == 0
    assert b"ros\n" not in keys_path(page.path).read_bytes()


def test_counters_of_another_version_are_passed_over(tmp_path: Path) -> None:
    """A family that is not known any more, and a word that was not known yet."""
    (tmp_path / "stats").mkdir()
    append_keys(
        keys_path(page_path(tmp_path, 0)),
        [("gone_family", "x"), ("routed", "old"), ("pairs_decided", "old", "v1")],
    )
    page = open_stats(tmp_path, 0, Layout(small_config(tmp_path)))
    page.add(2, "pairs_decided", "old", "v1")
    assert adopt(page) == 2
    assert {family.name for family, _, _ in page.layout.items()} >= {"routed", "pairs_decided"}


def test_a_page_full_of_what_is_gone_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a start, in place; what was journaled stays known, because the recorder has read it."""
    config = small_config(tmp_path)
    monkeypatch.setattr(stats_file, "MAX_CELLS", 2 * Layout(config).size)
    page = open_stats(tmp_path, 0, Layout(config))
    for family in ("pairs_decided", "pairs_journaled"):
        page.add(7, family, "iris", "v2")
    page.extend(Layout(_renamed(config, "rose")))
    page.add(2, "pairs_decided", "rose", "v2")
    page.add(2, "pairs_journaled", "rose", "v2")
    with pytest.raises(StateError, match="no room"):
        page.extend(Layout(_renamed(config, "lily")))
    assert page.layout.get("routed", "lily") is None
    beats = read_stats(tmp_path, 0)
    monkeypatch.setattr(stats_file, "MAX_CELLS", Layout(config).size + 10)
    successor = open_stats(tmp_path, 0, Layout(_renamed(config, "lily")))
    assert successor.get("pairs_journaled_before") == 9
    assert successor.layout.get("routed", "iris") is None
    successor.beat(pid=42, now_ms=1)
    assert beats.heartbeat() == (42, 1)
