"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from benchmarks.load import wrk_version
from benchmarks.peers import Peer


def describe(peers: Iterable[Peer]) -> dict[str, str]:
    """Return machine and versions, for people: processor, cores, kernel, Python, each program."""
    facts = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()} ({_build()})",
        "wrk": wrk_version(),
    }
    return facts | {peer.name: peer.version() for peer in peers}


def load_average() -> float:
    """Return the one-minute load average: above the core count the machine had other work."""
    return os.getloadavg()[0]


def notes() -> list[str]:
    """Return what about this machine makes the numbers worse than they need be."""
    found = []
    if load_average() >= 0.5:
        busy = f"the machine is busy (load average {load_average():.1f})"
        found.append(f"{busy}: expect a wide spread")
    if _is_shared() and not _is_profiled():
        found.append(f"this Python is a {_build()}; faster builds of it are common")
    return found


def _is_profiled() -> bool:
    """Tell whether the build says that it is profile-guided (Debian's is, and does not say so)."""
    return "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))


def _is_shared() -> bool:
    """Tell whether the interpreter is a shared library, whose calls are slower."""
    return "libpython" in Path("/proc/self/maps").read_text()


def _build() -> str:
    """Return how the interpreter was built."""
    kind = "shared-library build" if _is_shared() else "static build"
    return f"{kind} with --enable-optimizations" if _is_profiled() else kind


def _processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
