"""Whether this machine has room, rights, ports and descriptors for a config.

Nothing is left behind: a file that shows whether the disk takes one has no name, and a port that
shows whether it is free is let go at once.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from proxy.config.resolved import Address, Config
from proxy.config.units import size
from proxy.doctor.findings import Finding, Level, ok
from proxy.launcher.sockets import LaunchError, listen

#: The part of its file descriptors that a worker gives to clients (`proxy.dataplane.deadlines`).
CLIENTS_SHARE: Final = 0.75
_MIB: Final = 2**20


def disk_findings(config: Config) -> list[Finding]:
    """Look at `state_dir`: whether it can be written, and whether the budgets fit on its disk."""
    state_dir = Path(config.state_dir)
    folder = _nearest(state_dir)
    why = "no control page, so no weights and no kill switch; no pairs"
    mend = "give the user that runs Understudy this folder, or set state_dir"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as exc:
        what = f"{folder} cannot be written: {exc.strerror}"
        return [Finding("disk", str(state_dir), Level.FAULT, what, why, mend)]
    new = "" if folder == state_dir else " (made at the start)"
    return [ok("disk", str(state_dir), f"can be written{new}"), _room(config, state_dir, folder)]


def _room(config: Config, state_dir: Path, folder: Path) -> Finding:
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    # The local log has the same budget once more.
    logs = ("journal",) if config.record.kafka is not None else ("journal", "pairs")
    budget_bytes = config.limits.journal_disk_bytes * len(logs)
    used_bytes = sum(_used_bytes(state_dir / name) for name in logs)
    due_bytes = max(0, budget_bytes - used_bytes)
    told = f"{_about(free_bytes)} free; the budget may still take {_about(due_bytes)}"
    if free_bytes > due_bytes:
        return ok("disk", str(state_dir), told)
    return Finding(
        "disk", str(state_dir), Level.WARNING, told,
        "the disk would be full before the budget is, and pairs lost where the oldest should go",
        f"lower limits.journal_disk below {size(max(_MIB, (free_bytes + used_bytes) // len(logs)))}"
        ", or give state_dir a larger disk",
    )  # fmt: skip


def port_findings(config: Config, runtime: Mapping[str, Any] | None) -> list[Finding]:
    """Look at both listeners; `runtime` is that of the running instance, None where none runs."""
    return [
        _port(config.listen, "listen", runtime),
        _port(config.admin.listen, "admin.listen", runtime),
    ]


def _port(address: Address, key: str, runtime: Mapping[str, Any] | None) -> Finding:
    subject = f"{key} {address}"
    if not address.port:
        return ok("port", subject, "a free one is taken at the start")
    try:
        listen(address, key).close()
    except LaunchError as exc:
        ours = runtime is not None and str(address) in (runtime.get("listen"), runtime.get("admin"))
        if runtime is not None and ours:
            return ok("port", subject, f"in use by the running instance (process {runtime['pid']})")
        return Finding(
            "port", subject, Level.FAULT, str(exc), "`understudy serve` would not start",
            f"find out who has it (`ss -ltnp`), or change {key}",
        )  # fmt: skip
    return ok("port", subject, "is free")


def descriptor_findings(config: Config) -> list[Finding]:
    """Compare the limit of open files, as this shell has it, with `limits.connections`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.limits.connections
    subject = "file descriptors"
    if soft == resource.RLIM_INFINITY or int(soft * CLIENTS_SHARE) >= wanted:
        return [ok("limit", subject, f"{soft:,} per process, enough for {wanted:,} connections")]
    needed = -(-wanted * 4 // 3)
    return [
        Finding(
            "limit", subject, Level.WARNING,
            f"{soft:,} per process: at most {int(soft * CLIENTS_SHARE):,} of the {wanted:,} "
            "connections of limits.connections",
            "beyond that idle clients are dropped, and others get 503",
            f"`ulimit -n {needed}` before the start, LimitNOFILE={needed} in systemd, or lower "
            "limits.connections",
        )
    ]  # fmt: skip


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _used_bytes(folder: Path) -> int:
    used = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                used += (Path(root) / name).stat().st_size
            except OSError:
                continue  # shipped and removed since we looked
    return used


def _about(count_bytes: int) -> str:
    """Return a size to two digits behind the point, in MiB or GiB."""
    if count_bytes >= 2**30:
        return f"{count_bytes / 2**30:,.1f} GiB"
    return f"{count_bytes / _MIB:,.1f} MiB"
