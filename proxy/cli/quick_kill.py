"""Whether a kill can be in effect before the rest of the command is imported; and then it is.

Where the instance lies is looked for as `proxy.cli.instance` does, as far as that needs no config and no
network. The telling comes afterwards (`proxy.cli.ordering`).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NamedTuple

from proxy.cli.order_options import reason_of
from proxy.cli.state_dirs import DEFAULT_STATE_DIR, can_order, operator
from proxy.state.quick_kill import kill_now
from proxy.telemetry import monotonic_s, rfc3339, wall_ns


class QuickKill(NamedTuple):
    """A kill that is in effect: where, by whom, when (wall clock), and the page before and after."""

    state_dir: Path
    who: str
    now_ms: int
    before: bytes
    after: bytes
    took_ms: float


def try_quick_kill(arguments: argparse.Namespace) -> QuickKill | None:
    """Kill, if it can be done at once; None leaves everything to the long way."""
    began_s = monotonic_s()
    folder = _folder(arguments)
    if folder is None or (arguments.candidate and not arguments.route):
        return None
    who, now_ms = operator(), wall_ns() // 1_000_000
    note = f"{rfc3339(now_ms)} {who} (state-dir): {reason_of(arguments)}"
    scope = "/".join(filter(None, (arguments.route, arguments.candidate))) or "*"
    payloads = kill_now(folder, scope, arguments.only, note)
    if payloads is None:
        return None
    return QuickKill(folder, who, now_ms, *payloads, round((monotonic_s() - began_s) * 1000, 1))


def _folder(arguments: argparse.Namespace) -> Path | None:
    if arguments.state_dir is not None:
        return Path(arguments.state_dir)
    if arguments.admin or os.environ.get("UNDERSTUDY_ADMIN"):
        return None
    near = Path(DEFAULT_STATE_DIR)
    return near if can_order(near) else None
