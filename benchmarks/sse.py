"""Claim: a thousand open streams of server-sent events pass with little delay, for Envoy's CPU.

Every stream brings 20 numbered and dated events a second, through each proxy with the mirror off
and on (the candidate's streams are read too), and direct. Server, candidate and reader are
programs of our own (`benchmarks.programs.events`, `event_reader`), each on one process. Each round of
each proxy has an instance of its own, ended after it: with the idle ones beside it a worker waited 18%
of the time for a core, without them 8%, and the p99 of gaps was 6 ms longer.

The proxies have the first core, and the programs the others, so that what is measured is the proxy
and not who of five processes gets one of two cores: `waited`, how long the proxy's worker was ready
and had no core, is 2% then, and 7% to 18% where they share them (`--no-pin`); with the mirror the
gaps of one hour were 3.3 ms longer, and 17 ms. Short time slices for the worker (sched_setattr,
which Linux allows everybody since 6.12) changed neither. A proxy that is late reads several events at
once, and then takes less for each: compare CPU at equal `waited`.

A p99 of gaps is set by whatever stops a core once a second. On the machine of the README's figures a
loop that only looks at the clock, alone on an idle core, stands still for 4 to 6 ms every 1.05 s. A
proxy that uses the share u of its core needs 1/(1 - u) times as long to catch up, and is late for one
event in a hundred at u = 0.5, for two and a half at 0.8: so less CPU per event is also fewer late ones.

What profiles of the worker (perf, mirror on, compiled) say of an event's time:

- Two thirds are the kernel's. A third of all is the write and, on the loopback, its way into the
  reader's socket; 15% are the acknowledgements that Linux sends when a small segment has been read.
  TCP_QUICKACK=0 would put those off by 40 ms. It is left on: a backend that has not turned Nagle's
  algorithm off would hold the next event back for them.
- Much of the rest is waiting for memory: of a thousand streams none is in a cache when its next
  event comes. What an event touches therefore stands side by side (`proxy.dataplane.answer`), and
  gaps are counted, and memory is asked for, several events at a time.
- An event is written as one piece: uvloop (0.23) writes at once, and one piece with write(2) in
  place of writev(2), which saves about 4%. Reading with a `BufferedProtocol` would take two calls of
  Python where `data_received` takes one, to save an allocation of a hundred bytes.
- No timer is armed per event, and the collector does not run while streams are open (gc.callbacks).
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import claims, processes
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import Spread, paired_difference, paired_ratio, rotated, spread
from benchmarks.fleet import Fleet, free_port
from benchmarks.options import Options
from benchmarks.origin import own_origin
from benchmarks.peers import Mode, Peer, Setup, Target, Upstreams
from benchmarks.programs.events import END
from benchmarks.report import Report, Table
from benchmarks.stage import DIRECT, chosen_peers
from benchmarks.tables import OURS

NAME = "sse"
RATE_PER_S = 20
PATH = "/v1/chat/stream"
_PREFIX = "/v1/chat"
_PEERS = ("Understudy", "Envoy")
_ROUNDS = 5
_FULL_S, _QUICK_S = 6, 3
#: All streams are opened before anything is measured.
_OPEN_S = 90.0
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One round on one target.

    Attributes:
        cpu_us: of the proxy's tree, per event that the reader got.
        worker_us: of its workers alone.
        busy: share of a core, by who took it.
        waited: share of the time in which the workers were ready and had no core.
        problems: cut streams, missing and reordered events.
        ends: how the cut streams began and ended, and how many did.
    """

    target: str
    round: int
    events: int
    planned: int
    gap_p99_ms: float
    delay_p50_ms: float
    delay_p99_ms: float
    worker_us: float | None
    cpu_us: float | None
    busy: dict[str, float]
    waited: float
    problems: dict[str, int]
    ends: dict[str, int]


@dataclass(frozen=True, slots=True)
class Servers:
    """The two servers of events, by process id, and where they are."""

    primary: int
    candidate: int
    urls: tuple[str, ...]


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure every target in turn."""
    peers, _ = chosen_peers(options.peers, is_fast_only=True)
    seconds = _QUICK_S if options.is_quick else _FULL_S
    rounds = min(options.rounds, _ROUNDS)
    samples: list[Sample] = []
    is_pinned = not options.is_shared
    with Fleet(folder, is_pinned) as fleet:
        started = [
            Dialogue(fleet, "events", {"port": free_port(), "rate_per_s": RATE_PER_S})
            for _ in range(2)
        ]
        primary, candidate = (own_origin(one.settings["port"], "events") for one in started)
        for one in started:
            fleet.wait_for_port(one.child, one.settings["port"])
        urls = tuple(f"http://127.0.0.1:{one.settings['port']}" for one in started)
        servers = Servers(started[0].child.pid, started[1].child.pid, urls)
        upstreams = Upstreams(primary, candidate)
        cases: list[tuple[Peer | None, Mode]] = [(None, Mode.FORWARD)]
        cases += [(peer, mode) for mode in Mode for peer in peers if peer.name in _PEERS]
        for turn in range(rounds):
            for peer, mode in rotated(cases, turn):
                target = _start(fleet, peer, mode, upstreams, turn)
                say(f"round {turn + 1} of {rounds}: {name_of(target)}")
                samples.append(_measure(fleet, target, servers, (options.streams, seconds, turn)))
                if target.root_pid is not None:
                    fleet.end_tree(target.root_pid)
    return Report(
        name=NAME,
        conditions=(
            f"{options.streams:,} streams of {RATE_PER_S} events/s each, one worker per proxy",
            f"{rounds} rounds of {seconds} s, all in turn in each, one proxy at a time; medians",
            *(["the proxies on the first core, servers and reader on the others"] * is_pinned),
            "delay: from the server's write to the reader; gap: between events of a stream",
            "server (of the primary), proxy, reader: shares of a core that they took",
            "waited: share of the time in which the proxy's worker was ready and had no core",
            "problems: streams cut/events missing/events out of order",
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={name: _summary(samples, name) for name in _names(samples)},
        claims=tuple(_claims(samples)),
        charts=(_chart(samples),),
        faults=tuple(_faults(samples)),
    )


def _start(fleet: Fleet, peer: Peer | None, mode: Mode, upstreams: Upstreams, turn: int) -> Target:
    """Start an instance for one round; without a peer, the way is direct."""
    if peer is None:
        return Target(DIRECT, mode, f"http://127.0.0.1:{upstreams.primary.port}")
    setup = Setup(
        label=str(turn),
        path_prefix=_PREFIX,
        protocol="openai",
        timeout_s=_TIMEOUT_S,
        max_mirrors=4096,
    )
    return peer.start(fleet, mode, upstreams, setup)


def name_of(target: Target) -> str:
    """Return what tables call a target."""
    return DIRECT if target.peer == DIRECT else f"{target.peer}, {target.mode}"


def _measure(fleet: Fleet, target: Target, servers: Servers, plan: tuple[int, int, int]) -> Sample:
    """Open the streams and read them for a while; CPU is that of the measured time alone."""
    streams, seconds, turn = plan
    port = int(target.url.rpartition(":")[2])
    settings = {"port": port, "path": PATH, "streams": streams, "seconds": seconds}
    with Dialogue(fleet, "event_reader", settings) as reader:
        reader.hear(limit_s=_OPEN_S)
        before = _cpu(target, servers)
        reader.hear(limit_s=seconds + 10)
        after = _cpu(target, servers)
        said = reader.hear(limit_s=60)
    for url in servers.urls:
        urllib.request.urlopen(url + END, timeout=10).close()
    if target.root_pid:
        processes.settle(target.root_pid)
    used = {who: after[who] - before[who] for who in before} | {"reader": said["cpu_ns"]}
    return _sample(name_of(target), turn, said, used, round(streams * RATE_PER_S * said["seconds"]))


def _cpu(target: Target, servers: Servers) -> dict[str, int]:
    """Return what everybody has used of the processor so far."""
    used = {
        "server": processes.cpu_ns(servers.primary),
        "candidate": processes.cpu_ns(servers.candidate),
    }
    if target.root_pid:
        usage = processes.usage(target.root_pid)
        used["tree"] = sum(usage.own_ns.values())
        used["worker"] = sum(usage.own_ns[pid] for pid in target.worker_pids)
        used["waited"] = sum(processes.waited_ns(pid) for pid in target.worker_pids)
    return used


def _sample(
    name: str, turn: int, said: dict[str, Any], used: dict[str, int], planned: int
) -> Sample:
    events = max(1, said["events"])
    waited_ns = used.pop("waited", 0)
    gap, delay = said["gap_ns"], said["delay_ns"]
    return Sample(
        target=name,
        round=turn,
        events=said["events"],
        planned=planned,
        gap_p99_ms=gap.get("0.99", 0) / 1e6,
        delay_p50_ms=delay.get("0.5", 0) / 1e6,
        delay_p99_ms=delay.get("0.99", 0) / 1e6,
        worker_us=used["worker"] / events / 1e3 if "worker" in used else None,
        cpu_us=used["tree"] / events / 1e3 if "tree" in used else None,
        busy={who: ns / 1e9 / said["seconds"] for who, ns in used.items()},
        waited=waited_ns / 1e9 / said["seconds"],
        problems={kind: said[kind] for kind in ("cut", "missing", "reordered")},
        ends=said["ends"],
    )


def _names(samples: Sequence[Sample]) -> list[str]:
    modes = [f"{peer}, {mode}" for mode in Mode for peer in _PEERS]
    found = {one.target for one in samples}
    return [name for name in (DIRECT, *modes) if name in found]


def _of(samples: Sequence[Sample], name: str) -> list[Sample]:
    return sorted((s for s in samples if s.target == name), key=lambda one: one.round)


def _added(samples: Sequence[Sample], name: str, of: Callable[[Sample], float]) -> Spread | None:
    """Return what a target adds to direct, round by round."""
    ours, direct = ([of(one) for one in _of(samples, which)] for which in (name, DIRECT))
    return paired_difference(ours, direct) if ours and direct else None


def _table(samples: Sequence[Sample]) -> Table:
    """Return the medians of every target."""
    rows = []
    for name in _names(samples):
        group = _of(samples, name)
        gap = _added(samples, name, lambda one: one.gap_p99_ms)
        cpu = [one.cpu_us for one in group if one.cpu_us is not None]
        worker = [one.worker_us for one in group if one.worker_us is not None]
        problems = [sum(one.problems[kind] for one in group) for kind in group[0].problems]
        rows.append(
            (
                name,
                f"{spread([one.events / one.planned for one in group]).median:.1%}",
                f"{spread([one.delay_p50_ms for one in group]).median:.2f}",
                f"{spread([one.delay_p99_ms for one in group]).median:.2f}",
                f"{spread([one.gap_p99_ms for one in group]).median:.2f}",
                f"{gap.median:+.2f}" if gap else "",
                f"{spread(worker).median:.1f}" if worker else "",
                f"{spread(cpu).median:.1f}" if cpu else "",
                *_busy(group),
                f"{spread([one.waited for one in group]).median:.0%}",
                "/".join(map(str, problems)),
            )
        )
    columns = (
        "", "of plan", "delay p50 ms", "p99 ms", "gap p99 ms", "less direct", "worker µs/event",
        "tree", "server", "proxy", "reader", "waited", "problems",
    )  # fmt: skip
    return Table("Events as readers see them", columns, tuple(rows))


def _busy(group: Sequence[Sample]) -> list[str]:
    """Return the shares of a core that the programs took."""
    shares = [
        spread([one.busy.get(who, 0.0) for one in group]).median
        for who in ("server", "tree", "reader")
    ]
    return [f"{share:.0%}" for share in shares]


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about gaps, CPU and order."""
    found = []
    for mode in Mode:
        ours, theirs = (_of(samples, f"{peer}, {mode}") for peer in _PEERS)
        gap = _added(samples, f"{OURS}, {mode}", lambda one: one.gap_p99_ms)
        found.append(judged(f"inter-event p99 added to direct, {mode}", claims.EVENT_GAP_P99, gap))
        ratio = None
        if ours and theirs:
            ratio = paired_ratio(*([one.worker_us or 0.0 for one in g] for g in (ours, theirs)))
        found.append(judged(f"worker CPU per event over Envoy's, {mode}", claims.EVENT_CPU, ratio))
    mine = [one for one in samples if one.target.startswith(OURS)]
    lost = spread([float(sum(sum(one.problems.values()) for one in mine))]) if mine else None
    return [
        *found,
        judged("streams cut, events missing or out of order", claims.NOTHING_LOST, lost),
    ]


def _faults(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{one.target}, round {one.round}: {one.problems} {one.ends or ''}".rstrip()
        for one in samples
        if any(one.problems.values())
    ]


def _summary(samples: Sequence[Sample], name: str) -> dict[str, Any]:
    group = _of(samples, name)
    return {
        "gap_p99_ms": spread([one.gap_p99_ms for one in group]),
        "delay_p99_ms": spread([one.delay_p99_ms for one in group]),
    }


def _chart(samples: Sequence[Sample]) -> Chart:
    """Return CPU per event by target."""
    parts: tuple[tuple[str, Callable[[Sample], float | None]], ...] = (
        ("worker", lambda one: one.worker_us),
        ("whole tree", lambda one: one.cpu_us),
    )
    names = [name for name in _names(samples) if name != DIRECT]
    series = []
    for label, of in parts:
        points = [(name, spread([of(one) or 0.0 for one in _of(samples, name)])) for name in names]
        series.append(Series(label, tuple(points)))
    return Chart(
        name=NAME,
        title="CPU per server-sent event",
        x_label="proxy",
        y_label="CPU µs per event",
        kind=Kind.BARS,
        series=tuple(series),
    )
