"""Claim: a kill or a weight given to one replica reaches every worker of all within a second.

Three replicas of two workers each, with one candidate that all mirror to, on a real broker, each under a
constant load. Each order goes to another replica in turns. From the moment at which it is sent: until
the control page of the replica that was told says so, and until the last page does (workers read the
page on every request); and, of kills, until the last copy of any replica reached the candidate's
socket (`benchmarks.programs.clocked`).

The broker comes from `KAFKA_BOOTSTRAP_SERVERS`, or is started here where java, mvn and the test extra
are; without one nothing is measured.
"""

from __future__ import annotations

import importlib
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import claims
from benchmarks.claims import judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import spread
from benchmarks.fleet import Fleet, free_port
from benchmarks.kafka import kafka_address
from benchmarks.load import PATH_PREFIX, LoadResult
from benchmarks.options import Options
from benchmarks.origin import start_origin
from benchmarks.paced import PacedLoad
from benchmarks.programs.clocked import CLOCK
from benchmarks.report import Report, Table

NAME = "replicas"
ORDERS = ("kill", "revive", "weight")
_REPLICAS = 3
_RATE_PER_S = 100.0
_CONNECTIONS = 8
#: Rounds of orders for each round of other benchmarks.
_TURNS = 25
#: How long a round takes, generously.
_TURN_S = 3.0
_QUIET_S = 0.1
_WEIGHT = "/api/v1/routes/m/candidates/v2/weight"


@dataclass(frozen=True, slots=True)
class Sample:
    """One order, in milliseconds from its sending.

    Attributes:
        here_ms: until the page of the replica that was told.
        there_ms: until the last page of all.
        last_copy_ms: of kills, until the last copy reached the candidate; below 0: none came after it.
    """

    order: str
    here_ms: float
    there_ms: float
    last_copy_ms: float | None = None


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Kill, revive and re-weight in turns at each replica, under load."""
    turns = options.rounds * _TURNS
    with (
        kafka_address(folder / "broker") as (bootstrap, note),
        Fleet(folder, options.is_pinned) as fleet,
    ):
        if not bootstrap:
            return Report(NAME, (note,), (), (), {})
        samples, results, is_loaded = _measure(fleet, bootstrap, turns, say)
    faults = [f"users saw {n} {kind} errors" for each in results for kind, n in each.errors.items()]
    if not is_loaded:
        faults.append("the load ended before the last order")
    return Report(
        name=NAME,
        conditions=(
            f"{_REPLICAS} replicas of 2 workers, each at {_RATE_PER_S:.0f} requests/s (open loop)",
            f"{turns} kills, revives and weights each, given to the replicas in turns",
            "one broker, on the same machine",
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={f"{order}_p99_ms": _p99(_of(samples, order, _there)) for order in ORDERS},
        claims=tuple(
            judged(f"{order}, p99, {where}", bar, spread([_p99(_of(samples, order, of))]))
            for order in ("kill", "weight")
            for where, bar, of in (
                ("on the replica that was told", claims.REPLICA_HERE, _here),
                ("on all replicas", claims.REPLICA_THERE, _there),
            )
        ),
        faults=tuple(faults),
    )


def _measure(
    fleet: Fleet, bootstrap: str, turns: int, say: Callable[[str], None]
) -> tuple[list[Sample], list[LoadResult], bool]:
    """Start everything, load it, and give the orders."""
    stage = importlib.import_module("tests.support.replica_stage")
    primary = start_origin(fleet, "primary")
    candidate = Dialogue(fleet, "clocked", {"port": free_port()})
    port = candidate.settings["port"]
    fleet.wait_for_port(candidate.child, port)
    stage.created(bootstrap, NAME)
    load = PacedLoad(1024, turns * _TURN_S, _RATE_PER_S, _CONNECTIONS)
    config = _config(primary.port, port)
    with (
        stage.replicas(bootstrap, fleet.subfolder(NAME), config, NAME) as replicas,
        ThreadPoolExecutor(_REPLICAS) as pool,
    ):
        under_way = [pool.submit(load.send, fleet, each.base_url) for each in replicas]
        time.sleep(1.0)
        samples = []
        for turn in range(turns):
            say(f"orders, {turn + 1} of {turns}")
            samples += _orders(stage, replicas, turn, f"http://127.0.0.1:{port}{CLOCK}")
        is_loaded = not any(each.done() for each in under_way)
        return samples, [each.result() for each in under_way], is_loaded


def _orders(stage: Any, replicas: Sequence[Any], turn: int, clock: str) -> list[Sample]:
    """Kill, revive and set a weight at one replica."""
    told, weight_bp = replicas[turn % len(replicas)], 100 * (1 + turn % 90)

    def is_killed(state: Any) -> bool:
        return bool(state.killed)

    def is_open(state: Any) -> bool:
        return not state.killed

    def has_weight(state: Any) -> bool:
        return bool(state.routes["m"].candidates["v2"].weight_bp == weight_bp)

    percent = weight_bp / 100
    found = []
    for order, says, words in (
        ("kill", is_killed, ("POST", "/api/v1/kill", {"reason": NAME})),
        ("revive", is_open, ("POST", "/api/v1/revive", {"reason": NAME})),
        ("weight", has_weight, ("PUT", _WEIGHT, {"percent": percent, "reason": NAME})),
    ):
        clocks = {each.state_dir: stage.PageClock(each, says) for each in replicas}
        sent_s = stage.order(told, *words)
        ended_s = {name: each.wait() for name, each in clocks.items()}
        last_copy_ms = None
        if order == "kill":
            time.sleep(_QUIET_S)
            with urllib.request.urlopen(clock, timeout=10) as answer:
                last_copy_ms = json.loads(answer.read())["last_ns"] / 1e6 - 1000 * sent_s
        here_ms = 1000 * (ended_s[told.state_dir] - sent_s)
        there_ms = 1000 * (max(ended_s.values()) - sent_s)
        found.append(Sample(order, here_ms, there_ms, last_copy_ms))
    return found


def _config(primary: int, candidate: int) -> dict[str, Any]:
    """Return a route with one candidate."""
    return {
        "backends": {
            "v1": {"endpoints": [f"http://127.0.0.1:{primary}"]},
            "v2": {"endpoints": [f"http://127.0.0.1:{candidate}"]},
        },
        "routes": [
            {
                "name": "m",
                "match": {"path_prefix": PATH_PREFIX},
                "primary": "v1",
                "candidates": [{"name": "v2", "backend": "v2", "mirror": "100%"}],
            }
        ],
        "replicas": {"group": "benchmark"},
    }


def _here(sample: Sample) -> float:
    return sample.here_ms


def _there(sample: Sample) -> float:
    return sample.there_ms


def _of(samples: Sequence[Sample], order: str, of: Callable[[Sample], float]) -> list[float]:
    return [of(one) for one in samples if one.order == order]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


def _table(samples: Sequence[Sample]) -> Table:
    rows = []
    for order in ORDERS:
        here, there = (_of(samples, order, of) for of in (_here, _there))
        copies = [
            one.last_copy_ms
            for one in samples
            if one.order == order and one.last_copy_ms is not None
        ]
        cells = [
            f"{spread(v).median:.1f}, {_p99(v):.1f}" if v else "" for v in (here, there, copies)
        ]
        rows.append((order, *cells))
    columns = (
        "p50 and p99, ms",
        "replica that was told",
        "all replicas",
        "last copy at the candidate",
    )
    return Table("From an order to its effect", columns, tuple(rows))
