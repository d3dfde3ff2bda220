"""Who tells that the config file has changed: its folder, which is watched.

The folder is watched and not the file: editors put a new file in the old one's place, and Kubernetes
swaps a link (`..data`) beside it. Where the file is a link into another folder, that one is watched,
too. What happened there is not asked; the file that the path means is compared by its times. So it is
where nobody can be told: now and then it is looked at anyway.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from pathlib import Path

from watchfiles import awatch

from proxy.control.reload import Reloader, automatic
from proxy.telemetry import monotonic_s

#: Changes that come together are one: so long nothing else must happen, and no longer than that.
QUIET_MS = 50
LONGEST_MS = 1_000
#: Looked at anyway this often: network and bind mounts may tell nobody of a change.
LOOK_MS = 5_000
#: A folder that cannot be watched (it is gone, or the system has no watches left) is tried again.
RETRY_S = 1.0
#: A good file that the disk did not take is tried again after this.
AGAIN_S = 5.0

logger = logging.getLogger("understudy.control")


class ConfigWatch:
    """Reloads when the file has changed.

    Args:
        reloader: knows the file.
    """

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader
        self._seen: tuple[int, ...] | None = None
        self._again_s = math.inf
        self._trouble = ""

    async def run(self) -> None:
        """Watch, for ever; what changed while nobody did counts, too."""
        path = self._reloader.source
        if path is None:
            return
        self._seen = _identity(path)
        if self._reloader.is_behind():
            self._reload("it changed while control was down")
        while True:
            try:
                await self._watch_folders(path)
            except (OSError, RuntimeError) as exc:
                if str(exc) != self._trouble:
                    logger.error("%s: its folder cannot be watched: %s", path, exc)  # noqa: TRY400 - no traceback for a missing folder
                self._trouble = str(exc)
                await asyncio.sleep(RETRY_S)
                self._look(path)

    async def _watch_folders(self, path: Path) -> None:
        """Watch until the file lies somewhere else.

        Raises:
            OSError, RuntimeError: a folder cannot be watched.
        """
        folders = _folders(path)
        changes = awatch(
            *folders, watch_filter=None, debounce=LONGEST_MS, step=QUIET_MS, recursive=False,
            rust_timeout=LOOK_MS, yield_on_timeout=True,
        )  # fmt: skip
        async for _ in changes:
            self._trouble = ""
            self._look(path)
            if _folders(path) != folders:
                return

    def _look(self, path: Path) -> None:
        found = _identity(path)
        if found is not None and found != self._seen:
            self._seen = found
            self._reload("the file changed")
        elif monotonic_s() >= self._again_s:
            self._reload("the disk did not take it")
        # Else it is gone for a moment, or something else happened in the folder.

    def _reload(self, why: str) -> None:
        outcome = self._reloader.reload(automatic(f"file {self._reloader.source}", why))
        self._again_s = monotonic_s() + AGAIN_S if outcome.is_of_the_disk else math.inf


def _folders(path: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((path.parent, path.resolve().parent)))


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file that a path means does; None while there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - all of it at once, of what the link means
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
