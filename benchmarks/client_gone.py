"""Claim: when a user has left, the backend is released within 100 ms.

A user asks for a stream that begins and does not go on, or for an answer that does not come, and leaves,
by closing the connection or by resetting it, while others send 1,000 requests a second. The backend notes
when the connection of that call has ended (`benchmarks.programs.abandoned`).

A reset is seen at once. A close is not: TCP does not tell who has left from who has only ended what they
send, so the proxy waits for 50 ms and then asks with bytes that nobody minds
(`proxy.dataplane.half_closed`); what comes back is looked for every 20 ms.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from benchmarks import claims
from benchmarks.claims import judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import spread
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.load import PATH, LoadResult
from benchmarks.options import Options
from benchmarks.origin import own_origin, start_origin
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.peers import Mode, Setup, Understudy, Upstreams
from benchmarks.programs.abandoned import ENDS, SILENCE, STREAM
from benchmarks.report import Report, Table
from proxy.telemetry import monotonic_s

NAME = "client-gone"
#: Users who leave in each way, in each round.
_LEAVERS = 20
#: How long one takes, generously: to ask, to leave, to be noticed.
_TURN_S = 0.25
_POLL_S = 0.002
_LIMIT_S = 10.0
#: struct linger: on, for 0 s.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Leaving(Enum):
    """When a user leaves, and how: what the backend does, and whether the connection is reset."""

    CLOSED_STREAM = ("closes, in a stream", STREAM, False)
    RESET_STREAM = ("resets, in a stream", STREAM, True)
    CLOSED_WAITING = ("closes, before the answer", SILENCE, False)
    RESET_WAITING = ("resets, before the answer", SILENCE, True)

    def __init__(self, label: str, query: str, is_reset: bool) -> None:  # noqa: FBT001 - an Enum's
        self.label, self.query, self.is_reset = label, query, is_reset


@dataclass(frozen=True, slots=True)
class Sample:
    """One user who left: milliseconds until the backend's connection had ended."""

    leaving: str
    round: int
    released_ms: float


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Let users leave in each way, in turn, under one long load."""
    leavers = (2 if options.is_quick else _LEAVERS) * options.rounds
    load = PacedLoad(min(options.sizes), math.ceil(leavers * len(Leaving) * _TURN_S) + 2)
    samples: list[Sample] = []
    with Fleet(folder, options.is_pinned) as fleet, ThreadPoolExecutor(1) as pool:
        backend = Dialogue(fleet, "abandoned", {"port": free_port()})
        port = backend.settings["port"]
        fleet.wait_for_port(backend.child, port)
        upstreams = Upstreams(own_origin(port, "abandoned"), start_origin(fleet, "candidate"))
        target = Understudy().start(fleet, Mode.MIRROR, upstreams, Setup())
        proxy = int(target.url.rpartition(":")[2])
        under_way = pool.submit(load.send, fleet, target.url)
        for turn in range(leavers):
            say(f"{turn + 1} of {leavers}")
            samples += [Sample(one.label, turn, released_ms(proxy, port, one)) for one in Leaving]
        is_loaded = not under_way.done()
        result = under_way.result()
    return Report(
        name=NAME,
        conditions=(
            f"{RATE_PER_S:,} requests/s beside, one worker, one candidate mirrored",
            f"{leavers} users who leave in each way, in turn; median (least to greatest)",
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={one.label: spread(_times(samples, one)) for one in Leaving},
        claims=(
            judged(
                "client gone to the backend released, worst of all",
                claims.RELEASE,
                spread([max(one.released_ms for one in samples)]),
            ),
        ),
        faults=tuple(_faults(result, is_loaded=is_loaded)),
    )


def released_ms(proxy: int, backend: int, leaving: Leaving) -> float:
    """Ask, leave when the backend has the request, and return how long it kept its connection after that.

    Args:
        proxy: port that is asked.
        backend: port of the backend behind it.
        leaving: when, and how.

    Returns:
        Milliseconds.

    Raises:
        BenchmarkError: the request does not reach the backend, or its connection does not end.
    """
    before = _ends(backend)
    with socket.create_connection(("127.0.0.1", proxy), timeout=_LIMIT_S) as user:
        user.sendall(f"GET {PATH}?{leaving.query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        if leaving.query == STREAM:
            heard = b""
            while b"data:" not in heard:
                heard += user.recv(4096) or _none_came(heard)
        _wait(backend, "asked", before["asked"] + 1)
        if leaving.is_reset:
            user.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        left_ns = time.monotonic_ns()
    count = len(before["times_ns"])
    ended_ns: int = _wait(backend, "times_ns", count + 1)["times_ns"][count]
    return (ended_ns - left_ns) / 1e6


def _none_came(heard: bytes) -> bytes:
    raise BenchmarkError(f"no stream came: {heard[:200]!r}")


def _ends(backend: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{backend}{ENDS}", timeout=_LIMIT_S) as answer:
        said: dict[str, Any] = json.loads(answer.read())
    return said


def _wait(backend: int, what: str, wanted: int) -> dict[str, Any]:
    """Return what the backend says once there are so many of `what`."""
    give_up = monotonic_s() + _LIMIT_S
    while monotonic_s() < give_up:
        said = _ends(backend)
        if (said[what] if what == "asked" else len(said[what])) >= wanted:
            return said
        time.sleep(_POLL_S)
    raise BenchmarkError(f"the backend says nothing of {wanted} {what}")


def _times(samples: Sequence[Sample], leaving: Leaving) -> list[float]:
    return [one.released_ms for one in samples if one.leaving == leaving.label]


def _table(samples: Sequence[Sample]) -> Table:
    """Return the times of each way to leave."""
    rows = []
    for leaving in Leaving:
        found = spread(_times(samples, leaving))
        rows.append((leaving.label, f"{found.median:.1f} ({found.low:.1f} to {found.high:.1f})"))
    return Table("Until the backend was released", ("the user", "ms"), tuple(rows))


def _faults(result: LoadResult, *, is_loaded: bool) -> list[str]:
    """Return errors of the other users, and a load that was over too soon."""
    found = [f"other users saw {count} {kind} errors" for kind, count in result.errors.items()]
    return found if is_loaded else [*found, "the load ended before the last user had left"]
