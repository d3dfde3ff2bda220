"""The stats pages of all workers as one: counters added up, heartbeats, and what older configs left.

Pages stay mapped between two looks. A config with other routes has another layout, so its workers
count on pages of their own; what the pages of older layouts journaled is still in the recorder's
books, so the ledger needs it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from proxy.config.resolved import Config, loads
from proxy.control.recent import Key
from proxy.errors import StateError
from proxy.state.stats_page import Layout, StatsPage, open_stats

#: The one counter that comes from pages of older layouts.
JOURNALED_BEFORE: Key = ("pairs_journaled_before",)
#: Told of each worker by itself: the last label of their keys is its number.
PER_WORKER = frozenset({"loop_lag_us", "loop_lag_sum_us"})
#: Totals of which other counters are the parts: read after these, so that no part is read that its
#: total has not seen. Requests received come last, since those that were routed are a part of them.
_TOTALS = frozenset({"routed", "mirror_decided", "pairs_decided"})
_LAST = "received"
_SUFFIX = ".page"


class WorkerPages:
    """Reads the pages of one `state_dir`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._state_dir = Path(config.state_dir)
        self.layout = Layout(config)
        self._layouts: dict[str, Layout] = {self.layout.fingerprint: self.layout}
        self._known_configs: set[str] = set()
        self._pages: dict[tuple[int, str], StatsPage] = {}

    def counters(self) -> dict[Key, int]:
        """Return every counter of the present layout, and `JOURNALED_BEFORE`."""
        total: Counter[Key] = Counter({JOURNALED_BEFORE: 0})
        for index, fingerprint in self._names():
            page = self._page(index, fingerprint)
            if page is None:
                continue
            if page.layout is not self.layout:
                total[JOURNALED_BEFORE] += _journaled(page)
                continue
            cells = _copy(page)
            for family, values, cell in self.layout.items():
                if family.name in PER_WORKER:
                    total[family.name, *values, str(index)] = cells[cell]
                    continue
                # A worker that the config no longer has holds nothing now; its totals stay.
                is_past = family.is_gauge and index >= self._config.workers
                count = 0 if is_past else cells[cell]
                if family.is_worst:
                    total[family.name, *values] = max(total[family.name, *values], count)
                else:
                    total[family.name, *values] += count
        return dict(total)

    def beats(self) -> dict[int, tuple[int, int]]:
        """Return who beat last on each worker's page (process id), and when (wall clock, ms)."""
        found = {}
        for index in range(self._config.workers):
            page = self._page(index, self.layout.fingerprint)
            if page is not None:
                found[index] = page.heartbeat()
        return found

    def unsettled(self, beaten_ms: int) -> int:
        """Return how many pages are open whose worker has not beaten since `beaten_ms` (wall clock)."""
        pages = [page for key in self._names() if (page := self._page(*key)) is not None]
        return sum(page.is_open and page.heartbeat()[1] < beaten_ms for page in pages)

    def close(self) -> None:
        """Unmap every page."""
        for page in self._pages.values():
            page.close()
        self._pages.clear()

    def _names(self) -> list[tuple[int, str]]:
        """Return worker and fingerprint of every page there is, or was when it was mapped."""
        found = set(self._pages)
        try:
            names = [path.name for path in (self._state_dir / "stats").iterdir()]
        except OSError:
            names = []
        for name in names:
            worker, _, fingerprint = name.removesuffix(_SUFFIX).partition(".")
            index = worker.removeprefix("worker-")
            if name.endswith(_SUFFIX) and index.isdecimal():
                found.add((int(index), fingerprint))
        return sorted(found)

    def _page(self, index: int, fingerprint: str) -> StatsPage | None:
        key = (index, fingerprint)
        if key not in self._pages:
            layout = self._layout(fingerprint)
            if layout is None:
                return None
            try:
                self._pages[key] = open_stats(self._state_dir, index, layout, create=False)
            except StateError:
                return None  # its worker has not started yet
        return self._pages[key]

    def _layout(self, fingerprint: str) -> Layout | None:
        """Return a layout, looked for among the configs that this instance has run."""
        if fingerprint not in self._layouts:
            for path in sorted((self._state_dir / "config").glob("*.json")):
                if path.name in self._known_configs:
                    continue
                self._known_configs.add(path.name)
                try:
                    layout = Layout(loads(path.read_bytes()))
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # of another version, or gone
                self._layouts.setdefault(layout.fingerprint, layout)
        return self._layouts.get(fingerprint)


def _copy(page: StatsPage) -> list[int]:
    """Return the counters of a page that is being written, no part ahead of its total."""
    cells, totals, last = (page.cells.tolist() for _ in range(3))
    for family, _, cell in page.layout.items():
        if family.name in _TOTALS:
            cells[cell] = totals[cell]
        elif family.name == _LAST:
            cells[cell] = last[cell]
    return cells


def _journaled(page: StatsPage) -> int:
    return sum(
        page.cells[cell]
        for family, _, cell in page.layout.items()
        if family.name == "pairs_journaled"
    )
