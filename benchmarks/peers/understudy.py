"""Understudy: one worker, one JSON route, pairs compared and kept in the embedded log.

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
from benchmarks.peers.base import Mode, Target, Upstreams
from proxy.telemetry import monotonic_s

_WORKER = "understudy: worker 0"
_START_S = 20.0
#: -P: the installed package runs, also when the current folder holds its sources.
_PYTHON = (os.environ.get("UNDERSTUDY_PYTHON", sys.executable), "-P")
_PROBE = """
import proxy
from proxy.dataplane import client
kind = "interpreted" if client.__file__.endswith(".py") else "compiled"
print(f"{proxy.__version__} ({kind} data plane)")
"""


class Understudy:
    """The product, as `understudy serve` runs it."""

    name = "Understudy"

    def missing(self) -> str | None:
        """Return why it cannot run, None when it can."""
        probe = _probe()
        return None if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]

    def version(self) -> str:
        """Return the package's version, and whether its data plane is compiled."""
        return _probe().stdout.strip()

    def start(
        self,
        fleet: Fleet,
        mode: Mode,
        upstreams: Upstreams,
        env: dict[str, str] | None = None,
    ) -> Target:
        """Start the whole tree; `env` is added to its environment (the profiler uses it)."""
        name = f"understudy-{mode.name.lower()}"
        folder = fleet.subfolder(name)
        state = folder / "state"
        (folder / "understudy.yaml").write_text(configuration(state, mode, upstreams))
        command = [*_PYTHON, "-m", "proxy", "serve", str(folder / "understudy.yaml")]
        child = fleet.start(name, command, Place.PROXY, env)
        listen = _listen_address(fleet, child, state / "runtime.json")
        fleet.wait_for_port(child, int(listen.rpartition(":")[2]))
        worker = _worker_pid(child)
        return Target(self.name, mode, f"http://{listen}", child.pid, worker, state / "pairs")


def _probe() -> subprocess.CompletedProcess[str]:
    command = [*_PYTHON, "-c", _PROBE]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def configuration(state: Path, mode: Mode, upstreams: Upstreams) -> str:
    """Return the YAML of one route with a candidate mirrored at 100% (none in FORWARD)."""
    candidates = "[{name: v2, backend: v2, mirror: 100%, weight: 0%}]"
    return f"""\
listen: 127.0.0.1:0
workers: 1
state_dir: {state}
admin: {{listen: 127.0.0.1:0}}
backends:
  v1: {{endpoints: [http://127.0.0.1:{upstreams.primary.port}]}}
  v2: {{endpoints: [http://127.0.0.1:{upstreams.candidate.port}], max_in_flight: 1024}}
routes:
  - name: digits
    match: {{path_prefix: /v1/models/digits}}
    protocol: json
    primary: v1
    split_by: header:{KEY_HEADER.lower()}
    candidates: {candidates if mode is Mode.MIRROR else "[]"}
    compare: {{prediction: "outputs[0].data", comparator: numeric, rel_tol: 1e-3}}
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


def _listen_address(fleet: Fleet, child: Child, runtime: Path) -> str:
    """Return where it serves, from the file that it writes once its sockets are bound."""
    give_up = monotonic_s() + _START_S
    while monotonic_s() < give_up:
        fleet.check(child)
        if runtime.exists():
            return str(json.loads(runtime.read_text())["listen"])
        time.sleep(0.02)
    raise BenchmarkError(f"Understudy is not up after {_START_S:g} s:\n{child.tail()}")


def _worker_pid(child: Child) -> int:
    """Return the process that carries the requests, known by its title."""
    give_up = monotonic_s() + _START_S
    while monotonic_s() < give_up:
        for stat in processes.tree(child.pid):
            if processes.title(stat.pid).startswith(_WORKER):
                return stat.pid
        time.sleep(0.02)
    raise BenchmarkError(f"no process named {_WORKER!r}:\n{child.tail()}")
