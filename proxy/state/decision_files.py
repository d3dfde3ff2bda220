"""The files of the decisions log: one that grows, older ones beside it, and the number of each record.

- `decisions.ndjson` grows. At `FILE_BYTES` it becomes `decisions-000000000123.ndjson`, where 123 is the
  number (`seq`) of its last record; of those `FILES_KEPT` stay.
- `decisions.lock` is held by whoever writes, for microseconds; while the disk hangs, as long as it does.
- `decisions-shipped.json` says up to which number the recorder has shipped them, if it does.

Numbers only grow, so a reader finds its place by a number alone, whatever has become of the files. A line
that is none (damage, a write that was cut off by a crash) is left out, and shows as a gap.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

FILE_NAME: Final = "decisions.ndjson"
LOCK_NAME: Final = "decisions.lock"
SHIPPED_NAME: Final = "decisions-shipped.json"
#: A file of the log has about so many bytes; a decision has some 700.
FILE_BYTES: Final = 4 * 1024 * 1024
#: Older files that stay: with the one that grows 68 MiB, some 100,000 decisions.
FILES_KEPT: Final = 16
_OLD: Final = re.compile(r"decisions-(\d{12,18})\.ndjson")
_CHUNK_BYTES: Final = 64 * 1024


def old_files(state_dir: Path) -> list[tuple[int, Path]]:
    """Return the older files with the number of the last record of each, the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = os.listdir(state_dir)  # noqa: PTH208 - names are all that is wanted
    except FileNotFoundError:
        return []
    found = (_OLD.fullmatch(name) for name in names)
    return sorted((int(match[1]), state_dir / match[0]) for match in found if match)


def records_backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, the newest first; a file that is not there has none.

    Raises:
        OSError: it cannot be read.
    """
    for line in _lines_backwards(path):
        record = parsed(line)
        if record is not None:
            yield record


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the record in a line, None when it holds none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("seq"), int) else None


def last_seq(state_dir: Path) -> int:
    """Return the number of the last decision; 0 without any.

    What was shipped counts, too: where the end of the log is damaged, no number is given again.

    Raises:
        OSError: the log cannot be read.
    """
    newest = next((record["seq"] for record in records_backwards(state_dir / FILE_NAME)), 0)
    older = [last for last, _ in old_files(state_dir)]
    return int(max(newest, older[-1] if older else 0, shipped(state_dir).get("seq", 0)))


def shipped(state_dir: Path) -> dict[str, Any]:
    """Return what the recorder has durably shipped: `seq` and `accounts`; empty before it has any."""
    try:
        found = orjson.loads((state_dir / SHIPPED_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    is_good = isinstance(found, dict) and isinstance(found.get("seq"), int)
    return found if is_good else {}


def write_records(state_dir: Path, records: Sequence[dict[str, Any]]) -> None:
    """Append records with the next numbers, all or none; they are not synced.

    The caller holds the lock.

    Raises:
        OSError: the disk refuses; nothing was appended.
    """
    path = state_dir / FILE_NAME
    seq = last_seq(state_dir)
    descriptor = _open(path)
    try:
        if os.fstat(descriptor).st_size >= FILE_BYTES and seq:
            _set_aside(state_dir, path, seq)
            os.close(descriptor)
            descriptor = _open(path)
        size = os.fstat(descriptor).st_size
        # What a writer left half written when it was killed ends there, and hides no other line.
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = b"\n" if is_torn else b""
        for number, record in enumerate(records, seq + 1):
            data += orjson.dumps({**record, "seq": number}) + b"\n"
        _append(descriptor, data, size)
    finally:
        os.close(descriptor)


def _append(descriptor: int, data: bytes, size: int) -> None:
    """Append all of `data` to a file of `size` bytes, or none of it."""
    if os.write(descriptor, data) < len(data):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _set_aside(state_dir: Path, path: Path, seq: int) -> None:
    """End a file, and remove the oldest ones beyond those that are kept."""
    path.rename(state_dir / f"decisions-{seq:012d}.ndjson")
    for _, gone in old_files(state_dir)[:-FILES_KEPT]:
        with suppress(OSError):  # the next time, then
            gone.unlink()


def _lines_backwards(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        at, rest = file.seek(0, os.SEEK_END), b""
        while at:
            size = min(_CHUNK_BYTES, at)
            at -= size
            file.seek(at)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from reversed(lines)
        yield rest
