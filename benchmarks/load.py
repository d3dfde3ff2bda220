"""Saturating load from wrk: a fixed JSON POST over keep-alive connections, and what came of it.

wrk is a closed loop: each connection sends its next request when the last answer is there. That
saturates the proxy, which is what CPU per request and throughput want; its percentiles are those
of a saturated proxy. `benchmarks.paced` has the load whose percentiles mean something.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks.fleet import BenchmarkError, Fleet, Place

PATH_PREFIX = "/v1/models/digits"
PATH = f"{PATH_PREFIX}/predict"
#: The key that a proxy may split by; the same in every request.
KEY_HEADER = "X-User-Id"

#: Slow peers under saturation take longer than wrk's 2 s, which is no error of theirs.
_TIMEOUT_S = 15

_SCRIPT = """\
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-User-Id"] = "user-7"
file:close()

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


class Generator(Protocol):
    """Some load that can be sent to an address."""

    @property
    def size_bytes(self) -> int:
        """Length of the request body."""

    @property
    def connections(self) -> int:
        """Keep-alive connections; as many requests may be under way at the end."""

    def for_seconds(self, seconds: int) -> Generator:
        """Return the same load of another length."""

    def send(self, fleet: Fleet, url: str) -> LoadResult:
        """Send it, wait for the end, and return what came of it.

        Raises:
            BenchmarkError: the generator failed, or no request was answered.
        """


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the generator saw: completed requests, latency in microseconds, errors by kind.

    Attributes:
        quantiles_us: latency by share of requests, where the generator tells (`benchmarks.paced`).
        steady_p99_us: the median over seconds of each second's 99th percentile, where the generator
            tells: a stall of the whole machine, as shared ones have, is in one second's figure only.
        late_p99_us: how late the generator itself sent, where it knows when it should have.
        generator_busy: share of one core that the generator took.
    """

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    errors: dict[str, int]
    quantiles_us: dict[float, float] = field(default_factory=dict)
    steady_p99_us: float | None = None
    late_p99_us: float | None = None
    generator_busy: float | None = None

    @property
    def rate_per_s(self) -> float:
        """Completed requests per second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk sends.

    Attributes:
        size_bytes: length of the JSON body.
        connections: keep-alive connections, from one wrk thread.
        seconds: whole seconds, as wrk takes them.
        path: of every request.
        body: what is sent in place of the JSON body.
    """

    size_bytes: int
    connections: int
    seconds: int
    path: str = PATH
    body: bytes = b""

    def for_seconds(self, seconds: int) -> Load:
        """Return the same load of another length."""
        return replace(self, seconds=seconds)

    def send(self, fleet: Fleet, url: str) -> LoadResult:
        """Send it by wrk."""
        return run_wrk(fleet, url, self)


def body_file(fleet: Fleet, size_bytes: int, body: bytes = b"") -> Path:
    """Return a file of the fleet that holds `body`, or else a JSON document of that size."""
    content = body or json_body(size_bytes)
    path = fleet.folder / f"body-{zlib.crc32(content):08x}.json"
    if not path.exists():
        path.write_bytes(content)
    return path


def json_body(size_bytes: int) -> bytes:
    """Return a JSON document of exactly `size_bytes`, in the shape of an inference request.

    Raises:
        BenchmarkError: the size has no room for the document's frame.
    """
    head, tail = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,64],"data":[', b"0]}]}"
    room = size_bytes - len(head) - len(tail)
    if room < 0:
        raise BenchmarkError(f"a body needs {len(head) + len(tail)} bytes or more")
    number = b"0.1234567,"
    return head + number * (room // len(number)) + b" " * (room % len(number)) + tail


def parse_result(output: str) -> LoadResult:
    """Return the result that the wrk script printed.

    Raises:
        BenchmarkError: there is none.
    """
    line = next((ln for ln in output.splitlines() if ln.startswith("RESULT ")), None)
    if line is None:
        raise BenchmarkError(f"wrk printed no result:\n{output}")
    values: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    kinds = ("connect", "read", "write", "status", "timeout")
    return LoadResult(
        requests=values["requests"],
        seconds=values["duration_us"] / 1e6,
        p50_us=values["p50_us"],
        p99_us=values["p99_us"],
        max_us=values["max_us"],
        errors={kind: values[kind] for kind in kinds if values[kind]},
    )


def wrk_path() -> str:
    """Return the path of wrk.

    Raises:
        BenchmarkError: it is not installed; says how to get it.
    """
    found = shutil.which("wrk")
    if found is None:
        raise BenchmarkError(
            "the load generator wrk is missing; get it with `apt-get install wrk` (Debian, Ubuntu)"
            " or from https://github.com/wg/wrk"
        )
    return found


def wrk_version() -> str:
    """Return the version that wrk states."""
    run = subprocess.run([wrk_path(), "-v"], capture_output=True, text=True, check=False)
    words = (run.stdout + run.stderr).split()
    return words[1] if len(words) > 1 else "unknown"


def run_wrk(fleet: Fleet, url: str, load: Load) -> LoadResult:
    """Send `load` to `url` and wait for the end.

    Raises:
        BenchmarkError: wrk failed, did not end, or completed nothing.
    """
    script, body = fleet.folder / "post.lua", body_file(fleet, load.size_bytes, load.body)
    if not script.exists():
        script.write_text(_SCRIPT)
    command = [wrk_path(), "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency"]
    command += ["--timeout", f"{_TIMEOUT_S}s"]
    command += ["-s", str(script), url + load.path]
    output = _finished(fleet, command, {"BENCH_BODY": str(body)}, limit_s=load.seconds + 30)
    result = parse_result(output)
    if result.requests == 0:
        raise BenchmarkError(f"no request to {url} was answered:\n{output}")
    return result


def _finished(fleet: Fleet, command: list[str], env: dict[str, str], *, limit_s: float) -> str:
    """Run a command beside the proxies and return its output."""
    try:
        run = subprocess.run(
            fleet.pinned(command, Place.BESIDE),
            capture_output=True,
            text=True,
            timeout=limit_s,
            env={**os.environ, **env},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"wrk did not end in {limit_s:g} s") from error
    if run.returncode != 0:
        raise BenchmarkError(f"wrk failed:\n{run.stdout}{run.stderr}")
    return run.stdout
