"""Who tells that the config file has changed: its folder, and SIGHUP.

The folder is watched and not the file: editors put a new file in the old one's place, and Kubernetes
swaps a link (`..data`) beside it. Where the file is a link into another folder, that one is watched,
too. What happened there is not asked; the file that the path means is compared by its times.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from watchfiles import awatch

from proxy.control.reload import Reloader, automatic

#: Changes that come together are one: so long nothing else must happen, and no longer than that.
QUIET_MS = 50
LONGEST_MS = 1_000
#: Looked at anyway this often: network and bind mounts may tell nobody of a change.
LOOK_MS = 5_000
#: A folder that is gone, or cannot be watched, is tried again after this.
RETRY_S = 1.0

logger = logging.getLogger("understudy.control")


async def watch_config(reloader: Reloader) -> None:
    """Reload when the file changes, for ever; what changed while nobody watched counts, too."""
    if reloader.source is None:
        return
    if reloader.is_behind():
        _reload(reloader, "it changed while control was down")
    while True:
        try:
            await _watch_folders(reloader, reloader.source)
        except OSError as exc:
            logger.error("cannot watch %s: %s", reloader.source, exc)  # noqa: TRY400 - no traceback for a missing folder
            await asyncio.sleep(RETRY_S)


async def _watch_folders(reloader: Reloader, path: Path) -> None:
    """Watch until the file lies somewhere else."""
    folders, seen = _folders(path), _identity(path)
    changes = awatch(
        *folders, watch_filter=None, debounce=LONGEST_MS, step=QUIET_MS, recursive=False,
        rust_timeout=LOOK_MS, yield_on_timeout=True,
    )  # fmt: skip
    async for _ in changes:
        found = _identity(path)
        if found not in (seen, None):
            _reload(reloader, "the file changed")
        seen = found or seen
        if _folders(path) != folders:
            return


def _reload(reloader: Reloader, why: str) -> None:
    reloader.reload(automatic(f"file {reloader.source}", why))


def _folders(path: Path) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((path.parent, path.resolve().parent)))


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file that a path means does; None while there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - all of it at once, of what the link means
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
