"""What a journal needs of the disk that may take long, in a thread beside the worker's event loop.

It decides which segments a full disk budget costs and keeps the durable count of them. It does not
decide when: `proxy.journal.writer` says what is due, and never waits for it.

Syncing a file takes from a millisecond to as long as a disk hangs, removing a segment of 64 MiB
some milliseconds, and counting what is left of one that was shipped in part up to a quarter of a
second: none of that may come between two users' requests. The thread begins with the first job, so
a journal that is never synced and never full has none.

One sync covers all that was written before it began. So however slow the disk is, at most one sync
is under way and one is due for each segment, and a worker's journal is at most two syncs behind.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.journal.scan import count_lines
from proxy.journal.segments import (
    doomed_path,
    doomed_segments,
    load_dropped,
    load_shipped,
    segment_path,
    segment_sizes,
    store_dropped,
    sync_directory,
)

#: Segments that may wait for a sync at a time: with 64 MiB each, a disk that far behind is no disk.
_MAX_UNSYNCED = 16

# Content and size are synced, times are not; macOS has only the other one.
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class Tidying:
    """A look at the closed segments.

    Attributes:
        current: number of the segment that is written; it and later ones are left alone.
        keep_bytes: drop the oldest until the closed ones hold no more than this; None: only look.
        known_pairs: how many pairs a segment holds, for those that the writer wrote itself.
    """

    current: int
    keep_bytes: int | None
    known_pairs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Tidied:
    """What the segments before `current` hold after a `Tidying`, and which are left of them."""

    current: int
    closed_bytes: int
    left: frozenset[int]


class Janitor:
    """Syncs and drops segments of one journal, in a thread of its own.

    It ends what a dead writer was dropping. Only the writer's thread may call its methods; attributes
    may be read by anybody.

    Raises:
        OSError: the directory cannot be used.

    Attributes:
        dropped: what the disk budget cost, over all starts of the writer.
        tidied: the latest result; the writer takes it by setting it to None.
        syncs: of segments, since the start.
        sync_errors: syncs that failed, or were given up because the disk is too far behind.
    """

    def __init__(self, directory: Path) -> None:
        self.dropped = self._stored = load_dropped(directory)
        self.tidied: Tidied | None = None
        self.syncs = 0
        self.sync_errors = 0
        self._directory = directory
        self._thread: threading.Thread | None = None
        self._wake = threading.Condition()
        self._unsynced: dict[int, int] = {}
        self._tidying: Tidying | None = None
        self._is_busy = self._is_closing = False
        self._newest_synced = 0
        for number, lost in doomed_segments(directory):
            self._end(number, lost)

    @property
    def is_tidying(self) -> bool:
        """Whether a look at the segments is due or under way, or its result was not taken."""
        return self._tidying is not None or self._is_busy or self.tidied is not None

    def sync(self, segment: int, descriptor: int) -> None:
        """Have `segment` synced soon; `descriptor` is its file, and is the writer's own."""
        with self._wake:
            is_due = segment in self._unsynced or self._take(segment, descriptor)
        if is_due:
            self._ask()

    def tidy(self, tidying: Tidying) -> None:
        """Look at the closed segments soon, and drop what is too much; see `tidied`."""
        with self._wake:
            self._tidying = tidying
        self._ask()

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is due; return whether that is so."""
        with self._wake:
            return self._wake.wait_for(self._is_idle, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Do what is due, for `timeout_s` seconds at most, and end the thread."""
        self.settle(timeout_s)
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()

    def _take(self, segment: int, descriptor: int) -> bool:
        """Keep a file of our own of a segment, because the writer may close its own before the sync."""
        if len(self._unsynced) < _MAX_UNSYNCED:
            with suppress(OSError):  # no descriptors left: what is written is written all the same
                self._unsynced[segment] = os.dup(descriptor)
                return True
        self.sync_errors += 1
        return False

    def _is_idle(self) -> bool:
        return not (self._unsynced or self._tidying or self._is_busy)

    def _ask(self) -> None:
        if self._thread is None:
            # A daemon: a disk that hangs must not keep the process from ending.
            thread = threading.Thread(target=self._run, name="journal", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no more threads for this process; the next one who asks tries again
            self._thread = thread
        with self._wake:
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._is_busy = False
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._is_closing or not self._is_idle())
                if self._is_idle():
                    return
                self._is_busy = True
                unsynced, self._unsynced = self._unsynced, {}
                tidying, self._tidying = self._tidying, None
            for segment, descriptor in unsynced.items():
                self._sync(segment, descriptor)
            if tidying is not None:
                with suppress(OSError):  # the directory is gone: the writer asks again
                    self.tidied = self._tidy(tidying)

    def _sync(self, segment: int, descriptor: int) -> None:
        try:
            if segment > self._newest_synced:
                sync_directory(self._directory)
                self._newest_synced = segment
            _sync_data(descriptor)
            self.syncs += 1
        except OSError:
            self.sync_errors += 1
        finally:
            os.close(descriptor)

    def _tidy(self, tidying: Tidying) -> Tidied:
        """Drop the oldest closed segments until the rest fits; return what is left.

        The directory is looked at, because the reader removes what it has shipped. What cannot be
        dropped (a read-only directory) stays and is tried again at the next look.
        """
        sizes = segment_sizes(self._directory)
        closed = {number: size for number, size in sizes.items() if number < tidying.current}
        total = sum(closed.values())
        gone: set[int] = set()
        if tidying.keep_bytes is not None:
            with suppress(OSError):
                for number, size in closed.items():
                    if total <= tidying.keep_bytes:
                        break
                    if self._drop(number, tidying.known_pairs.get(number)):
                        total -= size
                        gone.add(number)
        return Tidied(tidying.current, total, frozenset(closed.keys() - gone))

    def _drop(self, number: int, known_pairs: int | None) -> bool:
        """Remove a segment and count what it held; return whether it is gone.

        One that the reader has in hand stays: its pairs may be on their way to the sink, and would
        be counted as dropped and as delivered.
        """
        path = segment_path(self._directory, number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True  # shipped and removed by the reader since we looked
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lost = self._unshipped_pairs(path, number, known_pairs)
            doomed = doomed_path(self._directory, number, lost)
            path.rename(doomed)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        self._end(number, lost)
        return True

    def _end(self, number: int, lost: int) -> None:
        """Count and remove a segment that nobody reads any more."""
        path = doomed_path(self._directory, number, lost)
        if lost and self.dropped.last_segment != number:
            self.dropped = self.dropped.plus(number, lost)
        try:
            self._store()
        except OSError:
            path.unlink()  # of a full disk, this makes the room
            self._store()
        path.unlink(missing_ok=True)

    def _store(self) -> None:
        if self.dropped is not self._stored:
            store_dropped(self._directory, self.dropped)
            self._stored = self.dropped

    def _unshipped_pairs(self, path: Path, number: int, known_pairs: int | None) -> int:
        done = load_shipped(self._directory).offset_in(number)
        if done is None:
            return 0
        if not done and known_pairs is not None:
            return known_pairs
        # Begun to be shipped, or written by a predecessor: the frames themselves must be asked.
        return count_lines(path, done)
