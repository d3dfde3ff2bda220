"""What a journal directory holds: segment names, the durable position, who may touch what.

The writer and the reader of one journal are different processes that share only this directory:

- `000000000001.ndjson.zst`, ...: segments, numbered upwards for ever. Only the highest one grows.
- `shipped.json`: the reader's position and accounts, replaced whole after each acknowledgement.
- `dropped.json`: the writer's count of what the disk budget cost, replaced whole at each drop.
- `000000000001.20.dropped`: a segment that is being dropped, with 20 pairs that were not shipped. It
  gets this name, is counted, and is removed; whatever of that a dead writer left, its successor does.
- `lock`, `reader.lock`: held by the one writer and the one reader.

Whatever else lies there is somebody else's, and is neither read nor removed. A segment that the
reader has in hand it holds by a shared `flock`; the writer drops none that is held.

A number is never used twice, also when every segment has been shipped and removed; otherwise a
position could point into a new segment of the same number and skip it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from contextlib import suppress
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
# More digits are what follows 999999999999: a foreign file of that name must not end the journal.
_NAME = re.compile(r"(\d{12}|[1-9]\d{12,17})\.ndjson\.zst")
_DOOMED = re.compile(r"(\d{12,18})\.(\d{1,18})\.dropped")


class JournalFullError(OSError):
    """The disk budget is used up, and the policy is to keep what is there."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the journal: everything before `offset` bytes of segment `segment` is done.

    Attributes:
        pairs: how many of that segment's have been read; the place is the same without it.
    """

    segment: int = 0
    offset: int = 0
    pairs: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Shipped:
    """What `shipped.json` says: what is done, and the totals that hold exactly there.

    Attributes:
        position: everything before it is done.
        accounts: the totals.
        ahead: of later segments, up to where they are done, too.
        notes: what else holds exactly there, as JSON values; the reader's own, not looked at here.
    """

    position: Position = Position()
    accounts: Mapping[str, int] = field(default_factory=dict)
    ahead: Mapping[int, Position] = field(default_factory=dict)
    notes: Any = None

    def offset_in(self, number: int) -> int | None:
        """Return up to where segment `number` is done; None when all of it is."""
        if number == self.position.segment:
            return self.position.offset
        if number < self.position.segment:
            return None
        return self.ahead[number].offset if number in self.ahead else 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """What the disk budget cost, over all starts of the writer.

    Attributes:
        last_segment: the newest that is among them.
    """

    pairs: int = 0
    segments: int = 0
    last_segment: int = 0

    def plus(self, segment: int, pairs: int) -> Dropped:
        """Return the count with one more segment."""
        return Dropped(self.pairs + pairs, self.segments + 1, segment)


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of segment `number`."""
    return directory / f"{number:012d}{SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """Return the numbers of the segments there are, ascending.

    Foreign files are passed over, and so is what has a segment's name and is none: a folder, a
    link, a pipe that would never open.
    """
    try:
        with os.scandir(directory) as entries:
            found = [
                _NAME.fullmatch(entry.name)
                for entry in entries
                if entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in found if match)


def doomed_path(directory: Path, number: int, pairs: int) -> Path:
    """Return what segment `number` is called while it is dropped, with `pairs` lost."""
    return directory / f"{number:012d}.{pairs}.dropped"


def doomed_segments(directory: Path) -> list[tuple[int, int]]:
    """Return number and lost pairs of the segments that a writer was dropping; one at most."""
    with os.scandir(directory) as entries:
        found = [
            _DOOMED.fullmatch(entry.name)
            for entry in entries
            if entry.is_file(follow_symlinks=False)
        ]
    return [(int(match[1]), int(match[2])) for match in found if match]


def segment_sizes(directory: Path) -> dict[int, int]:
    """Return the bytes on disk per segment, ascending; others may remove some at any time."""
    sizes = {}
    for number in segment_numbers(directory):
        with suppress(FileNotFoundError):
            sizes[number] = segment_path(directory, number).stat().st_size
    return sizes


def load_shipped(directory: Path) -> Shipped:
    """Return the durable position; the beginning when there is none or it is damaged.

    Starting over ships pairs twice, under the same `pair_id`; guessing further on would lose some.
    """
    try:
        found = orjson.loads((directory / SHIPPED).read_bytes())
        return Shipped(
            Position(int(found["segment"]), int(found["offset"]), int(found.get("pairs", 0))),
            {str(key): int(value) for key, value in found["accounts"].items()},
            {
                int(number): Position(int(number), int(offset), int(pairs))
                for number, (offset, pairs) in found.get("ahead", {}).items()
            },
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
        "pairs": position.pairs,
        "accounts": dict(shipped.accounts),
        "ahead": {str(number): (at.offset, at.pairs) for number, at in shipped.ahead.items()},
    }
    if shipped.notes is not None:
        content["notes"] = shipped.notes
    replace_file(directory / SHIPPED, orjson.dumps(content))


def load_dropped(directory: Path) -> Dropped:
    """Return what the writer has dropped so far; nothing when the file is missing or damaged."""
    try:
        found = orjson.loads((directory / DROPPED).read_bytes())
        names = ("pairs", "segments", "last_segment")
        return Dropped(*(int(found.get(name, 0)) for name in names))
    except (OSError, ValueError, TypeError, AttributeError):
        return Dropped()


def store_dropped(directory: Path, dropped: Dropped) -> None:
    """Replace `dropped.json`.

    Raises:
        OSError: the disk refuses; the old one is still in force.
    """
    replace_file(directory / DROPPED, orjson.dumps(dropped))


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


def sync_directory(directory: Path) -> None:
    """Sync the names of the files in `directory`: a synced file without its name is lost.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(directory: Path, name: str) -> int:
    """Return a descriptor that holds the lock `name`; it is let go when closed or at death.

    Raises:
        StateError: another process holds it.
        OSError: the directory cannot be written.
    """
    path = directory / name
    make_private(directory)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise StateError(
            f"{path} is held by another process: is a second instance using this state_dir?"
        ) from exc
    return descriptor
