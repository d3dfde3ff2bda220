"""The stats pages: one mmap of u64 counters per worker, written by that worker alone.

A worker adds to its counters with plain stores (~60 ns) and never talks to anyone about them;
control reads all pages when somebody asks. The page outlives the worker: its successor takes over
the same counters, so totals only grow, and what a killed worker had in memory shows as the
difference between what was decided and what was journaled (see `adopt`).

`Layout` names every cell. A worker that takes over another config adds cells and moves none: what a
candidate counted before stays where it is, and so does what a candidate counted that is gone. Readers
find the names in a file beside the page (`proxy.state.key_file`) and need no config.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state.key_file import Key, append_keys, identity, read_keys, replace_keys
from proxy.state.stats_page import (
    JOURNALED_BEFORE,
    KINDS,
    Family,
    Lost,
    Outcome,
    Skip,
    families,
)

HEADER_WORDS = 8
MAGIC = int.from_bytes(b"USSTAT02", "little")
#: Of a page, 8 MiB: some 15,000 candidates. Beyond it no config with new names is taken over; a
#: worker that starts and finds half of them unused begins its page anew.
MAX_CELLS = 2**20
#: A page grows by so many words at a time: one page of memory.
_STEP_WORDS = 512


class Layout:
    """Where each counter lives: `index(name, *labels)` is a cell of `StatsPage.cells`.

    Args:
        config: whose counters are named, in the order of `families`; None: none yet.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._index: dict[Key, int] = {}
        if config is not None:
            self.add((f.name, *values) for f in families(config) for values in f.values)

    @property
    def size(self) -> int:
        """How many cells there are."""
        return len(self._index)

    def add(self, keys: Iterable[Key]) -> list[Key]:
        """Give each key that has none the next cell; return these keys."""
        index = self._index
        fresh = [key for key in keys if key not in index]
        for key in fresh:
            index.setdefault(key, len(index))
        return fresh

    def index(self, name: str, *labels: str) -> int:
        """Return the cell of one counter.

        Raises:
            KeyError: there is no such counter in this layout.
        """
        return self._index[(name, *labels)]

    def get(self, name: str, *labels: str) -> int | None:
        """Return the cell of one counter, None where there is none."""
        return self._index.get((name, *labels))

    def named(self) -> list[Key]:
        """Return every key in the order of the cells."""
        return list(self._index)

    def items(self) -> Iterator[tuple[Family, tuple[str, ...], int]]:
        """Yield each family that this version knows, label values and cell, in order."""
        for (name, *values), cell in self._index.items():
            family = KINDS.get(name)
            if family is not None:
                yield family, tuple(values), cell


class StatsPage:
    """A worker's counters; `cells[i]` is a plain unsigned 64-bit integer.

    Attributes:
        cells: replaced when the page grows; one of before still reaches the cells of then.
        layout: of the whole page, what is no longer configured included.
    """

    def __init__(self, path: Path, layout: Layout, mapping: mmap.mmap) -> None:
        self.layout = layout
        self.path = path
        self._keys_path = keys_path(path)
        self._keys_identity = identity(self._keys_path)
        self._map(mapping)

    def _map(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._words = memoryview(mapping).cast("Q")
        self.cells = self._words[HEADER_WORDS:]

    def get(self, name: str, *labels: str) -> int:
        """Return one counter."""
        return self.cells[self.layout.index(name, *labels)]

    def add(self, amount: int, name: str, *labels: str) -> None:
        """Add to one counter; off the hot path, where the index is not kept."""
        self.cells[self.layout.index(name, *labels)] += amount

    def extend(self, wanted: Layout) -> None:
        """Make room for every counter of `wanted`; for the page's worker alone.

        Raises:
            StateError: the disk refuses, or there are too many; nothing has changed then.
        """
        self._words[0] = MAGIC
        grown = Layout()
        grown.add(self.layout.named())
        fresh = grown.add(wanted.named())
        if not fresh:
            return
        if grown.size > MAX_CELLS:
            raise StateError(
                f"{self.path} has no room for {len(fresh)} more counters: too many routes and "
                "candidates have come and gone; restart to begin it anew"
            )
        try:
            if HEADER_WORDS + grown.size > len(self._words):
                self._map(_map_file(self.path, grown.size))
            append_keys(self._keys_path, fresh)
        except OSError as exc:
            raise StateError(f"cannot extend {self.path}: {exc.strerror}") from exc
        self.layout = grown

    def is_current(self) -> bool:
        """Tell whether the page still has the cells that it had when it was opened to be read."""
        return identity(self._keys_path) == self._keys_identity

    def beat(self, *, pid: int, now_ms: int) -> None:
        """Say that the worker `pid` serves and was alive at `now_ms` (wall clock); once a second."""
        self._words[1] = pid
        self._words[2] = now_ms

    def heartbeat(self) -> tuple[int, int]:
        """Return who beat last (process id) and when (wall clock, ms); zeros if nobody did."""
        return self._words[1], self._words[2]

    def runs(self, revision: int) -> None:
        """Say which revision of the config the worker runs (`ControlState.config_revision`)."""
        self._words[3] = revision

    def revision(self) -> int:
        """Return the revision that the worker last said it runs."""
        return self._words[3]

    def close(self) -> None:
        """Unmap the page."""
        self.cells.release()
        self._words.release()
        self._mapping.close()


def page_path(state_dir: Path, worker: int) -> Path:
    """Return where the page of a worker is kept."""
    return state_dir / "stats" / f"worker-{worker}.page"


def keys_path(path: Path) -> Path:
    """Return where the names of the cells of a page are kept."""
    return path.with_suffix(".keys")


def open_stats(state_dir: Path, worker: int, layout: Layout) -> StatsPage:
    """Map a worker's page, made or extended so that it has every counter of `layout`.

    Raises:
        StateError: it cannot be made, mapped or extended.
    """
    path = page_path(state_dir, worker)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        held = Layout()
        held.add(read_keys(keys_path(path)))
        page = StatsPage(path, held, _map_file(path, held.size))
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc
    if sum(layout.get(*key) is None for key in held.named()) > MAX_CELLS // 2:
        _begin_anew(page, layout)
    page.extend(layout)
    return page


def read_stats(state_dir: Path, worker: int) -> StatsPage:
    """Map a worker's page as it is, to read it.

    Raises:
        StateError: it is missing, its worker has not got it ready, or it cannot be mapped.
    """
    path = page_path(state_dir, worker)
    layout = Layout()
    try:
        layout.add(read_keys(keys_path(path)))
        descriptor = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(descriptor).st_size
            if size < 8 * (HEADER_WORDS + max(1, layout.size)) or not layout.size:
                raise StateError(f"{path} is too short; its worker has not started yet")
            return StatsPage(path, layout, mmap.mmap(descriptor, size))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc


def _map_file(path: Path, cells: int) -> mmap.mmap:
    """Map a page, made or lengthened to hold so many cells.

    Raises:
        OSError: the disk refuses.
    """
    words = -(-(HEADER_WORDS + cells) // _STEP_WORDS) * _STEP_WORDS
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        missing = 8 * words - size
        # Written, not ftruncated: a store into a hole on a full disk would be a SIGBUS.
        if missing > 0 and os.pwrite(descriptor, bytes(missing), size) < missing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return mmap.mmap(descriptor, max(size, 8 * words))
    finally:
        os.close(descriptor)


def _begin_anew(page: StatsPage, layout: Layout) -> None:
    """Forget every counter, but for the number of pairs that the recorder has in its books.

    In place, because others have the file mapped.

    Raises:
        StateError: the disk refuses.
    """
    adopt(page)
    counts = [
        c for f, _, c in page.layout.items() if f.name in ("pairs_journaled", JOURNALED_BEFORE)
    ]
    before = sum(page.cells[cell] for cell in counts)
    page.cells[:] = memoryview(bytes(8 * len(page.cells))).cast("Q")
    page.layout = Layout()
    page.layout.add(layout.named())
    page.cells[page.layout.index(JOURNALED_BEFORE)] = before
    try:
        replace_keys(keys_path(page.path), page.layout.named())
    except OSError as exc:
        raise StateError(f"cannot write beside {page.path}: {exc.strerror}") from exc


def adopt(page: StatsPage) -> int:
    """Take over a dead worker's page: settle what it had in flight; return the pairs lost.

    A pair that was decided and neither journaled nor lost was in the dead worker's memory: it is
    counted as lost to `worker_died`. A request that was routed and not served ended `reset`.
    Gauges start from zero. What is no longer configured is settled, too.
    """
    lost = 0
    for family, values, cell in page.layout.items():
        count = page.cells[cell]
        if family.is_gauge:
            page.cells[cell] = 0
        elif family.name == "routed":
            ended = _sum(page, "served", values, Outcome)
            _settle(page, count - ended, "served", *values, Outcome.RESET)
        elif family.name == "pairs_decided":
            settled = _sum(page, "pairs_journaled", values) + _sum(page, "pairs_lost", values, Lost)
            _settle(page, count - settled, "pairs_lost", *values, Lost.WORKER_DIED)
            lost += count - settled
        elif family.name == "mirror_decided":
            settled = _sum(page, "mirror_sent", values) + _sum(page, "mirror_skipped", values, Skip)
            _settle(page, count - settled, "mirror_skipped", *values, Skip.SHUTDOWN)
    return lost


def _sum(
    page: StatsPage, name: str, values: tuple[str, ...], words: Iterable[str] | None = None
) -> int:
    """Return a counter, or the sum over its last label; what another version did not have is 0."""
    keys = [(name, *values)] if words is None else [(name, *values, str(word)) for word in words]
    cells = [page.layout.get(*key) for key in keys]
    return sum(page.cells[cell] for cell in cells if cell is not None)


def _settle(page: StatsPage, amount: int, *key: str) -> None:
    cell = page.layout.get(*map(str, key))
    if cell is not None:
        page.cells[cell] += amount
