"""The embedded sink: pairs in zstd files of NDJSON under `state_dir/pairs`.

Each batch is appended as frames to the current file, which is ended by size or age. `zstdcat`,
DuckDB, Polars and `understudy compare` read the files while they grow. When the directory is over
its budget, the oldest file goes: that is retention, told as `expired_files`, not a loss.

A journal that is synced is worth little if the log that its pairs move to is not. So with any
`journal.fsync` but `none` a batch is synced before it counts as delivered, in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from proxy.errors import StateError
from proxy.journal.frame_file import FrameFile, compressor, cut_torn_tail
from proxy.journal.segments import SUFFIX, make_private, sync_directory
from proxy.recorder.priority import step_aside
from proxy.recorder.sink import Delivery, Message, SinkState, SinkStatus
from proxy.telemetry import monotonic_s, wall_ns

#: Uncompressed bytes per frame: small enough that a reader's memory stays flat.
FRAME_BYTES = 1024 * 1024

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is ended: at this size, or this long after it was begun."""

    file_bytes: int = 128 * 1024 * 1024
    file_age_s: float = 3600.0


_DEFAULT = Rotation()


class LocalLog:
    """The local log of one recorder; others write files of their own beside it.

    Files are called `stem`-TIME-INDEX-NUMBER. If `is_synced`, what is delivered is on the disk.

    Raises:
        StateError: the directory cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        index: int,
        *,
        disk_budget_bytes: int,
        rotation: Rotation = _DEFAULT,
        stem: str = "pairs",
        is_synced: bool = False,
    ) -> None:
        self._stem = stem
        self._directory = directory
        self._index = index
        self._disk_budget_bytes = disk_budget_bytes
        self._rotation = rotation
        self._is_synced = is_synced
        self._zstd = compressor()
        self._file: FrameFile | None = None
        self._opened_s = 0.0
        self._number = self._named = 0
        self._disk_bytes = 0
        self._written_bytes = self._expired_files = self._expired_bytes = self._torn_bytes = 0
        self._status = SinkStatus(SinkState.OK)
        try:
            make_private(directory)
            self._recover()
        except OSError as exc:
            raise StateError(f"cannot use the local log in {directory}: {exc.strerror}") from exc

    @property
    def name(self) -> str:
        """The kind of sink, and where it writes."""
        return f"local log {self._directory}"

    @property
    def status(self) -> SinkStatus:
        """How the disk is doing."""
        return self._status

    async def prepare(self) -> None:
        """Nothing: the directory was prepared at the start."""

    async def write(self, pairs: Sequence[Message]) -> Delivery:
        """Append the pairs; wait and try again while the disk refuses."""
        for content in _frames(pairs):
            step_aside()
            is_written = self._append(content)
            while not is_written:
                await asyncio.sleep(_RETRY_S)
                is_written = self._append(content)
            is_safe = await self._sync()
            while not is_safe:
                await asyncio.sleep(_RETRY_S)
                is_safe = await self._sync()
        return Delivery(len(pairs))

    async def close(self) -> None:
        """End the current file."""
        self._end_file()
        self._status = SinkStatus(SinkState.CLOSED)

    def statistics(self) -> Mapping[str, int]:
        """Return the log's counters."""
        return {
            "written_bytes": self._written_bytes,
            "disk_bytes": self._disk_bytes,
            "expired_files": self._expired_files,
            "expired_bytes": self._expired_bytes,
            "torn_bytes": self._torn_bytes,
        }

    async def _sync(self) -> bool:
        """Sync the current file and its name, where that is asked for; return whether it is done."""
        if not self._is_synced:
            return True
        assert self._file is not None
        try:
            await asyncio.to_thread(os.fsync, self._file.descriptor)
            if self._named != self._number:
                await asyncio.to_thread(sync_directory, self._directory)
                self._named = self._number
        except OSError as exc:
            message = f"{self._directory}: {exc.strerror or exc}"
            self._status = SinkStatus(SinkState.DISK_ERROR, message)
            return False
        self._status = SinkStatus(SinkState.OK)
        return True

    def _append(self, content: bytes) -> bool:
        """Append one frame; return whether the disk took it."""
        try:
            written = self._current().append(content)
            self._written_bytes += written
            self._disk_bytes += written
            if self._disk_bytes > self._disk_budget_bytes:
                self._expire()
        except OSError as exc:
            if self._file is not None and not self._file.is_whole:
                self._end_file()
            message = f"{self._directory}: {exc.strerror or exc}"
            self._status = SinkStatus(SinkState.DISK_ERROR, message)
            return False
        self._status = SinkStatus(SinkState.OK)
        return True

    def _current(self) -> FrameFile:
        if self._file is not None and (
            self._file.size_bytes >= self._rotation.file_bytes
            or monotonic_s() - self._opened_s >= self._rotation.file_age_s
        ):
            self._end_file()
        if self._file is None:
            now = datetime.fromtimestamp(wall_ns() / 1e9, UTC)
            self._number += 1
            name = f"{self._stem}-{now:%Y%m%dT%H%M%S}.{now.microsecond:06d}Z"
            path = self._directory / f"{name}-{self._index}-{self._number:06d}{SUFFIX}"
            self._file = FrameFile(path, self._zstd)
            self._opened_s = monotonic_s()
        return self._file

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _recover(self) -> None:
        """Cut what a killed predecessor left half written in its last file."""
        own = sorted(self._directory.glob(f"{self._stem}-*Z-{self._index}-*{SUFFIX}"))
        if own:
            self._torn_bytes = cut_torn_tail(own[-1])
        self._disk_bytes = sum(size for _, size in self._files())

    def _files(self) -> list[tuple[Path, int]]:
        """Return the log's files with their sizes, oldest first."""
        found = []
        for path in sorted(self._directory.glob(f"{self._stem}-*{SUFFIX}")):
            try:
                found.append((path, path.stat().st_size))
            except FileNotFoundError:
                continue  # another recorder expired it
        return found

    def _expire(self) -> None:
        files = self._files()
        self._disk_bytes = sum(size for _, size in files)
        # The newest file is always kept: it is this recorder's or another's current one.
        for path, size in files[:-1]:
            if self._disk_bytes <= self._disk_budget_bytes:
                break
            if self._file is not None and path == self._file.path:
                continue
            path.unlink(missing_ok=True)
            self._disk_bytes -= size
            self._expired_files += 1
            self._expired_bytes += size


def _frames(pairs: Sequence[Message]) -> Iterator[bytes]:
    """Yield the pairs as NDJSON, about `FRAME_BYTES` at a time."""
    lines: list[bytes] = []
    size = 0
    for pair in pairs:
        lines.append(pair.value)
        size += len(pair.value) + 1
        if size >= FRAME_BYTES:
            yield b"\n".join((*lines, b""))
            lines, size = [], 0
    if lines:
        yield b"\n".join((*lines, b""))
