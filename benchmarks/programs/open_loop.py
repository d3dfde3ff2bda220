"""Requests at a constant rate, free of coordinated omission: an open loop.

When each request is to be sent is planned beforehand, one every 1/rate seconds, and nothing that
the server does moves the plan. Latency is counted from the *planned* time. A request that finds no
idle connection waits for one, and its wait counts; one that is never answered counts with the time
until the generator gave up.

The generator's own error has two parts, and both are in what it prints. It sends late: by how much
is measured for every request that had an idle connection waiting (`late`). It sees answers late:
that is the same for every server, so a run against the upstream itself (`direct`) in the same
round shows both parts together, and what a proxy adds is the difference to it. It takes little:
`cpu_ns` over `seconds` is its share of a core.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httptools
import numpy as np
import uvloop

from benchmarks.programs.ticker import Ticker

#: Shares of requests whose latency is reported.
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
_LEAD_NS = 50_000_000
_GIVE_UP_S = 5.0


@dataclass(slots=True)
class Plan:
    """What is sent, and how it went so far.

    Attributes:
        request: a whole request as bytes.
        connections: all that are open.
        next: number of the next request.
        idle: connections without a request under way.
        waiting: planned times of requests that wait for a connection, oldest first.
        latencies_ns: of answered requests.
        late_ns: how late requests were sent that had an idle connection.
    """

    request: bytes
    port: int
    count: int
    interval_ns: int
    start_ns: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[Connection] = field(default_factory=set)
    next: int = 0
    idle: deque[Connection] = field(default_factory=deque)
    waiting: deque[int] = field(default_factory=deque)
    latencies_ns: list[int] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def send_due(self) -> None:
        """Send every request whose planned time has come."""
        now_ns = time.monotonic_ns()
        while self.next < self.count:
            planned_ns = self.start_ns + self.next * self.interval_ns
            if planned_ns > now_ns:
                return
            self.next += 1
            if self.idle:
                self.late_ns.append(now_ns - planned_ns)
                self.idle.popleft().send(planned_ns)
            else:
                self.waiting.append(planned_ns)

    def use(self, connection: Connection) -> None:
        """Give an idle connection the request that has waited longest, or keep it."""
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)

    def ended(self, latency_ns: int, error: str = "") -> None:
        """Count a request that has ended, well or not."""
        self.latencies_ns.append(latency_ns)
        if error:
            self.count_error(error)
        if len(self.latencies_ns) == self.count:
            self.done.set()

    def count_error(self, kind: str) -> None:
        """Count an error."""
        self.errors[kind] = self.errors.get(kind, 0) + 1


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time."""

    def __init__(self, plan: Plan) -> None:
        self.planned_ns = 0
        self._plan = plan
        self._received_ns = 0
        self._transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a request."""
        # A cast, because uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._plan.connections.add(self)
        self._plan.use(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Count the request that was under way as an error, and open another connection."""
        self._plan.connections.discard(self)
        if self in self._plan.idle:
            self._plan.idle.remove(self)
        if self.planned_ns:
            self._plan.ended(time.monotonic_ns() - self.planned_ns, "connection lost")
        if not self._plan.done.is_set():
            _spawn(_connect(self._plan))

    def send(self, planned_ns: int) -> None:
        """Send the request that was planned for that time."""
        self.planned_ns = planned_ns
        self._transport.write(self._plan.request)

    def abort(self) -> None:
        """Close it; whatever was under way is not counted."""
        self.planned_ns = 0
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse; the answer is there when its last byte is."""
        self._received_ns = time.monotonic_ns()
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count the answer, and take the next request."""
        latency_ns, self.planned_ns = self._received_ns - self.planned_ns, 0
        status = self._parser.get_status_code()
        self._plan.ended(latency_ns, f"status {status}" if status >= 400 else "")
        self._plan.use(self)


_tasks: set[asyncio.Task[None]] = set()


def _spawn(coroutine: Any) -> None:
    task = asyncio.get_running_loop().create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _connect(plan: Plan) -> None:
    """Open one connection; a refusal is counted and not tried again."""
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: Connection(plan), "127.0.0.1", plan.port)
    except OSError:
        plan.count_error("connect")


async def _run(settings: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Send everything and return the result."""
    rate, port = float(settings["rate_per_s"]), int(settings["port"])
    head = (
        f"POST {settings['path']} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\n{settings['key_header']}: user-7\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    count = max(1, round(rate * settings["seconds"]))
    plan = Plan(head.encode() + body, port, count, round(1e9 / rate))
    for _ in range(settings["connections"]):
        await _connect(plan)
    # A collection in the middle would be the generator's error.
    gc.collect()
    gc.disable()
    cpu_ns = time.process_time_ns()
    plan.start_ns = time.monotonic_ns() + _LEAD_NS
    ticker = Ticker(plan.start_ns, plan.interval_ns, plan.send_due)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(
            plan.done.wait(), settings["seconds"] + settings.get("give_up_s", _GIVE_UP_S)
        )
    ended_ns = time.monotonic_ns()
    cpu_ns = time.process_time_ns() - cpu_ns
    ticker.stop()
    plan.done.set()
    under_way = [connection.planned_ns for connection in plan.connections if connection.planned_ns]
    for connection in plan.connections:
        connection.abort()
    return _result(plan, [*plan.waiting, *under_way], ended_ns, cpu_ns)


def _result(plan: Plan, unanswered: list[int], ended_ns: int, cpu_ns: int) -> dict[str, Any]:
    """Return what is printed; times in nanoseconds."""
    answered = len(plan.latencies_ns)
    if unanswered:
        plan.errors["no answer"] = len(unanswered)
    latencies = np.array([*plan.latencies_ns, *(ended_ns - planned for planned in unanswered)])
    late = np.array(plan.late_ns or [0])
    return {
        "requests": answered,
        "planned": plan.count,
        "seconds": (ended_ns - plan.start_ns) / 1e9,
        "latency_ns": {str(q): float(np.quantile(latencies, q)) for q in QUANTILES},
        "p99_of_seconds_ns": p99_of_seconds(plan.latencies_ns, round(1e9 / plan.interval_ns)),
        "max_ns": int(latencies.max()),
        "late_ns": {str(q): float(np.quantile(late, q)) for q in QUANTILES},
        "errors": plan.errors,
        "cpu_ns": cpu_ns,
    }


def p99_of_seconds(latencies_ns: list[int], rate_per_s: int) -> list[float]:
    """Return the 99th percentile of each whole second's answers, in the order they came."""
    whole = len(latencies_ns) // rate_per_s * rate_per_s
    seconds = np.array(latencies_ns[:whole]).reshape(-1, rate_per_s)
    return [float(value) for value in np.quantile(seconds, 0.99, axis=1)]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    content = Path(given["body"]).read_bytes()
    print(json.dumps(uvloop.run(_run(given, content))), flush=True)
