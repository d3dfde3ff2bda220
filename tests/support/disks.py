"""Real file systems that are full, read-only or hang, for what must survive them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deadline import wait_for


class SmallDisk:
    """A file system of its own.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take every block that is left."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        os.write(descriptor, bytes(size))
                except OSError:
                    continue
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, *, size_kib: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs at `path` for the block; skips the test for who may not mount."""
    path.mkdir()
    if os.geteuid() or not _mount("-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", path):
        pytest.skip("only root may mount a small file system")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class HangingDisk:
    """A file system whose disk stops answering and goes on when it is told to.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path, below: Path) -> None:
        self.path = path
        self._below = below
        self._waiting: list[threading.Thread] = []

    def hang(self) -> None:
        """Let nothing reach the disk any more: what is in memory can be read, a sync does not return.

        Plain writes and stores wait for it from the journal's next commit on, which is due in 5 s.
        """
        subprocess.run(["sync", "--file-system", str(self.path)], check=True)
        subprocess.run(["fsfreeze", "--freeze", str(self._below)], check=True)

    def hang_writes(self) -> None:
        """Let it hang, and begin a commit of its journal; return when plain writes wait for it."""
        self.hang()
        syncing = threading.Thread(target=self._sync, name="commit of a hanging disk")
        syncing.start()
        self._waiting.append(syncing)
        wait_for(lambda: not self._can_write(), "writes that hang")

    def _sync(self) -> None:
        descriptor = os.open(self.path / "commit", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, b"1")
        os.fsync(descriptor)
        os.close(descriptor)

    def _can_write(self) -> bool:
        """Whether a folder of the disk takes a new file within some time."""
        writing = threading.Thread(
            target=(self.path / "written").touch, name="write to a hanging disk"
        )
        writing.start()
        writing.join(0.2)
        if writing.is_alive():
            self._waiting.append(writing)
        return not writing.is_alive()

    def go_on(self) -> None:
        """Let it answer again; harmless when it does."""
        subprocess.run(
            ["fsfreeze", "--unfreeze", str(self._below)], capture_output=True, check=False
        )
        while self._waiting:
            self._waiting.pop().join()


@contextmanager
def hanging_disk(path: Path, *, size_mib: int = 32) -> Iterator[HangingDisk]:
    """Mount an ext4 at `path` for the block, which can hang; skips the test for who may not mount.

    It lies in a file of another one, and that one is frozen: so it hangs itself without being frozen, as
    on a disk whose cable is loose.
    """
    below = path.with_name(f"{path.name}-below")
    image, inner = path.with_name(f"{path.name}.img"), below / "image"
    mounted: list[Path] = []
    try:
        for file, where, size in ((image, below, 2 * size_mib + 16), (inner, path, size_mib)):
            where.mkdir()
            if os.geteuid() or not _made(file, size) or not _mount("-o", "loop", file, where):
                pytest.skip("only root may mount a file system by a loop device")
            mounted.append(where)
        disk = HangingDisk(path, below)
        try:
            yield disk
        finally:
            disk.go_on()
    finally:
        for where in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(where)], check=True)


def _made(image: Path, size_mib: int) -> bool:
    """Whether an ext4 of that size was made in a file."""
    with image.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    made = ["mkfs.ext4", "-q", "-F", "-b", "4096", str(image)]
    return not subprocess.run(made, capture_output=True, check=False).returncode


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Let nobody make or remove files in `directory` during the block.

    For root, whom modes do not bind, a read-only view of it is mounted over it; what is open stays so.
    The view is made aside: a mount in which somebody just then writes cannot be made read-only.
    """
    if os.geteuid():
        mode = directory.stat().st_mode
        directory.chmod(0o500)
        try:
            yield
        finally:
            directory.chmod(mode)
        return
    view = Path(tempfile.mkdtemp(prefix="understudy-view-"))
    if not _mount("--bind", directory, view):
        pytest.skip("this root may not mount")
    try:
        assert _mount("-o", "remount,bind,ro", view), f"{view} did not become read-only"
        assert _mount("--bind", view, directory), f"{directory} did not become read-only"
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(view)], check=True)
        view.rmdir()


def _mount(*words: str | Path) -> bool:
    """Whether `mount` with these arguments did it."""
    return not subprocess.run(["mount", *words], capture_output=True, check=False).returncode
