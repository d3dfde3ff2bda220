"""What the other processes have written into files of `state_dir`, read beside control's event loop.

On a disk that hangs, not even a listing of the folder returns while somebody makes a file in it. Control
then tells what it saw last, and that it is old; kills and questions go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxy.control.small_files import read_json
from proxy.control.told_decisions import NO_DECISIONS, told_decisions
from proxy.journal.books import JournalBooks, read_books
from proxy.state.syncing import DiskThread, HangingDiskError


@dataclass(frozen=True, slots=True)
class SeenFiles:
    """What was in the files; see `proxy.control.snapshot.Snapshot` for what each of them is.

    Attributes:
        hanging_s: for how long the disk has not answered, while this is what was seen before; else 0.
    """

    runtime: dict[str, Any] = field(default_factory=dict)
    recorders: tuple[dict[str, Any] | None, ...] = ()
    journals: tuple[JournalBooks, ...] = ()
    ramps: dict[str, Any] = field(default_factory=dict)
    replicas: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    decisions: dict[str, Any] = field(default_factory=lambda: dict(NO_DECISIONS))
    hanging_s: float = 0.0


class FileReader:
    """Reads the files of one `state_dir`, and remembers what it saw.

    Args:
        state_dir: of the instance.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._thread = DiskThread("read files")
        self._seen: dict[Callable[[int], SeenFiles], SeenFiles] = {}

    def briefly(self, recorders: int) -> SeenFiles:
        """Return what the launcher and so many recorders have written, and nothing of the others."""
        return self._look(self._briefly, recorders)

    def wholly(self, recorders: int) -> SeenFiles:
        """Return everything; so many recorders write."""
        return self._look(self._wholly, recorders)

    def _look(self, read: Callable[[int], SeenFiles], recorders: int) -> SeenFiles:
        def look() -> None:
            self._seen[read] = read(recorders)

        try:
            self._thread.do(read, look)
        except HangingDiskError as exc:
            return replace(self._seen.get(read, SeenFiles()), hanging_s=exc.for_s)
        return self._seen[read]

    def _briefly(self, recorders: int) -> SeenFiles:
        runtime = read_json(self._state_dir / "runtime.json") or {}
        return SeenFiles(runtime, self._recorders(recorders))

    def _wholly(self, recorders: int) -> SeenFiles:
        found = self._state_dir
        return SeenFiles(
            runtime=read_json(found / "runtime.json") or {},
            # In this order: what was settled is read before what it was settled of.
            recorders=self._recorders(recorders),
            journals=self._journals(),
            ramps=read_json(found / "ramps-seen.json") or {},
            replicas=read_json(found / "replicas-seen.json") or {},
            labels=read_json(found / "labels.json") or {},
            decisions=told_decisions(found),
        )

    def _journals(self) -> tuple[JournalBooks, ...]:
        directories = (self._state_dir / "journal").glob("worker-*")
        return tuple(read_books(directory) for directory in sorted(directories))

    def _recorders(self, recorders: int) -> tuple[dict[str, Any] | None, ...]:
        return tuple(
            read_json(self._state_dir / f"recorder-{index}.json") for index in range(recorders)
        )
