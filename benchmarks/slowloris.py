"""Claim: a thousand slow sockets cost other users nothing, an endless head no memory.

A crowd of sockets sends the head of a request a line a second and never ends it
(`benchmarks.programs.slow_clients`), while users send at a constant rate: their latency with and
without the crowd, in turn. The claim is of the two. A third turn tells how much of it is the proxy's:
there the crowd is at another instance, so that a small machine has the same to do, and users' own
proxy nothing of it. Then one client sends a head of 60 MB, as far as it is let: how much the worker's
resident memory grew at its peak.

Learnt: what users felt of the crowd was not its lines (20 us of the worker for each) but the look at
each connection's deadline, fifty in a row, twenty times a second. Rounds scatter by a fifth, so it
takes twenty of them to tell 5% from 10%.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks import claims, processes
from benchmarks.claims import judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import paired_ratio, rotated, size_label, spread
from benchmarks.load import PATH, LoadResult
from benchmarks.options import Options
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.peers import Mode, Setup, Target, Understudy
from benchmarks.report import Report, Table
from benchmarks.stage import Stage, open_stage

NAME = "slowloris"
SOCKETS = 1_000
_HEAD_BYTES = 60 * 10**6
_OPEN_S = 30.0
_MIB = 1 << 20


class Crowd(StrEnum):
    """Where the slow sockets are."""

    NONE = "no slow sockets"
    ELSEWHERE = f"{SOCKETS:,} at another instance"
    HERE = f"{SOCKETS:,} beside the users"


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: users' latency in milliseconds, with the crowd where it was.

    Attributes:
        lines: what the crowd sent in the last second.
    """

    crowd: Crowd
    closed: int
    lines: int
    round: int
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class EndlessHead:
    """What became of the endless head: bytes sent, the answer's first line, and what it cost."""

    sent_bytes: int
    answer: str
    growth_bytes: int


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure without the crowd, with it and with it elsewhere, in turn, and then the endless head."""
    size, seconds = min(options.sizes), options.seconds + 1
    samples: list[Sample] = []
    with open_stage(
        folder,
        [Understudy()],
        [Mode.FORWARD],
        is_pinned=options.is_pinned,
        setups=(Setup(label="elsewhere"), Setup()),
    ) as stage:
        elsewhere, target = stage.targets[-2:]
        load = PacedLoad(size, seconds)
        load.for_seconds(1).send(stage.fleet, target.url)
        for turn in range(options.rounds):
            for crowd in rotated(tuple(Crowd), turn):
                say(f"round {turn + 1} of {options.rounds}: {crowd}")
                victim = elsewhere if crowd is Crowd.ELSEWHERE else target
                with _crowd(stage, victim, crowd) as slow:
                    result = load.send(stage.fleet, target.url)
                    samples.append(_sample(crowd, turn, slow, result))
        say("an endless head")
        endless = _endless_head(target)
    p99 = {crowd: [one.p99_ms for one in samples if one.crowd is crowd] for crowd in Crowd}
    with_crowd = paired_ratio(p99[Crowd.HERE], p99[Crowd.NONE])
    own_part = paired_ratio(p99[Crowd.HERE], p99[Crowd.ELSEWHERE])
    return Report(
        name=NAME,
        conditions=(
            f"users: {RATE_PER_S:,} requests/s of {size_label(size)} in an open loop",
            (
                f"{options.rounds} rounds of {seconds} s without {SOCKETS:,} slow sockets, with them, and "
                "with them at another instance"
            ),
            "p99: of each second, the median of those of a round",
            "lines: what the crowd sent in a second",
            "closed: slow sockets that the proxy closed, and that were opened again",
            (
                f"p99 with them here over with them elsewhere: {own_part.median:.2f} "
                f"({own_part.low:.2f} to {own_part.high:.2f})"
            ),
        ),
        tables=(_table(samples), _head_table(endless)),
        samples=(*samples, endless),
        summary={
            "p99_with_over_without": with_crowd,
            "p99_here_over_elsewhere": own_part,
            "endless_head": endless,
        },
        claims=(
            judged(
                f"other users' p99 with {SOCKETS:,} slow sockets over without",
                claims.SLOW_SOCKETS_P99,
                with_crowd,
            ),
            judged(
                "worker's memory growth by an endless head",
                claims.ENDLESS_HEAD,
                spread([endless.growth_bytes / _MIB]),
            ),
        ),
        faults=tuple(
            f"{one.crowd}, round {one.round}: users saw {one.errors}"
            for one in samples
            if one.errors
        ),
    )


@contextlib.contextmanager
def _crowd(stage: Stage, victim: Target, crowd: Crowd) -> Iterator[Dialogue | None]:
    """Keep the crowd at `victim`, where there is to be one."""
    if crowd is Crowd.NONE:
        yield None
        return
    settings = {"port": int(victim.url.rpartition(":")[2]), "path": PATH, "sockets": SOCKETS}
    with Dialogue(stage.fleet, "slow_clients", settings) as slow:
        slow.hear(limit_s=_OPEN_S)
        yield slow


def _sample(crowd: Crowd, turn: int, slow: Dialogue | None, result: LoadResult) -> Sample:
    """Return a round's figures, after the load and before the crowd goes."""
    told = slow.latest() if slow is not None else {"closed": 0, "lines": 0}
    return Sample(
        crowd=crowd,
        closed=told["closed"],
        lines=told["lines"],
        round=turn,
        p50_ms=result.quantiles_us[0.5] / 1e3,
        p99_ms=(result.steady_p99_us or result.p99_us) / 1e3,
        errors=result.errors,
    )


def _endless_head(target: Target) -> EndlessHead:
    """Send a head until it is 60 MB long or the proxy will have no more of it."""
    (worker,) = target.worker_pids
    processes.forget_peak(worker)
    before = processes.resident_bytes(worker)
    line = b"X-Endless: " + b"a" * 1000 + b"\r\n"
    block = line * 64
    sent, answer = 0, b""
    port = int(target.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with contextlib.suppress(OSError):
            client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode())
            while sent < _HEAD_BYTES:
                client.sendall(block)
                sent += len(block)
        with contextlib.suppress(OSError):
            answer = client.recv(1024)
    growth = max(0, processes.peak_bytes(worker) - before)
    first = answer.partition(b"\r\n")[0].decode(errors="replace") or "connection closed"
    return EndlessHead(sent, first, growth)


def _table(samples: Sequence[Sample]) -> Table:
    """Return the medians of each place of the crowd."""
    rows = []
    for crowd in Crowd:
        group = [one for one in samples if one.crowd is crowd]
        p99 = spread([one.p99_ms for one in group])
        rows.append(
            (
                str(crowd),
                f"{spread([one.p50_ms for one in group]).median:.3f}",
                f"{p99.median:.3f} ({p99.low:.3f} to {p99.high:.3f})",
                f"{spread([one.lines for one in group]).median:,.0f}",
                str(sum(one.closed for one in group)),
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    columns = ("", "users' p50 ms", "users' p99 ms", "lines/s", "closed", "errors")
    return Table("Users beside slow sockets", columns, tuple(rows))


def _head_table(endless: EndlessHead) -> Table:
    """Return what became of the endless head."""
    row = (
        f"head of up to {_HEAD_BYTES / 1e6:.0f} MB",
        f"{endless.sent_bytes / 1e6:.1f}",
        endless.answer,
        f"{endless.growth_bytes / _MIB:.2f}",
    )
    return Table("An endless head", ("", "sent MB", "answer", "worker grew MiB"), (row,))
