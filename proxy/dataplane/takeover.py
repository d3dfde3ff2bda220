"""What a worker does before it serves: settle the books of whoever counted in its place before.

Its predecessor may have been killed, and may have run another config, so that its counters are on a
page of another layout; and workers that the config no longer has left pages that nobody else would
settle. Whoever holds a journal's lock is the one worker that may touch the pages beside it: a
predecessor that still finishes its requests keeps both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.config.resolved import Config, loads
from proxy.errors import StateError
from proxy.journal.scan import count_lines
from proxy.journal.segments import WRITER_LOCK, segment_numbers, segment_path, take_lock
from proxy.state.stats_page import Layout, StatsPage, open_stats, segment_pairs
from proxy.state.takeover import adopt, settle_flush

_PAGE: Final = ".page"


def take_over(config: Config, index: int, page: StatsPage) -> int:
    """Settle what was counted here before, and open the books; return the pairs that were lost.

    The worker holds its journal's lock. Worker 0 settles the pages of workers, too, that the config no
    longer has.

    Args:
        config: of the worker.
        index: of the worker.
        page: the one that it will count on.
    """
    state_dir = Path(config.state_dir)
    lost = sum(
        _settle_foreign(state_dir, index, fingerprint)
        for fingerprint in _fingerprints(state_dir, index)
        if fingerprint != page.layout.fingerprint
    )
    lost += _settle(page, state_dir, index)
    page.open_books()
    if index == 0:
        for gone in _indexes(state_dir):
            if gone >= config.workers:
                _take_over_gone(state_dir, gone)
    return lost


def journal_directory(state_dir: Path, index: int) -> Path:
    """Return where the journal of a worker is."""
    return state_dir / "journal" / f"worker-{index}"


def _take_over_gone(state_dir: Path, index: int) -> None:
    """Settle the pages of a worker that the config no longer has, unless it still lives."""
    directory = journal_directory(state_dir, index)
    try:
        lock = take_lock(directory, WRITER_LOCK)
    except (StateError, OSError):
        return  # it still finishes its requests, and will close its books itself
    for fingerprint in _fingerprints(state_dir, index):
        _settle_foreign(state_dir, index, fingerprint)
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


def _settle_foreign(state_dir: Path, index: int, fingerprint: str) -> int:
    """Settle a page of another layout, if it was left open and its config is known."""
    layout = _layout(state_dir, fingerprint)
    if layout is None:
        return 0
    try:
        page = open_stats(state_dir, index, layout, create=False)
    except StateError:
        return 0
    try:
        return _settle(page, state_dir, index) if page.is_open else 0
    finally:
        page.close()


def _layout(state_dir: Path, fingerprint: str) -> Layout | None:
    """Return a layout, looked for among the configs that this instance has run."""
    for path in sorted((state_dir / "config").glob("*.json")):
        try:
            layout = Layout(loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version, or gone
        if layout.fingerprint == fingerprint:
            return layout
    return None


def _fingerprints(state_dir: Path, index: int) -> list[str]:
    prefix = f"worker-{index}."
    found = sorted((state_dir / "stats").glob(f"{prefix}*{_PAGE}"))
    return [path.name.removeprefix(prefix).removesuffix(_PAGE) for path in found]


def _indexes(state_dir: Path) -> list[int]:
    names = [path.name.partition(".")[0] for path in (state_dir / "stats").glob(f"worker-*{_PAGE}")]
    found = {name.removeprefix("worker-") for name in names}
    return sorted(int(index) for index in found if index.isdecimal())
