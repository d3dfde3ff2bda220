"""Real file systems that are full or read-only, for what must survive them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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
