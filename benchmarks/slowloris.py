"""Claim: a thousand slow sockets cost other users nothing, an endless head no memory.

A crowd of sockets sends the head of a request a line a second and never ends it
(`benchmarks.programs.slow_clients`), while users send at a constant rate: their latency with and
without the crowd, in turn. Then one client sends a head of 60 MB, as far as it is let: how much the
worker's resident memory grew at its peak.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import claims, processes
from benchmarks.claims import judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import paired_ratio, rotated, size_label, spread
from benchmarks.load import PATH
from benchmarks.options import Options
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.peers import Mode, Target, Understudy
from benchmarks.report import Report, Table
from benchmarks.stage import Stage, open_stage

NAME = "slowloris"
SOCKETS = 1_000
_HEAD_BYTES = 60 * 10**6
_OPEN_S = 30.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: users' latency in milliseconds, with so many slow sockets beside them."""

    sockets: int
    closed: int
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
    """Measure with and without the crowd, in turn, and then the endless head."""
    size, seconds = min(options.sizes), options.seconds + 1
    samples: list[Sample] = []
    with open_stage(folder, [Understudy()], [Mode.FORWARD], is_pinned=options.is_pinned) as stage:
        target = stage.targets[-1]
        load = PacedLoad(size, seconds)
        load.for_seconds(1).send(stage.fleet, target.url)
        for turn in range(options.rounds):
            for sockets in rotated((0, SOCKETS), turn):
                say(f"round {turn + 1} of {options.rounds}: {sockets} slow sockets")
                samples.append(_measure(stage, target, load, (sockets, turn)))
        say("an endless head")
        endless = _endless_head(target)
    by_sockets = [[one for one in samples if one.sockets == count] for count in (SOCKETS, 0)]
    with_crowd = paired_ratio(*([one.p99_ms for one in group] for group in by_sockets))
    return Report(
        name=NAME,
        conditions=(
            f"users: {RATE_PER_S:,} requests/s of {size_label(size)} in an open loop",
            f"{options.rounds} rounds of {seconds} s with and without {SOCKETS:,} slow sockets",
            "p99: of each second, the median of those of a round",
            "closed: slow sockets that the proxy closed, and that were opened again",
        ),
        tables=(_table(samples), _head_table(endless)),
        samples=(*samples, endless),
        summary={"p99_with_over_without": with_crowd, "endless_head": endless},
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
            f"{one.sockets} slow sockets, round {one.round}: users saw {one.errors}"
            for one in samples
            if one.errors
        ),
    )


def _measure(stage: Stage, target: Target, load: PacedLoad, plan: tuple[int, int]) -> Sample:
    """Send the users' load, beside the crowd where there is to be one."""
    sockets, turn = plan
    port = int(target.url.rpartition(":")[2])
    closed = 0
    with contextlib.ExitStack() as stack:
        crowd = None
        if sockets:
            settings = {"port": port, "path": PATH, "sockets": sockets}
            crowd = stack.enter_context(Dialogue(stage.fleet, "slow_clients", settings))
            crowd.hear(limit_s=_OPEN_S)
        result = load.send(stage.fleet, target.url)
        if crowd is not None:
            closed = int(crowd.latest()["closed"])
    return Sample(
        sockets=sockets,
        closed=closed,
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
    """Return the medians with and without the crowd."""
    rows = []
    for count in (0, SOCKETS):
        group = [one for one in samples if one.sockets == count]
        p99 = spread([one.p99_ms for one in group])
        rows.append(
            (
                f"{count:,} slow sockets",
                f"{spread([one.p50_ms for one in group]).median:.3f}",
                f"{p99.median:.3f} ({p99.low:.3f} to {p99.high:.3f})",
                str(sum(one.closed for one in group)),
                str(sum(sum(one.errors.values()) for one in group)),
            )
        )
    columns = ("", "users' p50 ms", "users' p99 ms", "closed", "errors")
    return Table("Other users beside slow sockets", columns, tuple(rows))


def _head_table(endless: EndlessHead) -> Table:
    """Return what became of the endless head."""
    row = (
        f"head of up to {_HEAD_BYTES / 1e6:.0f} MB",
        f"{endless.sent_bytes / 1e6:.1f}",
        endless.answer,
        f"{endless.growth_bytes / _MIB:.2f}",
    )
    return Table("An endless head", ("", "sent MB", "answer", "worker grew MiB"), (row,))
