"""Chance clients, chance backends and an operator who changes his mind: the books must balance.

`UNDERSTUDY_CHAOS_S=300` lets it run longer, `UNDERSTUDY_CHAOS_SEED=7` begins with that seed; each
round has the next one, and a failure names its own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import (
    Breaker,
    Config,
    Ejection,
    Endpoint,
    HealthCheck,
    Protocol,
    Rewrite,
    Split,
    SplitKind,
)
from proxy.state.control_page import ControlState, Part
from proxy.state.kill import ALL_PARTS, Scope, kill, revive, set_weight
from proxy.state.stats_page import Lost
from proxy.telemetry import monotonic_s
from tests.support.chaos_backend import chaos_backend, expected_answer
from tests.support.chaos_clients import ChaosClients
from tests.support.dataplane import Options, Plane, dataplane, until
from tests.support.ledgers import check_ledger

CHAOS_S = float(os.environ.get("UNDERSTUDY_CHAOS_S", "12"))
ROUND_S = 3.0
CANDIDATES = ("v2", "v3")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(CHAOS_S * 2 + 300)]


def _options(chance: random.Random, second_port: int) -> Options:
    """Return a plane on which everything is on; some of it by chance."""
    split = chance.choice(
        [Split(SplitKind.HEADER, "x-user-id"), Split(SplitKind.JSON, "n")],
    )

    def adapt(config: Config) -> Config:
        backends = {name: replace(b, idle_timeout_s=0.5) for name, b in config.backends.items()}
        backends["primary"] = replace(
            backends["primary"],
            endpoints=(*backends["primary"].endpoints, Endpoint("127.0.0.1", second_port)),
            ejection=Ejection(failures=3, first_s=0.2, longest_s=0.5, slow_start_s=0.2),
            health=HealthCheck("/health", 0.1, 0.08, 1, 3),
        )
        route = config.routes[0]
        v2, v3 = route.candidates
        v2 = replace(v2, rewrite=Rewrite(model="m2"), breaker=Breaker(3, 0.1, 0.4, 1))
        v3 = replace(v3, mirror_rate=100.0, timeout_s=0.3)
        return replace(config, backends=backends, routes=(replace(route, candidates=(v2, v3)),))

    return Options(
        weight_bp={"v2": 1500, "v3": 1500},
        replicate_bp=1000,
        split=split,
        protocol=Protocol.OPENAI,
        timeout_s=0.8,
        max_in_flight=16,
        primary_in_flight=chance.choice([10, 1024]),
        limits={
            "memory_bytes": chance.choice([2**19, 2**26]),
            "mirror_body_bytes": 100_000,
            "mirror_response_bytes": 200_000,
            "record_body_bytes": chance.choice([1000, 50_000]),
            "connections": chance.choice([20, 8192]),
            "body_timeout_s": 1.0,
            "head_timeout_s": 1.0,
        },
        adapt=adapt,
    )


async def _operate(plane: Plane, chance: random.Random) -> None:
    """Kill, revive and shift weights until cancelled."""
    while True:
        await asyncio.sleep(chance.random() * 0.2)
        scope = chance.choice([Scope(), Scope("iris"), Scope("iris", "v2"), Scope("iris", "v3")])
        part = chance.choice([Part.MIRROR, Part.CANARY, Part.RECORD, Part.DEFAULT])
        weight_bp = chance.choice([0, 1000, 3000, 5000])
        changes: list[Callable[[ControlState], ControlState]] = [
            lambda state, scope=scope, part=part: kill(state, scope, part, "chaos"),  # type: ignore[misc]
            lambda state: revive(state, Scope(), ALL_PARTS),
            lambda state: revive(state, Scope(), ALL_PARTS),
            lambda state, bp=weight_bp: set_weight(  # type: ignore[misc]
                state, Scope("iris", chance.choice(CANDIDATES)), bp
            ),
        ]
        plane.change(chance.choice(changes))


def _check(plane: Plane, clients: ChaosClients) -> None:
    """Check everything that must hold once nobody asks any more."""
    worker = plane.worker
    assert not clients.wrong
    assert not clients.stuck
    for name in CANDIDATES:
        check_ledger(plane, name)
        assert plane.count("pairs_lost", "iris", name, Lost.JOURNAL_ERROR) == 0
    assert worker.held_bytes == 0
    assert not worker.shadows
    assert not worker.unread
    for pool in worker.pools.values():
        statistics = pool.statistics()
        assert (statistics.in_flight, statistics.connecting) == (0, 0), pool.backend.name
        assert not pool.legs()
        for member in pool._members:
            assert (member.in_flight, len(member.waiting)) == (0, 0)
    for gauge in ("in_flight", "tunnels_open"):
        assert plane.count(gauge, "iris") == 0
    assert plane.count("connections_open") == 0
    for name in worker.pools:
        assert plane.count("backend_in_flight", name) == 0


def _check_journal(plane: Plane, clients: ChaosClients) -> None:
    """Check that each pair is there once, with the answers to its own request."""
    lines = plane.lines()
    journaled = sum(plane.count("pairs_journaled", "iris", name) for name in CANDIDATES)
    assert len(lines) == journaled
    assert sorted(line["seq"] for line in lines) == list(range(1, journaled + 1))
    keys = Counter((line["request_id"], line["candidate"]) for line in lines)
    assert set(keys.values()) <= {1}
    for line in lines:
        for role in ("primary", "candidate", "replicate"):
            status = line.get(f"{role}_status"), line.get(f"{role}_http_status")
            if status != ("ok", 200) or line["method"] != "POST":
                continue
            name = line["candidate"] if role == "candidate" else "primary"
            request_id = line["request_id"].encode()
            wanted = expected_answer(name, request_id, clients.bodies[request_id])
            assert line[f"{role}_response_bytes"] == len(wanted)
            body = line[f"{role}_body"].encode()
            assert body == wanted[: len(body)]
            assert (body == wanted) is (line[f"{role}_body_state"] == "full")


def _is_quiet(plane: Plane) -> bool:
    worker = plane.worker
    return not (
        worker.shadows
        or plane.connections
        or any(pool.in_flight for pool in worker.pools.values())
        or any(pool.statistics().connecting for pool in worker.pools.values())
    )


def _check_stopped(plane: Plane) -> None:
    """Check the books of a worker that was stopped in the middle of it."""
    for name in CANDIDATES:
        check_ledger(plane, name)
    assert plane.count("in_flight", "iris") == 0
    assert plane.worker.held_bytes == 0
    lines = plane.lines()
    assert len(lines) == sum(plane.count("pairs_journaled", "iris", n) for n in CANDIDATES)


async def _stop(plane: Plane) -> None:
    """Stop the worker in the middle of it, as at SIGTERM."""
    plane.server.close()
    for connection in tuple(plane.connections):
        connection.shutdown()
    await asyncio.sleep(0.05)
    await plane.worker.stop(0.05)


async def _round(state_dir: Path, seed: int, round_s: float) -> Counter[int]:
    """Let chance reign for a while; then check."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(chaos_backend(name, random.Random(chance.random())))
            for name in ("primary", "primary", *CANDIDATES)
        ]
        plane = await stack.enter_async_context(
            dataplane(
                state_dir,
                primary=ports[0],
                candidates=dict(zip(CANDIDATES, ports[2:], strict=True)),
                options=_options(chance, ports[1]),
            )
        )
        clients = ChaosClients(plane.port, chance, ("primary", *CANDIDATES))
        async with asyncio.TaskGroup() as group:
            operator = group.create_task(_operate(plane, random.Random(seed)))
            until_s = monotonic_s() + round_s
            visits = group.create_task(clients.run(until_s, places=chance.choice([6, 24, 60])))
            if is_stopped := chance.random() < 0.4:
                await asyncio.sleep(round_s * chance.random())
                await _stop(plane)
                visits.cancel()
            await asyncio.wait([visits])
            operator.cancel()
        if is_stopped:
            _check_stopped(plane)
            return clients.statuses
        await until(lambda: _is_quiet(plane), "quiet")
        await until(plane.is_flushed, "the journal's flush")
        plane.worker.gauges.write(monotonic_s())
        plane.worker.gauges.write_in_flight()
        _check(plane, clients)
        _check_journal(plane, clients)
    return clients.statuses


async def test_the_books_balance_whatever_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No request, copy, pair, byte or task is lost or counted twice, and no answer is wrong."""
    seed = int(os.environ.get("UNDERSTUDY_CHAOS_SEED", random.randrange(10**6)))
    statuses: Counter[int] = Counter()
    until_s = monotonic_s() + CHAOS_S
    number = 0
    while (left_s := until_s - monotonic_s()) > 0.5:
        try:
            state_dir = tmp_path / str(number)
            statuses += await _round(state_dir, seed + number, min(ROUND_S, left_s))
            failed = [r for r in caplog.records if r.exc_info is not None]
            assert not failed, failed
        except BaseException as exc:
            exc.add_note(f"UNDERSTUDY_CHAOS_SEED={seed + number}")
            raise
        caplog.clear()
        number += 1
    assert statuses[200] > 100
    print(f"{number} rounds from seed {seed}: {sum(statuses.values())} answers, {dict(statuses)}")  # noqa: T201
