"""The stats pages: one mmap of u64 counters per worker, written by that worker alone.

A worker adds to its counters with plain stores (~60 ns) and never talks to anyone about them;
control reads all pages when somebody asks. The page outlives the worker: its successor takes over
the same counters, so totals only grow, and what a killed worker had in memory shows as the
difference between what was decided and what was journaled (see `proxy.state.takeover`).

`Layout` names every cell. A worker that takes over another config adds cells and moves none: what a
candidate counted before stays where it is, and so does what a candidate counted that is gone. Readers
find the names in a file beside the page (`proxy.state.key_file`) and need no config.

The header says how many pairs the worker has counted into each of its latest journal segments. Number
and count are one word, stored at once: whenever the worker is killed, they tell whether the flush that
was under way has been counted (see `proxy.state.takeover`), and later what a damaged segment held (see
`segment_pairs`).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state.key_file import Key, append_keys, identity, read_keys, replace_keys
from proxy.state.stats_page import JOURNALED_BEFORE, KINDS, Family, families

#: Segments of which the header knows the pairs: more than `limits.journal_disk` holds by default.
SEGMENTS = 256
_SEGMENTS_AT = 8
HEADER_WORDS = _SEGMENTS_AT + SEGMENTS
MAGIC = int.from_bytes(b"USSTAT02", "little")
#: Bits of a segment's word that hold its pairs; its number is above them.
_PAIRS_BITS = 32
_PAIRS_MASK = (1 << _PAIRS_BITS) - 1
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

    def fit(self, wanted: Layout) -> None:
        """Get the page ready for a worker that starts; what was counted before must be settled.

        A page that is half full of what is not wanted any more is begun anew.

        Raises:
            StateError: as `extend`.
        """
        if sum(wanted.get(*key) is None for key in self.layout.named()) > MAX_CELLS // 2:
            self._begin_anew(wanted)
        self.extend(wanted)

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
                self._grow(grown.size)
            self._name(fresh)
        except OSError as exc:
            raise StateError(f"cannot extend {self.path}: {exc.strerror}") from exc
        self.layout = grown

    def _grow(self, cells: int) -> None:
        """Map as many cells; those of before stay where they are.

        Raises:
            OSError: the disk refuses.
        """
        self._map(_map_file(self.path, cells))

    def _name(self, fresh: list[Key]) -> None:
        """Write the names of new cells.

        Raises:
            OSError: the disk refuses.
        """
        append_keys(self._keys_path, fresh)

    def _begin_anew(self, wanted: Layout) -> None:
        """Forget every counter, but for the number of pairs that the recorder has in its books.

        In place, because others have the file mapped.

        Raises:
            StateError: the disk refuses.
        """
        known = ("pairs_journaled", JOURNALED_BEFORE)
        before = sum(self.cells[cell] for f, _, cell in self.layout.items() if f.name in known)
        self.cells[:] = memoryview(bytes(8 * len(self.cells))).cast("Q")
        self.layout = Layout()
        self.layout.add(wanted.named())
        self.cells[self.layout.index(JOURNALED_BEFORE)] = before
        try:
            replace_keys(self._keys_path, self.layout.named())
        except OSError as exc:
            raise StateError(f"cannot write beside {self.path}: {exc.strerror}") from exc

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

    @property
    def is_open(self) -> bool:
        """Tell whether a worker counts here, or died doing so and nobody has taken over."""
        return bool(self._words[4])

    def open_books(self) -> None:
        """Say that a worker counts here from now on."""
        self._words[4] = 1

    def close_books(self) -> None:
        """Say that all that was decided here is settled."""
        self._words[4] = 0

    def count_segment(self, number: int, pairs: int) -> None:
        """Count `pairs` more into the journal's segment `number`; one store, so never half."""
        at = _SEGMENTS_AT + number % SEGMENTS
        word = self._words[at]
        known = word if word >> _PAIRS_BITS == number else number << _PAIRS_BITS
        self._words[at] = known + pairs

    def segments(self) -> dict[int, int]:
        """Return the pairs counted into each segment that the header still knows."""
        return _segments(self._words[_SEGMENTS_AT:HEADER_WORDS])

    def close(self) -> None:
        """Unmap the page."""
        self.cells.release()
        self._words.release()
        self._mapping.close()


class UnkeptStats(StatsPage):
    """A page in the memory of its worker alone, whose folder cannot be written; nobody else sees it.

    Its cells lie where they will lie on the page that it stands for, so it can be moved there.
    """

    def __init__(self, path: Path, held: Layout) -> None:
        super().__init__(path, held, _map_memory(held.size))

    def _grow(self, cells: int) -> None:
        before = bytes(self._words.cast("B"))
        self._map(_map_memory(cells))
        self._words.cast("B")[: len(before)] = before

    def _name(self, fresh: list[Key]) -> None:
        return

    def move_to(self, page: StatsPage) -> None:
        """Add everything that was counted here to `page`, which was settled and extended.

        Raises:
            StateError: its cells lie elsewhere; nothing was moved.
        """
        if page.layout.named() != self.layout.named():
            raise StateError(f"{page.path} has other counters by now")
        for family, _, cell in self.layout.items():
            counted = self.cells[cell]
            page.cells[cell] = counted if family.is_gauge else page.cells[cell] + counted
        for number, pairs in self.segments().items():
            page.count_segment(number, pairs)
        page.runs(self.revision())


def page_path(state_dir: Path, worker: int) -> Path:
    """Return where the page of a worker is kept."""
    return state_dir / "stats" / f"worker-{worker}.page"


def keys_path(path: Path) -> Path:
    """Return where the names of the cells of a page are kept."""
    return path.with_suffix(".keys")


def page_indexes(state_dir: Path) -> list[int]:
    """Return the workers that have a page."""
    names = [path.stem for path in (state_dir / "stats").glob("worker-*.page")]
    found = (name.removeprefix("worker-") for name in names)
    return sorted(int(index) for index in found if index.isdecimal())


def open_left(state_dir: Path, worker: int) -> StatsPage:
    """Map a worker's page as the last one left it, or an empty one, to settle and then to `fit` it.

    Raises:
        StateError: it cannot be made or mapped.
    """
    path = page_path(state_dir, worker)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        held = Layout()
        held.add(read_keys(keys_path(path)))
        return StatsPage(path, held, _map_file(path, held.size))
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc


def open_unkept(state_dir: Path, worker: int) -> UnkeptStats:
    """Return a page in memory for a worker whose own cannot be opened."""
    path, held = page_path(state_dir, worker), Layout()
    with suppress(OSError, UnicodeDecodeError):  # then it has no place to move to
        held.add(read_keys(keys_path(path)))
    return UnkeptStats(path, held)


def open_stats(state_dir: Path, worker: int, layout: Layout) -> StatsPage:
    """Map a worker's page, made or extended so that it has every counter of `layout`.

    Raises:
        StateError: it cannot be made, mapped or extended.
    """
    page = open_left(state_dir, worker)
    page.fit(layout)
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
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            if size < 8 * (HEADER_WORDS + max(1, layout.size)) or not layout.size:
                raise StateError(f"{path} is too short; its worker has not started yet")
            return StatsPage(path, layout, mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
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


def _map_memory(cells: int) -> mmap.mmap:
    words = -(-(HEADER_WORDS + cells) // _STEP_WORDS) * _STEP_WORDS
    return mmap.mmap(-1, 8 * words)


def segment_pairs(state_dir: Path, worker: int, number: int) -> int | None:
    """Return how many pairs a worker counted into a journal segment; None when its page knows no more."""
    try:
        with page_path(state_dir, worker).open("rb") as file:
            header = file.read(8 * HEADER_WORDS)
    except OSError:
        return None
    if len(header) < 8 * HEADER_WORDS or header[:8] != MAGIC.to_bytes(8, "little"):
        return None
    return _segments(memoryview(header).cast("Q")[_SEGMENTS_AT:]).get(number)


def _segments(words: memoryview[int]) -> dict[int, int]:
    return {word >> _PAIRS_BITS: word & _PAIRS_MASK for word in words if word}
