"""What is read from /proc, against processes that are really there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks import processes
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

_BURN = """
import sys, time
while time.process_time() < 0.2: pass
print("burnt", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def burner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has used 0.2 s of CPU and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        yield process
        process.kill()


def test_stat_of_a_name_with_spaces_and_parentheses_is_read() -> None:
    """The name is whatever the process set; fields are counted from the last parenthesis."""
    text = "42 (a) (b c) S 7 1 1 0 -1 4194560 1 2 3 4 100 20 30 5 20 0 1 0 999 1 2"
    stat = processes.parse_stat(text)
    assert stat == processes.ProcessStat(42, "a) (b c", 7, 120, 35, 999)


def test_cpu_clock_agrees_with_user_plus_system_time(burner: subprocess.Popen[bytes]) -> None:
    """The nanosecond clock is the counter that /proc/PID/stat shows in ticks."""
    stat = processes.read_stat(burner.pid)
    assert stat is not None
    shown_ns = stat.own_ticks * processes.TICK_NS
    assert abs(processes.cpu_ns(burner.pid) - shown_ns) <= 2 * processes.TICK_NS
    assert shown_ns >= 0.2e9 - 2 * processes.TICK_NS


def test_processes_that_share_a_processor_wait_for_it() -> None:
    """One of two that want the same processor all the time waits for half of it."""
    cpu = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    both = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(2)]
    try:
        give_up = monotonic_s() + PATIENCE_S
        while min(processes.waited_ns(one.pid) for one in both) < 20_000_000:
            assert monotonic_s() < give_up
            time.sleep(0.01)
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert processes.waited_ns(both[0].pid) == 0


def test_tree_holds_children_and_their_cpu_time(burner: subprocess.Popen[bytes]) -> None:
    """The tree of this process includes the child; what the child used is in the sum."""
    assert burner.pid in {stat.pid for stat in processes.tree(os.getpid())}
    nothing = processes.Usage({}, {})
    used = processes.spent(nothing, processes.usage(burner.pid))
    assert 0.19e9 < used.total_ns < 2e9


def test_ended_process_is_reported_and_its_earlier_time_not_counted_again() -> None:
    """A child that ended adds only what it used between the two readings."""
    before = processes.Usage({1: 100, 2: 50}, {1: 0, 2: 0})
    after = processes.Usage({1: 130}, {1: 70})
    used = processes.spent(before, after)
    assert used == processes.Spent(30 + 20, {1: 30}, (2,))


def test_tree_of_a_process_that_is_gone_is_empty(burner: subprocess.Popen[bytes]) -> None:
    """Nothing is said of a process once it was awaited."""
    burner.kill()
    burner.wait()
    assert processes.tree(burner.pid) == []
    assert processes.memory_bytes(burner.pid) == 0
    with pytest.raises(ProcessLookupError):
        processes.cpu_ns(burner.pid)


def test_quiet_tree_settles_and_a_busy_one_does_not(burner: subprocess.Popen[bytes]) -> None:
    """Settling returns soon for a waiting process and gives up on one that never rests."""
    assert processes.settle(burner.pid, limit_s=PATIENCE_S, window_s=0.05)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        # One that is not given a processor for two windows looks quiet.
        wait_for(lambda: not processes.settle(busy.pid, limit_s=0.4, window_s=0.05), "its work")
        busy.kill()


def test_memory_of_a_process_is_counted(burner: subprocess.Popen[bytes]) -> None:
    """A Python process has more than a megabyte of its own."""
    assert processes.memory_bytes(burner.pid) > 1 << 20
