"""Starlette and httpx on uvicorn with uvloop: what a mirror in Python is usually made of."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import environment, package_version
from benchmarks.fleet import Fleet, Place, free_port
from benchmarks.peers.base import Mode, Setup, Target, Upstreams

_PACKAGES = ("starlette", "httpx", "uvicorn", "uvloop", "httptools")
_APPS = Path(__file__).parent / "apps"


class StarletteHttpx:
    """A Starlette application with an httpx client (`apps/starlette_mirror.py`)."""

    name = "Starlette+httpx"
    is_slow = True

    def missing(self) -> str | None:
        """Return why its environment cannot be made."""
        return environment("starlette-httpx", _PACKAGES).missing

    def version(self) -> str:
        """Return the versions of its main parts."""
        python = environment("starlette-httpx", _PACKAGES).python
        return "/".join(package_version(python, name) for name in ("starlette", "httpx"))

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start uvicorn with one process, without access log."""
        python = environment("starlette-httpx", _PACKAGES).python
        port, name = free_port(), setup.name("starlette-httpx", mode)
        command = [str(python), "-m", "uvicorn", "starlette_mirror:app", "--app-dir", str(_APPS)]
        command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning"]
        env = {"PRIMARY": f"http://127.0.0.1:{upstreams.primary.port}"}
        if mode is Mode.MIRROR:
            env["CANDIDATE"] = f"http://127.0.0.1:{upstreams.candidate.port}"
        child = fleet.start(name, command, Place.PROXY, env)
        fleet.wait_for_port(child, port)
        return Target(self.name, mode, f"http://127.0.0.1:{port}", child.pid, (child.pid,))
