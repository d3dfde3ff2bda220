"""Load at a constant rate from a generator of our own (`benchmarks.programs.open_loop`).

It is an open loop: latency is counted from the time at which a request was planned to be sent, so
that a server which stalls cannot keep the generator from noticing (coordinated omission).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.dialogue import ask
from benchmarks.fleet import BenchmarkError, Fleet
from benchmarks.load import KEY_HEADER, PATH, LoadResult, body_file

RATE_PER_S = 1_000
#: Many more than are busy at a time, so that hardly a request waits for one.
CONNECTIONS = 64
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class PacedLoad:
    """Requests at a constant rate.

    Attributes:
        size_bytes: length of the JSON body.
        seconds: how long it lasts.
        connections: keep-alive connections; each carries one request at a time.
    """

    size_bytes: int
    seconds: float
    rate_per_s: float = RATE_PER_S
    connections: int = CONNECTIONS
    path: str = PATH

    def for_seconds(self, seconds: int) -> PacedLoad:
        """Return the same load of another length."""
        return replace(self, seconds=seconds)

    def send(self, fleet: Fleet, url: str) -> LoadResult:
        """Send it from a process of its own."""
        return parse_paced(self.ask(fleet, url))

    def ask(self, fleet: Fleet, url: str) -> dict[str, Any]:
        """Send it, and return all that the generator says, second by second.

        Raises:
            BenchmarkError: no request was answered.
        """
        settings = {
            "port": urlsplit(url).port,
            "path": self.path,
            "body": str(body_file(fleet, self.size_bytes)),
            "key_header": KEY_HEADER,
            "rate_per_s": self.rate_per_s,
            "seconds": self.seconds,
            "connections": self.connections,
        }
        said = ask(fleet, "open_loop", settings, limit_s=self.seconds + _START_S)
        if said["requests"] == 0:
            raise BenchmarkError(f"no request to {url} was answered: {said}")
        return said


def parse_paced(said: dict[str, Any]) -> LoadResult:
    """Return what the open loop printed, in microseconds."""
    quantiles_us = {float(share): ns / 1e3 for share, ns in said["latency_ns"].items()}
    return LoadResult(
        requests=said["requests"],
        seconds=said["seconds"],
        p50_us=round(quantiles_us[0.5]),
        p99_us=round(quantiles_us[0.99]),
        max_us=round(said["max_ns"] / 1e3),
        errors=said["errors"],
        quantiles_us=quantiles_us,
        steady_p99_us=median(said["p99_of_seconds_ns"]) / 1e3
        if said["p99_of_seconds_ns"]
        else None,
        late_p99_us=said["late_ns"]["0.99"] / 1e3,
        generator_busy=said["cpu_ns"] / 1e9 / said["seconds"],
    )
