"""What a worker imports and what the sidecar's tree of processes holds in memory."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.counting_backend import CountingBackend, counting_backend
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running
from tests.support.pair_log import wait_pairs
from tests.support.worker_process import worker_config, worker_process

pytestmark = pytest.mark.slow

#: Each would cost every worker megabytes and a tenth of a second of its start. (`watchfiles`, 0.5 MB,
#: is imported by uvicorn itself.)
FORBIDDEN = {
    "aiokafka", "fastapi", "h11", "httpx", "numpy", "prometheus_client", "pydantic", "requests",
    "rich", "sklearn", "starlette", "typer", "websockets", "wsproto", "yaml",
}  # fmt: skip
#: Proportional set size of launcher, one worker, control and recorder, idle.
LIMIT_BYTES = 150 * 10**6
MEGABYTE = 10**6


@pytest.fixture
def backend() -> Iterator[CountingBackend]:
    """Run one backend, for the primary and the candidate alike."""
    with counting_backend("b") as running_backend:
        yield running_backend


def test_a_worker_imports_nothing_that_it_does_not_need(
    tmp_path: Path, backend: CountingBackend
) -> None:
    """A real worker process, served a mirrored request, then SIGTERM: exit 0 and a short list."""
    modules = _modules_of_a_worker(tmp_path, backend)
    assert "proxy.dataplane.exchange" in modules
    assert "proxy.pairs.redact" not in modules, "nothing is redacted there"
    packages = {name.partition(".")[0] for name in modules}
    assert packages & FORBIDDEN == set()
    ours = {name.split(".")[1] for name in modules if name.startswith("proxy.")}
    assert ours & {"analysis", "cli", "control", "demo", "launcher", "recorder"} == set()


def _modules_of_a_worker(tmp_path: Path, backend: CountingBackend) -> set[str]:
    """Run a worker through one request and its mirror; return every module it imported."""
    config = worker_config(tmp_path, backend.url)
    with worker_process(config, python_flags=["-X", "importtime"]) as (process, url):
        answer = httpx.post(url, json={"x": 1}, timeout=PATIENCE_S, trust_env=False)
        assert (answer.status_code, answer.json()) == (200, {"from": "b"})
        wait_for(lambda: backend.mirrors == 1, "the mirror")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    lines = (line for line in stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


def _sidecar(backend: CountingBackend, **more: Any) -> dict[str, Any]:
    return {
        "workers": 1,
        "backends": {"a": {"endpoints": [backend.url]}, "b": {"endpoints": [backend.url]}},
        "routes": [
            {
                "name": "m",
                "protocol": "json",
                "primary": "a",
                "split_by": "header:x-user-id",
                "candidates": [{"name": "v2", "backend": "b", "mirror": "100%"}],
            }
        ],
        **more,
    }


def _tree(instance: Instance) -> dict[str, float]:
    """Return the proportional set size of each process, in MB."""
    launcher = psutil.Process(instance.process.pid)
    return {
        process.name() if process is not launcher else "launcher": _pss_bytes(process) / MEGABYTE
        for process in [launcher, *launcher.children(recursive=True)]
    }


def _pss_bytes(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="proportional set size is Linux's")
@pytest.mark.parametrize("sink", ["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def test_the_sidecars_whole_tree_is_small(
    tmp_path: Path,
    backend: CountingBackend,
    sink: str,
    request: pytest.FixtureRequest,
    record_property: Any,
) -> None:
    """Under 150 MB when idle after some traffic, with the local log and with Kafka."""
    more: dict[str, Any] = {}
    if sink == "kafka":
        bootstrap = request.getfixturevalue("kafka_bootstrap")
        more = {"record": {"kafka": {"bootstrap_servers": [bootstrap], "topic_prefix": "foot"}}}
    with running(_sidecar(backend, **more), tmp_path) as instance:
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            for number in range(200):
                assert client.post(instance.base_url, json={"x": number}).status_code == 200
        if sink == "local":
            wait_pairs(instance.state_dir, 200)
        else:
            wait_for(lambda: _acknowledged(instance) == 200, "Kafka to have them")
        sizes = _tree(instance)
    seen = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
    total = sum(sizes.values())
    record_property("pss_mb", f"{total:.1f} ({seen})")
    assert total * MEGABYTE < LIMIT_BYTES, f"{total:.1f} MB: {seen}"
    assert len(sizes) == 4


def _acknowledged(instance: Instance) -> int:
    recorders = instance.status()["recorders"]
    return sum(recorder["acknowledged"] for recorder in recorders if recorder)
