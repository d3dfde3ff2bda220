"""Which counter lies in which cell of a stats page: one line per cell, in a file beside the page.

The worker appends lines and never changes one, so a counter keeps its cell for as long as the page
lives, whatever is configured meanwhile, and every reader finds it without knowing any config. A line
is a family and its label values, separated by tabs; a last line without its end was not written to
the end, and does not count.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

#: A family and its label values.
Key: TypeAlias = tuple[str, ...]


def read_keys(path: Path) -> list[Key]:
    """Return the keys in the order of their cells; none where there is no file.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    return [tuple(line.split("\t")) for line in whole.decode().split("\n")[:-1]]


def append_keys(path: Path, keys: Sequence[Key]) -> None:
    """Append keys, all or none; a line that somebody left half written is cut first.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = os.pread(descriptor, os.fstat(descriptor).st_size, 0).rfind(b"\n") + 1
        os.ftruncate(descriptor, end)
        data = _lines(keys)
        if os.pwrite(descriptor, data, end) < len(data):
            os.ftruncate(descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def replace_keys(path: Path, keys: Iterable[Key]) -> None:
    """Begin anew with `keys`, atomically.

    Raises:
        OSError: the disk refuses.
    """
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_lines(keys))
    fresh.replace(path)


def identity(path: Path) -> tuple[int, int]:
    """Return what changes when keys are appended or replaced; zeros without a file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def _lines(keys: Iterable[Key]) -> bytes:
    return b"".join(b"%b\n" % "\t".join(key).encode() for key in keys)
