"""What a journal directory holds: segment names, the durable position, who may touch what.

The writer and the reader of one journal are different processes that share only this directory:

- `000000000001.ndjson.zst`, ...: segments, numbered upwards for ever. Only the highest one grows.
- `shipped.json`: the reader's position and accounts, replaced whole after each acknowledgement.
- `dropped.json`: the writer's count of what the disk budget cost, replaced whole at each drop.
- `lock`, `reader.lock`: held by the one writer and the one reader.

A number is never used twice, also when every segment has been shipped and removed; otherwise a
position could point into a new segment of the same number and skip it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from proxy.errors import StateError

SUFFIX = ".ndjson.zst"
SHIPPED = "shipped.json"
DROPPED = "dropped.json"
WRITER_LOCK = "lock"
READER_LOCK = "reader.lock"
_NAME = re.compile(r"(\d{12})\.ndjson\.zst")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the journal: everything before `offset` bytes of segment `segment` is done."""

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Shipped:
    """What `shipped.json` says: what is done, and the totals that hold exactly there.

    Attributes:
        position: everything before it is done.
        accounts: the totals.
        ahead: of later segments, up to which offset they are done, too.
        notes: what else holds exactly there, as JSON values; the reader's own, not looked at here.
    """

    position: Position = Position()
    accounts: Mapping[str, int] = field(default_factory=dict)
    ahead: Mapping[int, int] = field(default_factory=dict)
    notes: Any = None

    def offset_in(self, number: int) -> int | None:
        """Return up to where segment `number` is done; None when all of it is."""
        if number == self.position.segment:
            return self.position.offset
        return None if number < self.position.segment else self.ahead.get(number, 0)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What the disk budget cost, over all starts of the writer."""

    pairs: int = 0
    segments: int = 0


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of segment `number`."""
    return directory / f"{number:012d}{SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """Return the numbers of the segments there are, ascending; foreign files are passed over."""
    try:
        with os.scandir(directory) as entries:
            found = [_NAME.fullmatch(entry.name) for entry in entries]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in found if match)


def load_shipped(directory: Path) -> Shipped:
    """Return the durable position; the beginning when there is none or it is damaged.

    Starting over ships pairs twice, under the same `pair_id`; guessing further on would lose some.
    """
    try:
        found = orjson.loads((directory / SHIPPED).read_bytes())
        return Shipped(
            Position(int(found["segment"]), int(found["offset"])),
            {str(key): int(value) for key, value in found["accounts"].items()},
            {int(key): int(value) for key, value in found.get("ahead", {}).items()},
            found.get("notes"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Shipped()


def store_shipped(directory: Path, shipped: Shipped) -> None:
    """Replace `shipped.json`, whole and synced to disk.

    Raises:
        OSError: the disk refuses; the old one is still in force.
    """
    position = shipped.position
    content: dict[str, Any] = {
        "segment": position.segment,
        "offset": position.offset,
        "accounts": dict(shipped.accounts),
        "ahead": {str(number): offset for number, offset in shipped.ahead.items()},
    }
    if shipped.notes is not None:
        content["notes"] = shipped.notes
    replace_file(directory / SHIPPED, orjson.dumps(content))


def load_dropped(directory: Path) -> Dropped:
    """Return what the writer has dropped so far; nothing when the file is missing or damaged."""
    try:
        found = orjson.loads((directory / DROPPED).read_bytes())
        return Dropped(int(found["pairs"]), int(found["segments"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Dropped()


def store_dropped(directory: Path, dropped: Dropped) -> None:
    """Replace `dropped.json`.

    Raises:
        OSError: the disk refuses; the old one is still in force.
    """
    content = {"pairs": dropped.pairs, "segments": dropped.segments}
    replace_file(directory / DROPPED, orjson.dumps(content))


def replace_file(path: Path, content: bytes, *, is_synced: bool = True) -> None:
    """Replace `path` atomically by `content`, mode 0600, synced before it is renamed.

    Not synced, the new content may be lost or empty after a failure of power; never after a crash.

    Raises:
        OSError: the disk refuses; the old file is untouched.
    """
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if is_synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)


def make_private(directory: Path) -> None:
    """Create `directory` and its missing parents, each mode 0700.

    Raises:
        OSError: the file system refuses.
    """
    if not directory.parent.exists():
        make_private(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def take_lock(directory: Path, name: str) -> int:
    """Return a descriptor that holds the lock `name`; it is let go when closed or at death.

    Raises:
        StateError: another process holds it, or the directory cannot be written.
    """
    path = directory / name
    try:
        make_private(directory)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StateError(f"cannot use the journal in {directory}: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise StateError(
            f"{path} is held by another process: is a second instance using this state_dir?"
        ) from exc
    return descriptor
