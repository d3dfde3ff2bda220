"""Understudy: one route, pairs compared and kept in the embedded log.

It does more than the others in MIRROR: both answers are joined, journaled, compared and recorded.
`tree` CPU counts all of that, `worker` CPU what the data plane spends.

`UNDERSTUDY_PYTHON` names the interpreter to run it with, such as that of a virtual environment in
which the wheel with the compiled data plane is installed (`make bench` does so); without it, the
sources of this tree run interpreted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import zstandard

from benchmarks import processes
from benchmarks.fleet import BenchmarkError, Child, Fleet, Place
from benchmarks.load import KEY_HEADER
from benchmarks.peers.base import Mode, Setup, Target, Upstreams
from proxy.telemetry import monotonic_s

_WORKER = "understudy: worker "
_START_S = 20.0
#: -P: the installed package runs, also when the current folder holds its sources.
PYTHON = (str(Path(os.environ.get("UNDERSTUDY_PYTHON", sys.executable)).absolute()), "-P")
_PROBE = """
import proxy
from proxy.dataplane import client
kind = "interpreted" if client.__file__.endswith(".py") else "compiled"
print(f"{proxy.__version__} ({kind} data plane)")
"""


class Understudy:
    """The product, as `understudy serve` runs it."""

    name = "Understudy"
    is_slow = False

    def missing(self) -> str | None:
        """Return why it cannot run, None when it can."""
        probe = _probe()
        return None if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]

    def version(self) -> str:
        """Return the package's version, and whether its data plane is compiled."""
        return _probe().stdout.strip()

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start the whole tree."""
        name = setup.name("understudy", mode)
        folder = fleet.subfolder(name)
        state = folder / "state"
        (folder / "understudy.yaml").write_text(configuration(state, mode, upstreams, setup))
        command = [*PYTHON, "-m", "proxy", "serve", str(folder / "understudy.yaml")]
        child = fleet.start(name, command, Place.PROXY, setup.env)
        listen, admin = _addresses(fleet, child, state / "runtime.json")
        fleet.wait_for_port(child, int(listen.rpartition(":")[2]))
        workers = _worker_pids(child, setup.workers)
        return Target(
            peer=self.name,
            mode=mode,
            url=f"http://{listen}",
            root_pid=child.pid,
            worker_pids=workers,
            pairs=state / "pairs",
            admin=f"http://{admin}",
        )


def _probe() -> subprocess.CompletedProcess[str]:
    command = [*PYTHON, "-c", _PROBE]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def configuration(state: Path, mode: Mode, upstreams: Upstreams, setup: Setup) -> str:
    """Return the YAML of one route with a candidate mirrored at 100% (none in FORWARD)."""
    candidates = "[{name: v2, backend: v2, mirror: 100%, weight: 0%}]"
    primary, candidate = upstreams.primary.port, upstreams.candidate.port
    timeout_ms = round(setup.timeout_s * 1e3)
    candidate_ms = round((setup.candidate_timeout_s or setup.timeout_s) * 1e3)
    kafka = f"{{bootstrap_servers: [{setup.kafka}], topic_prefix: {setup.topic_prefix}}}"
    prediction = ', prediction: "outputs[0].data"' if setup.protocol == "json" else ""
    return f"""\
listen: 127.0.0.1:0
workers: {setup.workers}
recorders: {setup.recorders}
state_dir: {state}
admin: {{listen: 127.0.0.1:0}}
journal: {{fsync: {setup.fsync}}}
limits: {f"{{mirror_lag: {setup.mirror_lag}}}" if setup.mirror_lag else "{}"}
record: {f"{{kafka: {kafka}}}" if setup.kafka else "{}"}
backends:
  v1:
    endpoints: [http://127.0.0.1:{primary}]
    timeout: {timeout_ms}ms
    max_in_flight: 100000
  v2:
    endpoints: [http://127.0.0.1:{candidate}]
    timeout: {candidate_ms}ms
    max_in_flight: {setup.max_mirrors}
routes:
  - name: bench
    match: {{path_prefix: {setup.path_prefix}}}
    protocol: {setup.protocol}
    primary: v1
    split_by: header:{KEY_HEADER.lower()}
    candidates: {candidates if mode is Mode.MIRROR else "[]"}
    compare: {{comparator: numeric, rel_tol: 1e-3{prediction}}}
"""


def count_pairs(folder: Path) -> int:
    """Return how many records the embedded log in `folder` holds."""
    total = 0
    for path in sorted(folder.glob("*.ndjson.zst")):
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while block := reader.read(1 << 20):
                total += block.count(b"\n")
    return total


def _addresses(fleet: Fleet, child: Child, runtime: Path) -> tuple[str, str]:
    """Return where it serves and its admin API, from the file written once its sockets are bound."""
    give_up = monotonic_s() + _START_S
    while monotonic_s() < give_up:
        fleet.check(child)
        if runtime.exists():
            found = json.loads(runtime.read_text())
            return str(found["listen"]), str(found["admin"])
        time.sleep(0.02)
    raise BenchmarkError(f"Understudy is not up after {_START_S:g} s:\n{child.tail()}")


def _worker_pids(child: Child, count: int) -> tuple[int, ...]:
    """Return the processes that carry the requests, known by their titles."""
    give_up = monotonic_s() + _START_S
    while monotonic_s() < give_up:
        pids = [stat.pid for stat in processes.tree(child.pid)]
        workers = tuple(pid for pid in pids if processes.title(pid).startswith(_WORKER))
        if len(workers) == count:
            return workers
        time.sleep(0.02)
    raise BenchmarkError(f"not {count} processes named {_WORKER!r}:\n{child.tail()}")
