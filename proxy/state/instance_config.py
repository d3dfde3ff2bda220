"""Which config belongs to a state directory, and under which names configs lie in a folder.

It imports next to nothing, because a kill waits for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.state.syncing import read_bytes

if TYPE_CHECKING:
    from proxy.config.resolved import Config

#: Config files looked for in the current folder, in this order.
CONFIG_NAMES = ("understudy.yaml", "understudy.yml", "config/understudy.yaml")
RUNTIME_NAME = "runtime.json"


def read_runtime(state_dir: Path) -> dict[str, Any] | None:
    """Return what the launcher left in `runtime.json`; None without one."""
    try:
        found = json.loads(read_bytes(state_dir / RUNTIME_NAME))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def config_of(state_dir: Path) -> Config | None:
    """Return the resolved config that an instance runs or last ran; None if there is none."""
    # Imported here because building the config's classes takes longer than a kill should wait.
    from proxy.config.resolved import loads  # noqa: PLC0415

    runtime = read_runtime(state_dir)
    folder = state_dir / "config"
    paths = [folder / f"{runtime['config_version']}.json"] if runtime else []
    try:
        if not paths:
            paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[-1:]
        return loads(paths[0].read_bytes()) if paths else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
