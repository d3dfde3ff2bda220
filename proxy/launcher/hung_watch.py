"""Which workers hang: they live and have beaten, but their heartbeat stands still.

A worker that was stopped (SIGSTOP), or whose loop is caught in something endless, keeps its part of
the connections and answers none of them. Replacing it costs those; keeping it costs them and more.

It counts looks, not time: while the launcher itself did not run (a suspended machine, a frozen
container) nobody can be blamed for not having moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import StateError
from proxy.state.stats_file import StatsPage, read_stats

LOOK_S = 1.0
#: Looks at a standing heartbeat after which a worker is given up.
PATIENCE = 10


@dataclass(slots=True)
class _Seen:
    """The heartbeat of one life of a worker, and how often it was found unchanged."""

    beat: tuple[int, int]
    looks: int = 0


class HungWatch:
    """Looks at the heartbeats about once a second."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._pages: dict[int, StatsPage] = {}
        self._seen: dict[int, _Seen] = {}
        self._due_s = 0.0

    def hung(self, now_s: float, workers: Mapping[int, int]) -> list[int]:
        """Return the workers whose heartbeat has stood still since their first beat; mostly none.

        Args:
            now_s: monotonic.
            workers: the process id of each living worker, by its index.
        """
        if now_s < self._due_s:
            return []
        self._due_s = now_s + LOOK_S
        return [index for index, pid in workers.items() if self._is_hung(index, pid)]

    def _is_hung(self, index: int, process_id: int) -> bool:
        beat = self._beat(index)
        if beat[0] != process_id:  # it has not beaten yet
            self._seen.pop(index, None)
            return False
        seen = self._seen.setdefault(index, _Seen(beat))
        if seen.beat != beat:
            self._seen[index] = _Seen(beat)
            return False
        seen.looks += 1
        return seen.looks > PATIENCE

    def _beat(self, index: int) -> tuple[int, int]:
        if index not in self._pages:
            try:
                self._pages[index] = read_stats(self._state_dir, index)
            except StateError:
                return 0, 0
        return self._pages[index].heartbeat()
