"""What control knows at one moment, read from `state_dir`: pages, runtime and recorder files.

It only reads: nothing here waits for another process, so a hung worker or recorder shows as old
numbers and never as a hung control. What the numbers mean is decided in `status` and `metrics`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state.control_page import ControlPage, ControlState, open_page
from proxy.state.stats_page import Layout, StatsPage, open_stats
from proxy.telemetry import wall_ns

#: A counter: its family, then its label values.
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the tree, as the launcher last wrote it down.

    Attributes:
        pid: 0 while it is down.
        started_ms: wall clock, milliseconds.
        last_end: how its predecessor ended, such as `exit 1` or `SIGKILL`; empty for the first.
    """

    name: str
    pid: int
    started_ms: int
    restarts: int
    last_end: str
    is_alive: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that `status` and `metrics` tell.

    Attributes:
        now_ms: wall clock, milliseconds.
        state: None when the control page cannot be read; `page_error` says why then.
        counters: every worker's, added up.
        recorders: the statistics of each recorder by index; None before its first.
        refused: requests that the admin API refused, by reason.
    """

    config: Config
    now_ms: int
    state: ControlState | None
    page_error: str
    generation: int
    runtime: dict[str, Any]
    processes: tuple[Process, ...]
    counters: dict[Key, int]
    recorders: tuple[dict[str, Any] | None, ...]
    refused: dict[str, int]

    def count(self, name: str, *labels: str) -> int:
        """Return the sum of a family over every label value that starts with `labels`."""
        key = (name, *labels)
        return sum(n for k, n in self.counters.items() if k[: len(key)] == key)

    def by_last_label(self, name: str, *labels: str) -> dict[str, int]:
        """Return a family's counters by the value of its last label, zeros left out."""
        key, size = (name, *labels), len(labels) + 2
        return {
            k[-1]: n for k, n in self.counters.items() if n and len(k) == size and k[:-1] == key
        }


class Observer:
    """Reads snapshots; keeps the pages mapped between them.

    Attributes:
        refused: requests that the admin API refused, by reason, since control started.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state_dir = Path(config.state_dir)
        self.layout = Layout(config)
        self.refused: Counter[str] = Counter()
        self._page: ControlPage | None = None
        self._stats: dict[int, StatsPage] = {}

    def page(self) -> ControlPage:
        """Return the control page that is at its path now.

        Raises:
            StateError: it cannot be opened.
        """
        if self._page is not None and not self._page.is_whole():
            self._page.close()
            self._page = None
        if self._page is None:
            self._page = open_page(self.state_dir)
        return self._page

    def snapshot(self) -> Snapshot:
        """Read everything once."""
        state, error, generation = None, "", 0
        try:
            page = self.page()
            generation = page.generation()
            state = page.read()
        except StateError as exc:
            error = str(exc)
        runtime = read_json(self.state_dir / "runtime.json") or {}
        return Snapshot(
            config=self.config,
            now_ms=wall_ns() // 1_000_000,
            state=state,
            page_error=error,
            generation=generation,
            runtime=runtime,
            processes=tuple(_process(entry) for entry in runtime.get("processes", [])),
            counters=self._counters(),
            refused=dict(self.refused),
            recorders=tuple(
                read_json(self.state_dir / f"recorder-{index}.json")
                for index in range(self.config.recorders)
            ),
        )

    def close(self) -> None:
        """Unmap every page."""
        for stats in self._stats.values():
            stats.close()
        self._stats.clear()
        if self._page is not None:
            self._page.close()
            self._page = None

    def _counters(self) -> dict[Key, int]:
        total: Counter[Key] = Counter()
        for index in self._worker_indexes():
            page = self._stats_page(index)
            if page is None:
                continue
            for family, values, cell in self.layout.items():
                # A worker that the config no longer has holds nothing now; its totals stay.
                is_past = family.is_gauge and index >= self.config.workers
                total[family.name, *values] += 0 if is_past else page.cells[cell]
        return dict(total)

    def _worker_indexes(self) -> list[int]:
        """Return the workers, past ones included, that have a page of this layout."""
        suffix = f".{self.layout.fingerprint}.page"
        try:
            names = [path.name for path in (self.state_dir / "stats").iterdir()]
        except OSError:
            names = []
        words = [
            n.removeprefix("worker-").removesuffix(suffix) for n in names if n.endswith(suffix)
        ]
        return sorted({int(word) for word in words if word.isdecimal()} | set(self._stats))

    def _stats_page(self, index: int) -> StatsPage | None:
        if index not in self._stats:
            try:
                self._stats[index] = open_stats(self.state_dir, index, self.layout, create=False)
            except StateError:
                return None  # its worker has not started yet
        return self._stats[index]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a small JSON object that another process replaces now and then; None without one."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _process(entry: dict[str, Any]) -> Process:
    pid = int(entry["pid"])
    return Process(
        entry["name"], pid, entry["started_ms"], entry["restarts"], entry["last_end"], _exists(pid)
    )


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
