"""Where Understudy's worker, or recorder, spends its time: `python -m benchmarks.profile_worker`.

`cprofile` switches Python's profiler on and off inside the running process, so that start-up is
not in the figures. It counts CPU time, of system calls too, and slows Python calls: read its
shares, not its totals. `perf` samples the
running process from outside, native code and kernel included.
"""

from __future__ import annotations

import argparse
import os
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import processes
from benchmarks.figures import parse_size
from benchmarks.fleet import BenchmarkError, Fleet, ended_by_signals
from benchmarks.load import Load, wrk_path
from benchmarks.origin import start_origin
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.stage import Sample, Stage
from proxy.telemetry import monotonic_s

#: Python imports `sitecustomize` at start-up: in the named module's process only, SIGPROF toggles
#: the profiler. The second SIGPROF writes the figures and moves them into place.
_SITECUSTOMIZE = """\
import os, signal, sys

if os.environ["BENCH_PROFILE_MODULE"] in sys.orig_argv:
    import cProfile, time

    profiler, running = cProfile.Profile(time.process_time), []

    def toggle(number, frame):
        if running:
            profiler.disable()
            out = os.environ["BENCH_PROFILE_OUT"]
            profiler.dump_stats(out + ".new")
            os.rename(out + ".new", out)
        else:
            running.append(True)
            profiler.enable()

    signal.signal(signal.SIGPROF, toggle)
"""


_MODULES = {"worker": "proxy.dataplane", "recorder": "proxy.recorder"}


@dataclass(frozen=True, slots=True)
class Task:
    """What to profile: a process by its name, under which load, and how many functions to show."""

    process: str
    mode: Mode
    load: Load
    top: int


def main(arguments: list[str]) -> int:
    """Profile a process under load and print its top functions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_worker")
    parser.add_argument("--tool", choices=sorted(_TOOLS), default="cprofile")
    parser.add_argument("--process", choices=sorted(_MODULES), default="worker")
    parser.add_argument("--mode", choices=["mirror", "forward"], default="mirror")
    parser.add_argument("--size", type=parse_size, default=1024, help="request body, such as 64KB")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--top", type=int, default=40, help="how many functions")
    given = parser.parse_args(arguments)
    task = Task(
        process=given.process,
        mode=Mode[given.mode.upper()],
        load=Load(given.size, 32, given.seconds),
        top=given.top,
    )
    try:
        wrk_path()
        with ended_by_signals(), tempfile.TemporaryDirectory(prefix="understudy-profile-") as name:
            print(_TOOLS[given.tool](Path(name), task))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _with_cprofile(folder: Path, task: Task) -> str:
    """Return the top functions by time of their own, from inside the worker."""
    out = folder / "process.prof"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH")]))
    env = {
        "PYTHONPATH": path,
        "BENCH_PROFILE_MODULE": _MODULES[task.process],
        "BENCH_PROFILE_OUT": str(out),
    }
    with Fleet(folder) as fleet:
        stage, target, pid = _warmed_up(fleet, task, env)
        os.kill(pid, signal.SIGPROF)
        sample = stage.measure(target, task.load, 0)
        os.kill(pid, signal.SIGPROF)
        give_up = monotonic_s() + 10
        while not out.exists():
            if monotonic_s() > give_up:
                raise BenchmarkError(f"the {task.process} wrote no profile")
            time.sleep(0.05)
    with (folder / "figures.txt").open("w") as file:
        pstats.Stats(str(out), stream=file).strip_dirs().sort_stats("tottime").print_stats(task.top)
    return _summary(sample) + (folder / "figures.txt").read_text()


def _with_perf(folder: Path, task: Task) -> str:
    """Return the top native functions, and the share of each library and of the kernel."""
    data = str(folder / "perf.data")
    with Fleet(folder) as fleet:
        stage, target, pid = _warmed_up(fleet, task, {})
        record = ["perf", "record", "-F", "1999", "-o", data, "-p", str(pid)]
        try:
            perf = subprocess.Popen(
                [*record, "--", "sleep", str(task.load.seconds)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise BenchmarkError("perf is missing; get it with `apt-get install linux-perf`") from (
                error
            )
        sample = stage.measure(target, task.load, 0)
        perf.wait(30)
    shares = _perf_report(data, "dso", 12)
    return _summary(sample) + shares + "\n" + _perf_report(data, "dso,symbol", task.top)


_TOOLS: dict[str, Callable[[Path, Task], str]] = {
    "cprofile": _with_cprofile,
    "perf": _with_perf,
}


def _warmed_up(fleet: Fleet, task: Task, env: dict[str, str]) -> tuple[Stage, Target, int]:
    """Start upstreams and Understudy, run one second of load, and find the process."""
    upstreams = Upstreams(start_origin(fleet, "primary"), start_origin(fleet, "candidate"))
    target = Understudy().start(fleet, task.mode, upstreams, Setup(env=env))
    assert target.root_pid is not None
    stage = Stage(fleet, upstreams, [target])
    stage.probe(target)
    stage.measure(target, replace(task.load, seconds=1), -1)
    for stat in processes.tree(target.root_pid):
        if processes.title(stat.pid).startswith(f"understudy: {task.process} 0"):
            return stage, target, stat.pid
    raise BenchmarkError(f"no {task.process} is running")


def _summary(sample: Sample) -> str:
    """Return what the profiled round measured."""
    return (
        f"{sample.requests} requests, {sample.rate_per_s:,.0f}/s, worker {sample.worker_us:.1f} "
        f"and tree {sample.tree_us:.1f} µs per request (with the profiler's own cost), "
        f"{sample.candidate_received} mirrored; faults: {', '.join(sample.faults) or 'none'}\n"
    )


def _perf_report(data: str, sort: str, lines: int) -> str:
    """Return the first lines of a perf report."""
    report = ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", sort]
    run = subprocess.run(report, capture_output=True, text=True, check=False)
    shown = [line for line in run.stdout.splitlines() if line.strip() and line[0] != "#"]
    return "\n".join(shown[:lines]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
