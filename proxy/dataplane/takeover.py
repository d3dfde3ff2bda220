"""What a worker does before it serves: settle the books of whoever counted in its place before.

Its predecessor may have been killed, and may have run another config, whose counters are on the same
page; and workers that the config no longer has left pages that nobody else would settle. Whoever holds
a journal's lock is the one worker that may touch the page beside it: a predecessor that still finishes
its requests keeps both.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.journal.scan import count_lines
from proxy.journal.segments import WRITER_LOCK, segment_numbers, segment_path, take_lock
from proxy.state.stats_file import (
    Layout,
    StatsPage,
    UnkeptStats,
    open_left,
    open_unkept,
    page_indexes,
    segment_pairs,
)
from proxy.state.takeover import adopt, settle_flush

logger = logging.getLogger("understudy.worker")


def open_books(config: Config, index: int) -> tuple[StatsPage, int]:
    """Return the page that a worker counts on, and the pairs that its predecessor lost.

    A folder that cannot be written (the disk is read-only, or full at the first start) keeps no worker
    from serving: it counts in its memory, and `keep_books` moves that to the page when it can.
    """
    state_dir = Path(config.state_dir)
    try:
        page = open_left(state_dir, index)
        return page, take_over(config, index, page)
    except StateError as exc:
        logger.error("%s; users are served, and this worker counts in its memory until then", exc)  # noqa: TRY400 - no traceback for a read-only disk
    unkept = open_unkept(state_dir, index)
    unkept.extend(Layout(config))
    unkept.open_books()
    return unkept, 0


def keep_books(config: Config, index: int, unkept: UnkeptStats) -> StatsPage:
    """Return the page of a worker that counted in its memory until now, with all that it counted.

    The worker has written nothing to its journal meanwhile: what is there is its predecessor's.

    Raises:
        StateError: it still cannot be used.
    """
    page = open_left(Path(config.state_dir), index)
    try:
        page.extend(unkept.layout)
        take_over(config, index, page)
        unkept.move_to(page)
    except StateError:
        page.close()
        raise
    return page


def take_over(config: Config, index: int, page: StatsPage) -> int:
    """Settle what was counted here before, and open the books; return the pairs that were lost.

    The worker holds its journal's lock. Worker 0 settles the pages of workers, too, that the config no
    longer has.

    Args:
        config: of the worker.
        index: of the worker.
        page: the one that it will count on, as it was left; gets every counter of the config.

    Raises:
        StateError: the page has no room, or the disk refuses.
    """
    state_dir = Path(config.state_dir)
    lost = _settle(page, state_dir, index)
    page.fit(Layout(config))
    page.open_books()
    if index == 0:
        for gone in page_indexes(state_dir):
            if gone >= config.workers:
                _take_over_gone(state_dir, gone)
    return lost


def journal_directory(state_dir: Path, index: int) -> Path:
    """Return where the journal of a worker is."""
    return state_dir / "journal" / f"worker-{index}"


def _take_over_gone(state_dir: Path, index: int) -> None:
    """Settle the page of a worker that the config no longer has, unless it still lives."""
    directory = journal_directory(state_dir, index)
    try:
        lock = take_lock(directory, WRITER_LOCK)
    except (StateError, OSError):
        return  # it still finishes its requests, and will close its books itself
    with suppress(StateError):  # it is not ours, and keeps no worker from serving
        page = open_left(state_dir, index)
        if page.is_open:
            _settle(page, state_dir, index)
        page.close()
    os.close(lock)


def _settle(page: StatsPage, state_dir: Path, index: int) -> int:
    """Settle one page; return the pairs that were lost."""
    if page.is_open:
        _settle_journal(page, state_dir, index)
    lost = adopt(page)
    page.close_books()
    return lost


def _settle_journal(page: StatsPage, state_dir: Path, index: int) -> None:
    """Find out whether the last flush reached the journal, and count its pairs if it did.

    There is at most one that did and was not counted, and it is the last in the newest segment. That
    the reader has removed it cannot be: it removes no segment that has no newer one.
    """
    directory = journal_directory(state_dir, index)
    newest = counted = written = 0
    with suppress(OSError):  # a journal that cannot be read keeps no worker from serving
        newest = max(segment_numbers(directory), default=0)
        counted = segment_pairs(state_dir, index, newest) or 0
        written = count_lines(segment_path(directory, newest), 0) if newest else 0
    settle_flush(page, is_written=written > counted)
    if written > counted:
        page.count_segment(newest, written - counted)
