"""The stats pages of all workers as one: counters added up, heartbeats, and which revision each runs.

Pages stay mapped between two looks. They name their own cells, so what routes and candidates counted
that are not configured any more is there, too: the ledger needs it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from proxy.config.resolved import Config
from proxy.control.ejections import Ejection, ejection_on
from proxy.control.recent import Key
from proxy.errors import StateError
from proxy.state import stats_page
from proxy.state.stats_file import StatsPage, page_indexes, read_stats

#: What a worker that began its page anew had journaled before.
JOURNALED_BEFORE: Key = (stats_page.JOURNALED_BEFORE,)
#: Told of each worker by itself: the last label of their keys is its number.
PER_WORKER = frozenset({"loop_lag_us", "loop_lag_sum_us"})
#: Told of each worker beside the sum; the last label of its keys is the worker's number.
CONNECTIONS_OPEN = "connections_open"
OPEN_BY_WORKER = f"worker_{CONNECTIONS_OPEN}"
#: Totals of which other counters are the parts: read after these, so that no part is read that its
#: total has not seen. Requests received come last, since those that were routed are a part of them.
_TOTALS = frozenset({"routed", "mirror_decided", "pairs_decided"})
_LAST = "received"


class WorkerPages:
    """Reads the pages of one `state_dir`.

    Attributes:
        config: what workers run; may be replaced at any time.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._state_dir = Path(config.state_dir)
        self._pages: dict[int, StatsPage] = {}

    def counters(self) -> dict[Key, int]:
        """Return every counter that a worker has ever had, added up."""
        total: Counter[Key] = Counter({JOURNALED_BEFORE: 0})
        for index in self._indexes():
            page = self._page(index)
            if page is None:
                continue
            cells = _copy(page)
            for family, values, cell in page.layout.items():
                if family.name in PER_WORKER:
                    total[family.name, *values, str(index)] = cells[cell]
                    continue
                # A worker that the config no longer has holds nothing now; its totals stay.
                is_past = family.is_gauge and index >= self.config.workers
                count = 0 if is_past else cells[cell]
                if family.name == CONNECTIONS_OPEN and not is_past:
                    total[OPEN_BY_WORKER, str(index)] = count
                if family.is_worst:
                    total[family.name, *values] = max(total[family.name, *values], count)
                else:
                    total[family.name, *values] += count
        return dict(total)

    def beats(self) -> dict[int, tuple[int, int]]:
        """Return who beat last on each worker's page (process id), and when (wall clock, ms)."""
        return {index: page.heartbeat() for index, page in self._present()}

    def revisions(self) -> dict[int, int]:
        """Return the revision of the config that each worker runs, by its index."""
        return {index: page.revision() for index, page in self._present()}

    def ejections(self, only: tuple[str, str] | None = None) -> tuple[Ejection, ...]:
        """Return what the guards of all workers have found, revived since or not.

        Args:
            only: the route and the name of one candidate; None: all that the config has.
        """
        keys = [(route.name, c.name) for route in self.config.routes for c in route.candidates]
        keys = keys if only is None else [only]
        pages = [(index, self._page(index)) for index in self._indexes()]
        found = (
            ejection_on(page, index, *key)
            for index, page in pages
            if page is not None
            for key in keys
        )
        return tuple(each for each in found if each is not None)

    def unsettled(self, beaten_ms: int) -> int:
        """Return how many pages are open whose worker has not beaten since `beaten_ms` (wall clock)."""
        pages = [page for index in self._indexes() if (page := self._page(index)) is not None]
        return sum(page.is_open and page.heartbeat()[1] < beaten_ms for page in pages)

    def close(self) -> None:
        """Unmap every page."""
        for page in self._pages.values():
            page.close()
        self._pages.clear()

    def _present(self) -> list[tuple[int, StatsPage]]:
        """Return the pages of the workers that there should be."""
        pages = ((index, self._page(index)) for index in range(self.config.workers))
        return [(index, page) for index, page in pages if page is not None]

    def _indexes(self) -> list[int]:
        """Return the worker of every page there is, or was when it was mapped."""
        return sorted({*self._pages, *page_indexes(self._state_dir)})

    def _page(self, index: int) -> StatsPage | None:
        page = self._pages.get(index)
        if page is not None and page.is_current():
            return page
        try:
            self._pages[index] = found = read_stats(self._state_dir, index)
        except StateError:
            return page  # its worker has not started yet, or somebody has removed the file
        if page is not None:
            page.close()
        return found


def _copy(page: StatsPage) -> list[int]:
    """Return the counters of a page that is being written, no part ahead of its total."""
    cells, totals, last = (page.cells.tolist() for _ in range(3))
    for family, _, cell in page.layout.items():
        if family.name in _TOTALS:
            cells[cell] = totals[cell]
        elif family.name == _LAST:
            cells[cell] = last[cell]
    return cells
