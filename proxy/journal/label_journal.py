"""Labels on their way: appended by control, shipped by a recorder, in a journal as pairs have one.

It decides when a label is safe (on the disk, not only with the kernel: who sent it was told so) and
when there are too many that wait. A full journal of pairs drops the oldest; here new ones are
refused, because whoever sends labels can send them again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from proxy.config.resolved import Journal
from proxy.errors import StateError
from proxy.journal.segments import segment_numbers, segment_path
from proxy.journal.writer import JournalWriter

#: Of `limits.journal_disk`, what labels may take while they wait, and again in the local log.
DISK_SHARE: Final = 1 / 8
#: A segment stays until it is full and shipped: as much is on the disk twice at most.
SEGMENT_BYTES: Final = 16 * 1024 * 1024
#: Uncompressed bytes per frame.
FRAME_BYTES: Final = 256 * 1024


def label_journal(state_dir: Path) -> Path:
    """Return the folder of the journal of labels."""
    return state_dir / "journal" / "labels"


class LabelsFullError(Exception):
    """More labels wait to be shipped than the disk budget allows."""


class LabelJournal:
    """The one writer of labels; opened with the first label, so that who has none pays nothing.

    Args:
        state_dir: of the instance.
        journal_disk_bytes: `limits.journal_disk`.
    """

    def __init__(self, state_dir: Path, journal_disk_bytes: int) -> None:
        self._directory = label_journal(state_dir)
        self._budget_bytes = 0
        self._writer: JournalWriter | None = None
        self.set_disk_budget(journal_disk_bytes)

    def set_disk_budget(self, journal_disk_bytes: int) -> None:
        """Keep to another `limits.journal_disk` from now on."""
        self._budget_bytes = int(journal_disk_bytes * DISK_SHARE)
        if self._writer is not None:
            self._writer.set_disk_budget(self._writer_budget_bytes)

    @property
    def _writer_budget_bytes(self) -> int:
        """Out of the writer's reach: refused above, labels are never dropped."""
        return max(1, 8 * self._budget_bytes)

    def check_room(self) -> None:
        """Look at the disk budget; called once for many labels.

        Raises:
            LabelsFullError: it is used up.
            StateError: the folder cannot be looked at.
        """
        try:
            used_bytes = sum(
                segment_path(self._directory, number).stat().st_size
                for number in segment_numbers(self._directory)
            )
        except FileNotFoundError:
            return  # a segment was shipped since we looked: there is room
        except OSError as exc:
            raise StateError(f"cannot use {self._directory}: {exc.strerror}") from exc
        if used_bytes >= self._budget_bytes:
            raise LabelsFullError(f"{used_bytes:,} bytes of labels wait to be shipped")

    def append(self, values: Sequence[bytes]) -> set[int]:
        """Write records; return the segments they are in, which `sync` makes safe.

        Raises:
            StateError: another process has the journal, or the disk refuses.
        """
        if self._writer is None:
            self._writer = JournalWriter(
                self._directory, disk_budget_bytes=self._writer_budget_bytes,
                journal=Journal(segment_bytes=max(1, min(SEGMENT_BYTES, self._budget_bytes // 8))),
            )  # fmt: skip
        segments = set()
        try:
            for value in values:
                self._writer.append(value)
                if self._writer.buffered_bytes >= FRAME_BYTES:
                    self._writer.flush()
                    segments.add(self._writer.statistics().segment)
            self._writer.flush()
            segments.add(self._writer.statistics().segment)
        except OSError as exc:
            raise StateError(
                f"cannot write labels to {self._directory}: {exc.strerror or exc}"
            ) from exc
        return segments

    async def sync(self, segments: Iterable[int]) -> None:
        """Return when these segments are on the disk; the event loop goes on meanwhile.

        Raises:
            StateError: the disk refuses.
        """
        for number in sorted(segments):
            path = segment_path(self._directory, number)
            try:
                await asyncio.to_thread(_sync, path)
            except FileNotFoundError:
                continue  # shipped and removed already
            except OSError as exc:
                raise StateError(f"cannot sync labels to {path}: {exc.strerror}") from exc

    def close(self) -> None:
        """Let the journal go; harmless when repeated."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _sync(path: Path) -> None:
    """Sync a file, whoever wrote it, and its name in the folder."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
