"""What a reload would do with a config: the dry run of `understudy check --against-running`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from proxy.config.diff import differences, only_at_start
from proxy.config.resolved import Config
from proxy.config.secrets import hidden
from proxy.errors import AdminError
from proxy.state.instance_config import config_of


def dry_run(config: Config, state_dir: Path | None) -> dict[str, Any]:
    """Return what a reload of `config` would change in the instance that has its `state_dir`.

    Whether secrets differ it cannot say: those of the instance are in no file.

    Args:
        config: good by itself.
        state_dir: of the running instance; None: the config's.

    Raises:
        AdminError: no instance has ever run there, or its config may not be read.
    """
    folder = state_dir or Path(config.state_dir)
    running = config_of(folder)
    if running is None:
        raise AdminError(f"{folder} holds no config of an instance; give its --state-dir")
    changes = differences(hidden(running), hidden(config))
    fixed = only_at_start(changes)
    return {
        "running_version": running.version,
        "accepted": not fixed,
        "changes": [asdict(change) for change in changes],
        "diff": [str(change) for change in changes],
        "needs_restart": [change.key for change in fixed],
    }


def dry_run_lines(found: dict[str, Any]) -> list[str]:
    """Return the same for a person."""
    if not found["changes"]:
        return [f"nothing differs from what runs (version {found['running_version']})"]
    lines = [f"a reload would change, from version {found['running_version']}:"]
    lines += [f"  {line}" for line in found["diff"]]
    if found["needs_restart"]:
        keys = ", ".join(found["needs_restart"])
        lines.append(f"and so it would be refused: a restart is needed for {keys}")
    return lines
