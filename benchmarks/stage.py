"""Upstreams and peers set up side by side, and one round of load on one of them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import processes
from benchmarks.fleet import BenchmarkError, Fleet
from benchmarks.load import KEY_HEADER, PATH, Generator, json_body
from benchmarks.origin import start_origin
from benchmarks.peers import CHAT_PEERS, PEERS, Mode, Peer, Setup, Target, Upstreams
from benchmarks.programs.serving import ANSWER
from proxy.telemetry import monotonic_s

DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Sample:
    """One round on one target; CPU in microseconds per request that reached the primary.

    The load ends with up to one request per connection under way. The proxy has worked on those
    too, so the upstream's count is the fair divisor: with wrk's, slow peers would look slower.

    Attributes:
        worker_us: CPU of the processes that carry requests; None for `direct`.
        tree_us: CPU of all its processes, work finished after the load included.
        busy: share of one core that the workers used during the round.
        memory_bytes: proportional set size of the tree after the round.
        primary_received: requests that reached the primary upstream.
        candidate_received: requests that reached the candidate: the mirrored ones.
        faults: everything that went wrong, in words; empty in a good round.
    """

    peer: str
    mode: Mode
    size_bytes: int
    connections: int
    workers: int
    round: int
    requests: int
    rate_per_s: float
    p50_us: int
    p99_us: int
    worker_us: float | None
    tree_us: float | None
    busy: float | None
    memory_bytes: int | None
    primary_received: int
    candidate_received: int
    faults: tuple[str, ...]
    quantiles_us: dict[float, float] = field(default_factory=dict)
    late_p99_us: float | None = None
    generator_busy: float | None = None


@dataclass(slots=True)
class Stage:
    """Running upstreams and targets.

    Attributes:
        mirrored: per recording target, how many requests reached the candidate in all.
    """

    fleet: Fleet
    upstreams: Upstreams
    targets: list[Target]
    mirrored: dict[str, int] = field(default_factory=dict)

    def measure(self, target: Target, load: Generator, turn: int) -> Sample:
        """Run one round on one target, wait until its work is finished, and read the counters."""
        primary, candidate = self.upstreams.primary, self.upstreams.candidate
        received = (primary.received(), candidate.received())
        before = processes.usage(target.root_pid) if target.root_pid else None
        try:
            result = load.send(self.fleet, target.url)
        except BenchmarkError as error:
            self.fleet.check_all()
            raise BenchmarkError(f"{_label(target)}: {error}") from error
        cost = _cost(target, before) if before else _Cost()
        carried, copies = primary.received() - received[0], candidate.received() - received[1]
        faults = [f"{count} {kind} errors" for kind, count in result.errors.items()]
        faults += cost.faults
        faults += _mirror_faults(target.mode, result.requests, copies, load.connections)
        if target.pairs is not None:
            self.mirrored[target.url] = self.mirrored.get(target.url, 0) + copies
        return Sample(
            peer=target.peer,
            mode=target.mode,
            size_bytes=load.size_bytes,
            connections=load.connections,
            workers=target.workers,
            round=turn,
            requests=result.requests,
            rate_per_s=result.rate_per_s,
            p50_us=result.p50_us,
            p99_us=result.p99_us,
            worker_us=_per_request_us(cost.worker_ns, carried),
            tree_us=_per_request_us(cost.tree_ns, carried),
            busy=cost.worker_ns and cost.worker_ns / 1e9 / result.seconds,
            memory_bytes=cost.memory_bytes,
            primary_received=carried,
            candidate_received=copies,
            faults=tuple(faults),
            quantiles_us=result.quantiles_us,
            late_p99_us=result.late_p99_us,
            generator_busy=result.generator_busy,
        )

    def probe(self, target: Target) -> None:
        """Send one request and check the answer, and that the candidate got its copy or none.

        Raises:
            BenchmarkError: the target does not do what it is to be measured for.
        """
        before = self.upstreams.candidate.received()
        status, body = _ask(target.url)
        if (status, body) != (200, ANSWER):
            raise BenchmarkError(f"{_label(target)} answered {status} {body[:200]!r}")
        wanted = int(target.mode is Mode.MIRROR)
        give_up = monotonic_s() + 5
        while (got := self.upstreams.candidate.received() - before) < wanted:
            if monotonic_s() > give_up:
                break
            time.sleep(0.05)
        if got != wanted:
            raise BenchmarkError(f"{_label(target)} sent {got} copies of one request")
        if target.pairs is not None:
            self.mirrored[target.url] = self.mirrored.get(target.url, 0) + got


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a round cost a tree."""

    worker_ns: int | None = None
    tree_ns: int | None = None
    memory_bytes: int | None = None
    faults: tuple[str, ...] = ()


def _per_request_us(cost_ns: int | None, requests: int) -> float | None:
    """Return a cost in microseconds per request."""
    return None if cost_ns is None else cost_ns / requests / 1e3


def _cost(target: Target, before: processes.Usage) -> _Cost:
    """Wait until the tree is quiet and return what it used since `before`."""
    root = target.root_pid
    assert root is not None
    faults = [] if processes.settle(root) else ["still busy after the load"]
    used = processes.spent(before, processes.usage(root))
    if used.ended:
        faults.append(f"{len(used.ended)} processes ended")
    return _Cost(
        worker_ns=sum(used.by_pid_ns.get(pid, 0) for pid in target.worker_pids),
        tree_ns=used.total_ns,
        memory_bytes=processes.memory_bytes(root),
        faults=tuple(faults),
    )


def _mirror_faults(mode: Mode, requests: int, copies: int, connections: int) -> list[str]:
    """Return a fault when not every request was mirrored, or one was that should not be.

    The load ends with up to one request per connection under way: mirrored, but not completed.
    """
    wanted = requests if mode is Mode.MIRROR else 0
    if wanted <= copies <= wanted + (connections if wanted else 0):
        return []
    return [f"{copies} of {wanted} mirrored"]


@contextlib.contextmanager
def open_stage(
    folder: Path,
    peers: Sequence[Peer],
    modes: Sequence[Mode],
    *,
    is_pinned: bool,
    setups: Sequence[Setup] = (Setup(),),
) -> Iterator[Stage]:
    """Start both upstreams and every peer in every mode and setup; all end with the block.

    Raises:
        BenchmarkError: one of them does not start or does not do its work.
    """
    with Fleet(folder, is_pinned) as fleet:
        upstreams = Upstreams(start_origin(fleet, "primary"), start_origin(fleet, "candidate"))
        targets = [Target(DIRECT, Mode.FORWARD, f"http://127.0.0.1:{upstreams.primary.port}")]
        for setup, mode in itertools.product(setups, modes):
            started = [peer.start(fleet, mode, upstreams, setup) for peer in peers]
            targets += [replace(target, workers=setup.workers) for target in started]
        stage = Stage(fleet, upstreams, targets)
        for target in targets:
            stage.probe(target)
        yield stage


def is_slow(target: Target) -> bool:
    """Tell whether a target is of a peer that takes part once only."""
    return any(peer.is_slow and peer.name == target.peer for peer in (*PEERS, *CHAT_PEERS))


def chosen_peers(
    names: Sequence[str], *, known: Sequence[Peer] = PEERS, is_fast_only: bool = False
) -> tuple[list[Peer], list[str]]:
    """Return the peers that can run, of those named (all when none is), and notes on the others.

    Raises:
        BenchmarkError: a name is unknown.
    """
    named = {peer.name.lower() for peer in (*PEERS, *CHAT_PEERS)}
    unknown = [name for name in names if name.lower() not in named]
    if unknown:
        raise BenchmarkError(f"unknown peer {unknown[0]!r}; known: {', '.join(sorted(named))}")
    wanted = [name.lower() for name in names] or sorted(named)
    asked = [peer for peer in known if peer.name.lower() in wanted]
    asked = [peer for peer in asked if not (is_fast_only and peer.is_slow)]
    notes = [note for peer in asked if (note := peer.missing())]
    return [peer for peer in asked if peer.missing() is None], notes


def _ask(url: str) -> tuple[int, bytes]:
    """Send one small request and return status and body."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    headers = {"Content-Type": "application/json", KEY_HEADER: "user-7"}
    try:
        connection.request("POST", PATH, json_body(256), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def _label(target: Target) -> str:
    """Return a target's name for messages."""
    return f"{target.peer} ({target.mode})"
