"""What control knows at one moment, read from `state_dir`: pages, runtime and recorder files.

It only reads: nothing here waits for another process, or long for the disk, so a hung worker or recorder shows
as old numbers and never as a hung control. What the numbers mean is decided in `status` and `metrics`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.config.resolved import Config
from proxy.control.counters import Counters
from proxy.control.ejections import Ejection
from proxy.control.process_usage import Usage, usage
from proxy.control.recent import Key, Recent, RecentWindow
from proxy.control.seen_files import FileReader
from proxy.control.worker_pages import WorkerPages
from proxy.errors import StateError
from proxy.journal.books import JournalBooks
from proxy.state.control_page import ControlPage, ControlState, open_page
from proxy.state.decisions import waiting_count
from proxy.telemetry import monotonic_s, queued_s, wall_ns

#: A worker beats about once a second; one whose last beat is older than this hangs.
HUNG_MS = 2_000
#: One that has not beaten once by then does not come up. A start takes about half a second.
START_MS = 10_000
#: Counters that stand still where nothing is under way.
_BOOKS = frozenset(
    {
        "received", "routed", "served", "mirror_decided", "mirror_sent", "mirror_skipped",
        "pairs_decided", "pairs_journaled", "pairs_lost",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the tree, as the launcher last wrote it down.

    Attributes:
        pid: 0 while it is down.
        started_ms: wall clock, milliseconds.
        last_end: how its predecessor ended, such as `exit 1` or `SIGKILL`; empty for the first.
        is_alive: the process exists, or has just beaten (seen from another container, say).
        is_hung: a worker that has not beaten for `HUNG_MS`, or not once for `START_MS`: stopped, or
            caught in something endless.
    """

    name: str
    pid: int
    started_ms: int
    restarts: int
    last_end: str
    is_alive: bool
    is_hung: bool = False


@dataclass(frozen=True, slots=True)
class Reloads:
    """What control knows of the config file.

    Attributes:
        file: where it is; empty where nobody knows.
        loaded_ms: when what runs was put in place; wall clock, milliseconds.
        refused: why the file as it is now does not run, one sentence each; empty when it does.
        refused_ms: when it was refused.
        counts: reloads since control started, by result.
    """

    file: str = ""
    loaded_ms: int = 0
    refused: tuple[str, ...] = ()
    refused_ms: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that `status` and `metrics` tell.

    Attributes:
        now_ms: wall clock, milliseconds.
        state: None when the control page cannot be read; `page_error` says why then.
        counters: every worker's, added up.
        recent: what the counters did in the last minute; empty where nobody samples them.
        beating: how many workers have just beaten, whatever `runtime.json` knows of them.
        reloads: empty where control does not tell it.
        revisions: of the config that each worker runs, by its index; 0: it does not say.
        is_writable: whether files can be made in the state directory; if not, neither `runtime.json` nor
            the pages of workers that were started since say anything of them.
        ejections: what workers' guards have found, revived since or not.
        usage: of each living process, by name, what it uses of the machine; empty without /proc.
        ramps: what their driver saw last, by `route/candidate`.
        replicas: what control wrote down last of how it stands among its replicas.
        labels: what became of labels: `accepted` and `refused` since control started, and what the
            recorder that ships them last said.
        decisions: the last ones, newest first, without their evidence; how many were written, shipped and
            dropped, how many wait in control's memory, and what the recorder that ships them last said.
        journals: the books of each worker's journal, also of workers that the config no longer has.
        unsettled: pages of workers that died, whose successors have not settled them.
        still_s: for how long the books have not moved; 0 where nobody samples them.
        recorders: the statistics of each recorder by index; None before its first.
        hanging_s: for how long the disk has not answered, so that what is in files is of before; else 0.
        refused: requests that the admin API refused, by reason.
    """

    config: Config
    now_ms: int
    state: ControlState | None
    page_error: str
    generation: int
    runtime: dict[str, Any]
    processes: tuple[Process, ...]
    counters: Counters
    recorders: tuple[dict[str, Any] | None, ...]
    refused: dict[str, int]
    recent: Recent
    beating: int
    usage: dict[str, Usage]
    labels: dict[str, Any]
    ramps: dict[str, Any]
    decisions: dict[str, Any] = field(default_factory=dict)
    is_writable: bool = True
    hanging_s: float = 0.0
    replicas: dict[str, Any] = field(default_factory=dict)
    journals: tuple[JournalBooks, ...] = ()
    unsettled: int = 0
    still_s: float = 0.0
    reloads: Reloads = Reloads()
    revisions: Mapping[int, int] = field(default_factory=dict)
    ejections: tuple[Ejection, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether anything of the instance lives, as far as `state_dir` shows it."""
        return bool(self.beating) or any(process.is_alive for process in self.processes)

    def count(self, name: str, *labels: str) -> int:
        """Return the sum of a family over every label value that starts with `labels`."""
        return self.counters.sum(name, *labels)

    def by_last_label(self, name: str, *labels: str) -> dict[str, int]:
        """Return a family's counters by the value of its last label, zeros left out."""
        return self.counters.by_last(name, *labels)


class Observer:
    """Reads snapshots; keeps the pages mapped between them.

    Attributes:
        refused: requests that the admin API refused, by reason, since control started.
        label_counts: lines of labels by what became of them, since control started.
        reloads: told by whoever reloads.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state_dir = Path(config.state_dir)
        self.refused: Counter[str] = Counter()
        self.label_counts: Counter[str] = Counter()
        self._page: ControlPage | None = None
        self._workers = WorkerPages(config)
        self._files = FileReader(self.state_dir)
        self._window = RecentWindow()
        self._moved = Moved()
        self.reloads = Reloads()

    def follow(self, config: Config) -> None:
        """Read what runs `config` from now on."""
        self.config = self._workers.config = config

    def lagging(self, revision: int) -> list[int]:
        """Return the living workers that run an older revision of the config than this one."""
        now_ms = wall_ns() // 1_000_000
        beats = self._workers.beats()
        return [
            index
            for index, found in self._workers.revisions().items()
            if found < revision and now_ms - beats[index][1] <= HUNG_MS
        ]

    def ejections(self, key: tuple[str, str] | None = None) -> tuple[Ejection, ...]:
        """Return what workers' guards have found of one candidate (route, name), or of all."""
        return self._workers.ejections(key)

    def page(self) -> ControlPage:
        """Return the control page that is at its path now.

        Raises:
            StateError: it cannot be opened.
        """
        if self._page is not None and not (self._page.is_whole() and self._page.is_writable):
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
        # In this order: what was settled is read before what it was settled of.
        files = self._files.wholly(self.config.recorders)
        runtime, recorders = files.runtime, files.recorders
        now_ms = wall_ns() // 1_000_000
        counters = self._workers.counters()
        beats = self._workers.beats()
        is_writable = os.access(self.state_dir, os.W_OK | os.X_OK)
        processes = tuple(
            _process(entry, _beat_age_ms(entry, beats, now_ms, is_writable=is_writable))
            for entry in runtime.get("processes", [])
        )
        return Snapshot(
            config=self.config,
            now_ms=now_ms,
            state=state,
            page_error=error,
            generation=generation,
            runtime=runtime,
            processes=processes,
            counters=Counters(counters),
            refused=dict(self.refused),
            recorders=recorders,
            recent=self._window.recent(
                monotonic_s(), {**counters, **_drops(recorders), **_queued(runtime)}
            ),
            beating=sum(now_ms - beat_ms <= HUNG_MS for _, beat_ms in beats.values()),
            usage=_usage(int(runtime.get("pid", 0)), processes),
            ramps=files.ramps,
            replicas=files.replicas,
            labels={**self.label_counts, **files.labels},
            decisions={**files.decisions, "in_memory": waiting_count(self.state_dir)},
            hanging_s=files.hanging_s,
            is_writable=is_writable,
            journals=files.journals,
            unsettled=self._workers.unsettled(now_ms - HUNG_MS),
            still_s=self._moved.still_s(monotonic_s(), counters, recorders),
            reloads=self.reloads,
            revisions=self._workers.revisions(),
            ejections=self._workers.ejections(),
        )

    def sample(self) -> None:
        """Remember the counters of now for `Snapshot.recent`; about once a second."""
        files = self._files.briefly(self.config.recorders)
        counters, recorders, runtime = self._workers.counters(), files.recorders, files.runtime
        self._window.add(monotonic_s(), {**counters, **_drops(recorders), **_queued(runtime)})
        self._moved.look(monotonic_s(), counters, recorders)

    def close(self) -> None:
        """Unmap every page."""
        self._workers.close()
        if self._page is not None:
            self._page.close()
            self._page = None


@dataclass(slots=True)
class Moved:
    """Since when the books of the instance have not moved, by looks at them each second."""

    _seen: list[object] = field(default_factory=list)
    _since_s: float = 0.0

    def look(
        self, now_s: float, counters: dict[Key, int], recorders: tuple[dict[str, Any] | None, ...]
    ) -> None:
        """Take note of the books at `now_s` (monotonic)."""
        seen = _books(counters, recorders)
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s

    def still_s(
        self, now_s: float, counters: dict[Key, int], recorders: tuple[dict[str, Any] | None, ...]
    ) -> float:
        """Return for how long they are as they are now; 0 when they have moved since the last look."""
        is_same = self._seen == _books(counters, recorders)
        return now_s - self._since_s if is_same and self._seen else 0.0


def _books(counters: dict[Key, int], recorders: tuple[dict[str, Any] | None, ...]) -> list[object]:
    moving = [count for key, count in counters.items() if key[0] in _BOOKS]
    return [*moving, *((r or {}).get("journaled_read") for r in recorders)]


def _process(entry: dict[str, Any], beat_age_ms: int | None) -> Process:
    pid = int(entry["pid"])
    has_beaten = beat_age_ms is not None and beat_age_ms <= HUNG_MS
    is_alive = has_beaten or _exists(pid)
    is_hung = is_alive and beat_age_ms is not None and not has_beaten
    return Process(
        entry["name"], pid, entry["started_ms"], entry["restarts"], entry["last_end"],
        is_alive, is_hung,
    )  # fmt: skip


def _usage(launcher: int, processes: tuple[Process, ...]) -> dict[str, Usage]:
    pids = {"launcher": launcher} | {process.name: process.pid for process in processes}
    found = {name: usage(pid) for name, pid in pids.items() if pid}
    return {name: each for name, each in found.items() if each is not None}


def _beat_age_ms(
    entry: dict[str, Any], beats: dict[int, tuple[int, int]], now_ms: int, *, is_writable: bool
) -> int | None:
    """Return how long ago a worker beat or started; None for one that may still start, or others.

    One that was started on a read-only disk beats in its memory alone.
    """
    role, _, index = str(entry["name"]).partition(" ")
    if role != "worker" or not index.isdecimal():
        return None
    pid, beat_ms = beats.get(int(index), (0, 0))
    if pid and pid == entry["pid"]:
        return now_ms - beat_ms
    age_ms = now_ms - int(entry["started_ms"])
    return age_ms if age_ms > START_MS and is_writable else None


def _drops(recorders: tuple[dict[str, Any] | None, ...]) -> dict[Key, int]:
    """Return the pairs that recorders gave up, as counters."""
    found: Counter[Key] = Counter()
    for recorder in filter(None, recorders):
        for reason, count in recorder.get("dropped", {}).items():
            found["recorder_dropped", reason] += count
    return dict(found)


def _queued(runtime: dict[str, Any]) -> dict[Key, int]:
    """Return for how long each recorder has waited for a processor, as counters in milliseconds."""
    pids = {entry["name"]: int(entry["pid"]) for entry in runtime.get("processes", [])}
    told = {name: queued_s(str(pid)) for name, pid in pids.items() if name.startswith("recorder ")}
    return {("queued_ms", name): int(1000 * s) for name, s in told.items() if s is not None}


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
