"""Load from wrk: a fixed JSON POST over keep-alive connections, and what came of it.

wrk is a closed loop: each connection sends its next request when the last answer is there. Without
a pause it saturates the proxy, which is what CPU per request and throughput want; its percentiles
are then those of a saturated proxy. With a pause the load is moderate and its percentiles
are of an unloaded proxy, yet still subject to coordinated omission.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet import BenchmarkError, Fleet, Place

PATH = "/v1/models/digits/predict"
#: The key that a proxy may split by; the same in every request.
KEY_HEADER = "X-User-Id"

_SCRIPT = """\
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-User-Id"] = "user-7"
file:close()

-- Exponential pauses, so that connections do not march in step.
local pause_ms = tonumber(os.getenv("BENCH_PAUSE_MS"))
if pause_ms > 0 then
  math.randomseed(7)
  function delay() return math.floor(0.5 - pause_ms * math.log(1 - math.random())) end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    latency.max, e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk sends.

    Attributes:
        size_bytes: length of the JSON body.
        connections: keep-alive connections, from one wrk thread.
        seconds: whole seconds, as wrk takes them.
        pause_ms: mean think time of a connection between two requests; 0 saturates.
    """

    size_bytes: int
    connections: int
    seconds: int
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What wrk saw: completed requests, latency of an answer in microseconds, errors by kind."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    max_us: int
    errors: dict[str, int]

    @property
    def rate_per_s(self) -> float:
        """Completed requests per second."""
        return self.requests / self.seconds


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
    script, body = fleet.folder / "post.lua", fleet.folder / f"body-{load.size_bytes}.json"
    if not script.exists():
        script.write_text(_SCRIPT)
    if not body.exists():
        body.write_bytes(json_body(load.size_bytes))
    command = [wrk_path(), "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency"]
    command += ["-s", str(script), url + PATH]
    env = {"BENCH_BODY": str(body), "BENCH_PAUSE_MS": str(load.pause_ms)}
    output = _finished(fleet, command, env, limit_s=load.seconds + 30)
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
