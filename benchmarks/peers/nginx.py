"""nginx: `worker_processes`, the `mirror` directive, no logs, request bodies held in memory."""

from __future__ import annotations

import subprocess
import time

from benchmarks import processes
from benchmarks.fleet import BenchmarkError, Child, Fleet, Place, free_port
from benchmarks.origin import nginx_http, nginx_main, nginx_path
from benchmarks.peers.base import Mode, Setup, Target, Upstreams
from proxy.telemetry import monotonic_s

_START_S = 10.0


class Nginx:
    """nginx (C)."""

    name = "nginx"
    is_slow = False

    def missing(self) -> str | None:
        """Return how to get it when it is not installed."""
        if nginx_path():
            return None
        return "nginx is not installed; get it with `apt-get install nginx-light` (Debian, Ubuntu)"

    def version(self) -> str:
        """Return its version number."""
        run = subprocess.run(
            [nginx_path() or "nginx", "-v"], capture_output=True, text=True, check=False
        )
        return run.stderr.strip().rpartition("/")[2]

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start a master with its workers."""
        binary = nginx_path()
        if binary is None:
            raise BenchmarkError(str(self.missing()))
        port, name = free_port(), setup.name("nginx", mode)
        folder = fleet.subfolder(name)
        (folder / "nginx.conf").write_text(
            _configuration(str(folder), port, mode, upstreams, setup)
        )
        command = [binary, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        child = fleet.start(name, command, Place.PROXY)
        fleet.wait_for_port(child, port)
        workers = _worker_pids(child, setup.workers)
        return Target(self.name, mode, f"http://127.0.0.1:{port}", child.pid, workers)


def _worker_pids(child: Child, count: int) -> tuple[int, ...]:
    """Return the workers, which the master starts after it has begun to listen.

    Raises:
        BenchmarkError: there are not as many in time.
    """
    give_up = monotonic_s() + _START_S
    while True:
        workers = tuple(stat.pid for stat in processes.tree(child.pid)[1:])
        if len(workers) == count:
            return workers
        if monotonic_s() > give_up:
            raise BenchmarkError(f"nginx has {len(workers)} workers, not {count}")
        time.sleep(0.02)


def _configuration(folder: str, port: int, mode: Mode, upstreams: Upstreams, setup: Setup) -> str:
    """Return the configuration: keep-alive on both sides, a copy to the candidate in MIRROR."""
    mirror = "mirror /mirror;" if mode is Mode.MIRROR else ""
    return f"""{nginx_main(folder, setup.workers)}
http {{
{nginx_http(folder)}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  upstream primary {{
    server 127.0.0.1:{upstreams.primary.port};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  upstream candidate {{
    server 127.0.0.1:{upstreams.candidate.port};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ {mirror} proxy_pass http://primary; }}
    location = /mirror {{ internal; proxy_pass http://candidate$request_uri; }}
  }}
}}
"""
