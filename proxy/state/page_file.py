"""The control page as a file: two buffers, a generation and a lock. Bytes in, bytes out.

Layout (little endian): 8 bytes magic, u64 generation, padding to 64; then two buffers of
`BUFFER_BYTES`, each u64 generation, u32 length, u32 CRC-32, payload. A writer fills the buffer that
readers do not use and then stores the generation with one aligned 8-byte write, so a reader sees
the old state or the new one, and a writer killed halfway leaves the old one whole.

The file is made whole (all its blocks allocated, so that a full disk cannot fault a later store),
then written in place and never replaced: workers keep their mapping for life. What the payload says
is `proxy.state.control_page`'s. This module imports nothing that is slow to import, because
`understudy kill` writes the page with it before it imports anything else.

Workers obey a change as soon as it is in memory; it is synced after the lock has been let go (`sync_soon`),
because a sync on a disk that hangs does not return. Nor may a store: `try_page` finds that out before.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxy.errors import StateError
from proxy.state.syncing import NO_ACCESS_TIME, HangingDiskError, sync_soon, touch_first
from proxy.telemetry import monotonic_s

MAGIC = b"USCTRL01"
HEADER_BYTES = 64
BUFFER_BYTES = 128 * 1024
PAGE_BYTES = HEADER_BYTES + 2 * BUFFER_BYTES
FILE_NAME = "control.page"
LOCK_NAME = "control.lock"
#: How long a writer waits for another one. Writers hold the lock for microseconds; one that was
#: stopped while holding it must not freeze a kill without a word.
LOCK_TIMEOUT_S = 2.0
_LOCK_POLL_S = 0.002
_BUFFER = struct.Struct("<QII")
#: How a file system says that it, or what lies there, is not to be written.
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: A byte of the header and one before each buffer that nobody uses, in the pages that a write begins with.
_UNUSED = (HEADER_BYTES - 1, HEADER_BYTES + BUFFER_BYTES - 1)


class PageFile:
    """The mapped file. Make one with `map_page`; close it with `close`."""

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self._mapping = mapping
        self._view = memoryview(mapping)
        self._words = self._view[:HEADER_BYTES].cast("Q")
        self._inode = path.stat().st_ino

    @property
    def is_writable(self) -> bool:
        """Whether it was mapped to be written: not on a disk that was read-only then."""
        return not self._view.readonly

    def generation(self) -> int:
        """Return the number that every write raises; the one read on the hot path (~60 ns)."""
        return self._words[1]

    def next_generation(self) -> int:
        """Return what the next write makes of `generation`; it stays true inside `locked`."""
        return (self._words[1] + 1) % 2**64  # a corrupt word may be the largest

    def read_payload(self) -> bytes:
        """Return what was last written.

        Raises:
            StateError: nothing consistent can be read: the page is corrupt.
        """
        for _ in range(4):  # a writer may overtake a reader; it cannot do so four times in a row
            generation = self._words[1]
            start = HEADER_BYTES + (generation % 2) * BUFFER_BYTES
            stamp, length, crc = _BUFFER.unpack_from(self._view, start)
            if self._view[:8] != MAGIC or length > BUFFER_BYTES - _BUFFER.size:
                break
            payload = bytes(self._view[start + _BUFFER.size : start + _BUFFER.size + length])
            if stamp == generation and zlib.crc32(payload) == crc:
                return payload
        raise StateError(f"{self.path} is corrupt; `understudy revive` writes it afresh")

    def write_payload(self, payload: bytes) -> None:
        """Publish `payload`: from here on the next request of every worker obeys it.

        Call it inside `locked`, and `sync_soon` after that: then a kill outlives a power cut as well.

        Raises:
            StateError: it is larger than a buffer, or the page was read-only when it was opened.
        """
        if not self.is_writable:
            raise StateError(f"cannot write {self.path}: it is read-only")
        if len(payload) >= BUFFER_BYTES - _BUFFER.size:  # the last byte is `_UNUSED`
            raise StateError(f"the control state takes {len(payload)} bytes; a page has less")
        generation = self.next_generation()
        start = HEADER_BYTES + (generation % 2) * BUFFER_BYTES
        _BUFFER.pack_into(self._view, start, generation, len(payload), zlib.crc32(payload))
        self._view[start + _BUFFER.size : start + _BUFFER.size + len(payload)] = payload
        self._view[:8] = MAGIC
        self._words[1] = generation

    def is_whole(self) -> bool:
        """Tell whether the mapped file is still the one at the path, and long enough.

        A page that was removed, replaced or truncated no longer reaches this process (a truncated
        one would even end it with SIGBUS), so the worker looks now and then.
        """
        try:
            found = self.path.stat()
        except OSError:
            return False
        return found.st_ino == self._inode and found.st_size >= PAGE_BYTES

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._view.release()
        self._mapping.close()


def map_page(state_dir: Path) -> tuple[Path, mmap.mmap]:
    """Return the path of the page of `state_dir` and its mapping; read-only where nothing else is allowed.

    Who maps a page on a disk that has become read-only still sees what others write who mapped it before.

    Raises:
        StateError: it is missing, too short, or cannot be opened.
    """
    path = state_dir / FILE_NAME
    try:
        descriptor, access = _open_page(path)
        try:
            size = os.fstat(descriptor).st_size
            if size < PAGE_BYTES:
                raise StateError(
                    f"{path} is corrupt ({size} bytes, not {PAGE_BYTES}); "
                    "`understudy revive` writes it afresh"
                )
            return path, mmap.mmap(descriptor, PAGE_BYTES, access=access)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc


def _open_page(path: Path) -> tuple[int, int]:
    """Open a page to be written, else to be read; return the descriptor and how it may be mapped."""
    # Mapping a file notes the time of the access, which is a write of its own, and hangs with the disk.
    # Only the file's owner may forbid it.
    for flags in (os.O_RDWR | NO_ACCESS_TIME, os.O_RDWR):
        try:
            return os.open(path, flags), mmap.ACCESS_WRITE
        except OSError as exc:
            if exc.errno not in READ_ONLY:
                raise
    return os.open(path, os.O_RDONLY), mmap.ACCESS_READ


def make_page(state_dir: Path, payload: bytes) -> None:
    """Make a page that holds `payload` where there is none; the first maker wins.

    Raises:
        StateError: it cannot be made.
    """
    path = state_dir / FILE_NAME
    whole = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        # Made under a name of its own and linked into place, so that nobody sees half a page.
        with open(whole, "w+b", opener=_private) as file:
            file.write(bytes(PAGE_BYTES))
            file.flush()
            page = PageFile(whole, mmap.mmap(file.fileno(), PAGE_BYTES))
        page.write_payload(payload)
        page.close()
        with suppress(FileExistsError):
            os.link(whole, path)
        sync_soon(path)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc
    finally:
        whole.unlink(missing_ok=True)


def lengthen_page(state_dir: Path) -> None:
    """Give a page that is there and too short its length again, in place.

    Raises:
        StateError: it cannot be written.
    """
    path = state_dir / FILE_NAME
    try:
        if path.exists():
            with path.open("r+b") as file:
                file.seek(0, os.SEEK_END)
                file.write(bytes(max(0, PAGE_BYTES - file.tell())))
    except OSError as exc:
        raise StateError(f"cannot write {path}: {exc.strerror}") from exc


def try_page(state_dir: Path) -> None:
    """Find out whether the page can be written now; before a lock is taken that others need.

    Raises:
        HangingDiskError: the disk does not answer, so that a write would stop this process for as long.
    """
    path = state_dir / FILE_NAME
    try:
        touch_first(path, _UNUSED)
    except HangingDiskError as exc:
        raise HangingDiskError(exc.for_s, f"{path} cannot be written now: ") from exc


@contextmanager
def locked(state_dir: Path, name: str = LOCK_NAME) -> Iterator[None]:
    """Hold a lock of writers, the page's: read, change and write inside it, so that no change is lost.

    Raises:
        StateError: the lock cannot be opened, or another process held it for `LOCK_TIMEOUT_S`.
    """
    path = state_dir / name
    try:
        descriptor = _open_lock(path)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc
    try:
        _acquire(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def change_page(page: PageFile, change: Callable[[bytes, int], bytes]) -> tuple[bytes, bytes]:
    """Replace the payload under the lock; return the old and the new one.

    Args:
        page: the mapped page.
        change: returns the new payload, given the old one and the generation it will have.

    Raises:
        HangingDiskError: the disk does not answer; nothing was changed.
        StateError: the page is corrupt, the lock is held for too long, or the payload does not fit.
    """
    try_page(page.path.parent)
    with locked(page.path.parent):
        before = page.read_payload()
        after = change(before, page.next_generation())
        page.write_payload(after)
    sync_soon(page.path)
    return before, after


def _open_lock(path: Path) -> int:
    """Open a lock, made where there is none; one that is there can be held on a read-only disk, too."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in READ_ONLY:
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _acquire(descriptor: int, path: Path) -> None:
    deadline_s = monotonic_s() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if monotonic_s() > deadline_s:
                raise StateError(
                    f"{path} was held by another process for {LOCK_TIMEOUT_S:g} s; "
                    "look for a stopped understudy process"
                ) from exc
        time.sleep(_LOCK_POLL_S)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
