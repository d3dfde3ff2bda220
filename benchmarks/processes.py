"""What the kernel knows about a tree of processes: CPU time, memory, titles (Linux /proc).

CPU time is user plus system time of every thread, dead threads included, as `utime + stime` of
`/proc/PID/stat` show it; it is read from the process's own CPU clock (clock_getcpuclockid(3)),
which is the same counter in nanoseconds instead of 10 ms ticks.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from proxy.telemetry import monotonic_s

PROC = Path("/proc")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h.
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of `/proc/PID/stat` that the benchmarks need; times are in clock ticks."""

    pid: int
    name: str
    parent: int
    own_ticks: int
    reaped_ticks: int
    started_ticks: int


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of a tree at one moment.

    Attributes:
        own_ns: per live process.
        reaped_ns: per live process, what its ended and awaited children used.
    """

    own_ns: dict[int, int]
    reaped_ns: dict[int, int]


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time that a tree used between two moments.

    Attributes:
        total_ns: of all processes, those that came and went included.
        by_pid_ns: per process alive at the end.
        ended: processes that were there at the start and are gone.
    """

    total_ns: int
    by_pid_ns: dict[int, int]
    ended: tuple[int, ...]


def parse_stat(text: str) -> ProcessStat:
    """Return the fields of one `/proc/PID/stat`; the name may hold spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition(" (")
    field = tail.split()
    return ProcessStat(
        pid=int(pid),
        name=name,
        parent=int(field[1]),
        own_ticks=int(field[11]) + int(field[12]),
        reaped_ticks=int(field[13]) + int(field[14]),
        started_ticks=int(field[19]),
    )


def read_stat(pid: int) -> ProcessStat | None:
    """Return what the kernel says of one process, or None when it is gone."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(root: int) -> list[ProcessStat]:
    """Return `root` and all its descendants, parents first; empty when `root` is gone."""
    stats = [read_stat(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit()]
    found = {stat.pid: stat for stat in stats if stat is not None}
    children: dict[int, list[ProcessStat]] = {}
    for stat in found.values():
        children.setdefault(stat.parent, []).append(stat)
    members = [found[root]] if root in found else []
    for member in members:
        members.extend(children.get(member.pid, []))
    return members


def title(pid: int) -> str:
    """Return the command line as `ps` shows it, which setproctitle(3) may have replaced."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")


def cpu_ns(pid: int) -> int:
    """Return user plus system time of all threads of a process, in nanoseconds.

    Raises:
        ProcessLookupError: the process is gone.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError as error:
        raise ProcessLookupError(f"process {pid} is gone") from error


def waited_ns(pid: int) -> int:
    """Return how long threads of a process were ready to run and had no processor, in nanoseconds.

    The second field of `/proc/PID/task/TID/schedstat` (sched-stats.rst); 0 where there is none.
    """
    total = 0
    for path in (PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def usage(root: int) -> Usage:
    """Return the CPU time of a tree now."""
    own: dict[int, int] = {}
    reaped: dict[int, int] = {}
    for stat in tree(root):
        try:
            own[stat.pid] = cpu_ns(stat.pid)
        except ProcessLookupError:
            continue
        reaped[stat.pid] = stat.reaped_ticks * TICK_NS
    return Usage(own, reaped)


def spent(before: Usage, after: Usage) -> Spent:
    """Return what was used between two readings of the same tree."""
    by_pid = {pid: now - before.own_ns.get(pid, 0) for pid, now in after.own_ns.items()}
    children = sum(now - before.reaped_ns.get(pid, 0) for pid, now in after.reaped_ns.items())
    ended = tuple(sorted(before.own_ns.keys() - after.own_ns.keys()))
    # An ended child's whole life lands in its parent's reaped time; the part before the first
    # reading is not ours to count.
    children -= sum(before.own_ns[pid] for pid in ended)
    return Spent(sum(by_pid.values()) + max(0, children), by_pid, ended)


def settle(root: int, *, limit_s: float = 15.0, window_s: float = 0.2, busy: float = 0.03) -> bool:
    """Wait until a tree has finished its work; return False when it is busy after `limit_s`.

    Work that is put off (a recorder's backlog, log writes) is thereby counted with the requests
    that caused it. Finished means less than `busy` of one core over two windows in a row.
    """
    give_up = monotonic_s() + limit_s
    quiet = 0
    before = usage(root)
    while monotonic_s() < give_up:
        time.sleep(window_s)
        after = usage(root)
        is_quiet = spent(before, after).total_ns < busy * window_s * 1e9
        quiet = quiet + 1 if is_quiet else 0
        if quiet == 2:
            return True
        before = after
    return False


def memory_bytes(root: int) -> int:
    """Return the proportional set size of a tree: shared pages are counted once over all."""
    total = 0
    for stat in tree(root):
        try:
            text = (PROC / str(stat.pid) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")
        )
    return total


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it is gone."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Return the greatest resident memory since the start or `forget_peak`; 0 when it is gone."""
    return _status_bytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak of resident memory start anew (proc(5), clear_refs)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def _status_bytes(pid: int, key: str) -> int:
    try:
        text = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = [line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 if found else 0
