"""Work on the disk that may hang, done beside whoever needs it: a kill must wait for no disk.

A sync, and a plain write, too, returns when the disk answers: in a millisecond, or after the minutes in
which it hangs. A process that lives on hands such work to a thread, which lives only while there is
some: nothing is left of it in a process that is idle, and a process that ends, ends after it. A command,
which must end whatever the disk does, leaves it to a child (`left_to_children`): a thread in the middle
of a sync holds up the end of its process until the disk answers.

It decides nothing of what is written. `threading` is imported with the first work, because
`understudy kill` imports this before the kill is in effect.
"""

from __future__ import annotations

import math
import os
import select
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from proxy.errors import StateError
from proxy.telemetry import monotonic_s

#: How long whoever asked for work waits to learn what became of it. A disk under load answers
#: within this; one that does not, hangs for all that somebody with a kill to give can know.
PATIENCE_S: Final = 2.0
#: A command asks a disk that did not answer again after so long.
_HANGS_ON_S: Final = 10.0
#: Opens a file so that reading it notes no time (open(2)); the file's owner and root may.
NO_ACCESS_TIME: Final = getattr(os, "O_NOATIME", 0)
#: Pieces of work that wait for their turn; more is not taken, and whoever asks is told.
WAITING_MOST: Final = 64


class HangingDiskError(StateError):
    """The disk has not answered for so long (`for_s`) that nobody waits for it any more."""

    def __init__(self, for_s: float, what: str = "") -> None:
        self.for_s = max(for_s, PATIENCE_S)
        super().__init__(f"{what}the disk has not answered for {self.for_s:.1f} s")


class _Piece:
    """A piece of work, and what became of it."""

    def __init__(self, job: Callable[[], object]) -> None:
        import threading  # noqa: PLC0415 - a kill comes first

        self.job = job
        self.is_over = threading.Event()
        self.error: Exception | None = None


class DiskThread:
    """Does pieces of work one after the other, in a thread that lives while there are any.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = allocate_lock()
        self._waiting: dict[object, _Piece] = {}
        self._lives = False
        self._began_s: float | None = None

    def do(self, key: object, job: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Do a piece of work, and wait for it so long, or not at all while another one hangs.

        Args:
            key: as for `begin`.
            job: as for `begin`.
            patience_s: how long is waited.

        Raises:
            HangingDiskError: it is not done yet; it will be when the disk answers, unless `WAITING_MOST`
                others wait already.
            Exception: what `job` raised.
        """
        # Looked at first: what has been under way for so long is not waited for once more.
        hangs = self.busy_s() >= PATIENCE_S
        piece = self.begin(key, job)
        if piece is None or not piece.is_over.wait(0.0 if hangs else patience_s):
            raise HangingDiskError(self.busy_s())
        if piece.error is not None:
            raise piece.error

    def begin(self, key: object, job: Callable[[], object]) -> _Piece | None:
        """Take a piece of work and do not wait; one that waits under the same key is replaced by it.

        Args:
            key: what it is about; whoever waits for what is replaced learns what became of this.
            job: an exception of it is told to whoever waits, and to nobody else.

        Returns:
            The piece; None when it is not taken: `WAITING_MOST` others wait, or there is no room for a thread.
        """
        piece = _Piece(job)
        with self._lock:
            if key in self._waiting:
                piece = self._waiting[key]
                piece.job = job
            elif len(self._waiting) >= WAITING_MOST:
                return None
            self._waiting[key] = piece
            is_first, self._lives = not self._lives, True
        return piece if not is_first or self._start() else None

    def busy_s(self) -> float:
        """Return for how long the piece of work that is under way has been; 0 while none is."""
        began_s = self._began_s
        return 0.0 if began_s is None else monotonic_s() - began_s

    def _start(self) -> bool:
        import threading  # noqa: PLC0415 - a kill comes first

        try:
            threading.Thread(target=self._run, name=self._name, daemon=False).start()
        except RuntimeError:
            with self._lock:
                self._lives = False
                self._waiting.clear()
            return False
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                self._began_s = None
                if not self._waiting:
                    self._lives = False
                    return
                piece = self._waiting.pop(next(iter(self._waiting)))
                self._began_s = monotonic_s()
            try:
                piece.job()
            except Exception as exc:  # noqa: BLE001 - whoever waits for it raises it
                piece.error = exc
            piece.is_over.set()


#: By process and name: a forked one has inherited neither a thread nor a lock that anybody would let go.
_threads: dict[tuple[int, str], DiskThread] = {}
_uses_children = False
#: When a child of this process was last found waiting for the disk (monotonic).
_child_hung_s = -math.inf


def thread_of(name: str) -> DiskThread:
    """Return this process's thread of that name."""
    return _threads.setdefault((os.getpid(), name), DiskThread(name))


@contextmanager
def left_to_children() -> Iterator[None]:
    """Leave to children of this process what may hang, during the block: for a command, which must end."""
    global _uses_children  # noqa: PLW0603 - what kind of a process this is belongs to the process
    _uses_children = True
    try:
        yield
    finally:
        _uses_children = False


def uses_children() -> bool:
    """Tell whether this process leaves what may hang to children."""
    return _uses_children


def sync_soon(path: Path) -> None:
    """Sync a file without waiting for it; a disk that refuses takes nothing from what was written.

    In a process that leaves it to children, `PATIENCE_S` is waited for it: nothing else keeps a short
    command from ending, and the machine from losing its power, before the disk has it.
    """
    if _uses_children:
        in_child(lambda: _synced(path), PATIENCE_S)
    else:
        thread_of("sync").begin(path, lambda: sync_file(path))


def touch_first(path: Path, places: Iterable[int]) -> None:
    """Write to each of these places of a file what is there, as a trial of what is to be written next.

    Nobody else may write just there. Nothing is added to a file that is too short.

    A store into a file's mapping waits for the disk, too, where the kernel has written the page back since
    the last one: it notes the time of the change in the file system's journal. Such a wait cannot be
    ended, stops every thread of the process, and keeps its locks. So what may wait is done beside.

    Raises:
        HangingDiskError: it does not return.
    """

    def touch() -> str:
        with suppress(OSError):  # told by whoever writes there
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                for place in places:
                    os.pwrite(descriptor, os.pread(descriptor, 1, place), place)
            finally:
                os.close(descriptor)
        return ""

    global _child_hung_s  # noqa: PLW0603 - see left_to_children
    if not _uses_children:
        thread_of("try the disk").do(path, touch)
    elif monotonic_s() - _child_hung_s < _HANGS_ON_S or in_child(touch, PATIENCE_S) is None:
        _child_hung_s = monotonic_s()
        raise HangingDiskError(PATIENCE_S)


def read_bytes(path: Path) -> bytes:
    """Return what is in a file, without noting that it was read: that is a write, and hangs with the disk.

    Raises:
        OSError: it cannot be read.
    """
    with open(open_quietly(path), "rb") as file:
        return file.read()


def open_quietly(path: Path) -> int:
    """Open a file to be read as `read_bytes` does; return the descriptor.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | NO_ACCESS_TIME)
    except PermissionError:  # only its owner may read it so
        return os.open(path, flags)


def sync_file(path: Path) -> None:
    """Sync a file, whoever wrote it.

    Raises:
        OSError: it cannot be opened, or the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _synced(path: Path) -> str:
    with suppress(OSError):
        sync_file(path)
    return ""


def in_child(job: Callable[[], str], patience_s: float) -> str | None:
    """Do a piece of work in a child process; return what it returned, None when it has not by then.

    The child goes on, and ends with its work, whatever becomes of this process. It holds neither the
    terminal nor a pipe that somebody reads to its end. One that raises has returned an empty text.

    Args:
        job: returns a short text.
        patience_s: how long is waited for it.
    """
    read_end, write_end = os.pipe()
    process_id = os.fork()
    if process_id == 0:
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nowhere, standard)
            os.write(write_end, job().encode()[: select.PIPE_BUF])
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        ready, _, _ = select.select([read_end], [], [], patience_s)
        if not ready:
            return None
        told = os.read(read_end, select.PIPE_BUF)
        os.waitpid(process_id, 0)  # it has nothing left to do that may hang
        return told.decode()
    finally:
        os.close(read_end)
