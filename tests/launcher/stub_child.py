"""Stands in for a worker, recorder or control: says that it lives, and in which order it stops.

Usage: stub_child.py ROLE --config PATH [--index I] [--fd FD]. `STUB_STUBBORN=ROLE` (or `all`) ignores
SIGTERM and SIGALRM; `STUB_CRASH=ROLE` ends at once with exit code 3; with `STUB_BEATS` workers beat.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from proxy.config.resolved import loads
from proxy.state.stats_file import Layout, open_stats


def main() -> None:
    """Run until SIGTERM."""
    role, _, config, *rest = sys.argv[1:]
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    state_dir = Path(config).parent.parent
    name = f"{role}-{options.get('--index', '')}"
    if os.environ.get("STUB_CRASH") == role:
        sys.exit(3)

    def stop(*_: object) -> None:
        with (state_dir / "stops").open("a") as file:
            file.write(f"{role}\n")
        sys.exit(0)

    is_stubborn = os.environ.get("STUB_STUBBORN") in (role, "all")
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN if is_stubborn else stop)
    if "--fd" in options:
        listener = socket.socket(fileno=int(options["--fd"]))
        assert listener.getsockname()[1] > 0
    page = None
    if role == "worker" and os.environ.get("STUB_BEATS"):
        layout = Layout(loads(Path(config).read_bytes()))
        page = open_stats(state_dir, int(options["--index"]), layout)
        page.beat(pid=os.getpid(), now_ms=1)
    (state_dir / f"alive-{name}").write_text(str(os.getpid()))
    parent = os.getppid()
    # On Linux the launcher's end must reach us by the kernel's signal, so do not look for it.
    while sys.platform == "linux" or os.getppid() == parent:
        if page is not None:
            page.beat(pid=os.getpid(), now_ms=time.time_ns() // 1_000_000)
        time.sleep(0.02)


main()
