"""Orders that waited: what a frozen control reads when it goes on must open nothing killed since."""

from __future__ import annotations

import re

import httpx
import pytest

from proxy.control.app import build_app
from proxy.control.pulse import SETTLE_S, STALL_S, Pulse
from proxy.state.control_page import Part
from proxy.state.kill import Scope
from proxy.state.orders import Source, order_kill
from proxy.telemetry import monotonic_s, wall_ns
from tests.support.admin import Instance

WEIGHT = "/api/v1/routes/iris/candidates/v3/weight"
ORDERS = [
    ("POST", "/api/v1/revive", {"reason": "r"}),
    ("PUT", WEIGHT, {"reason": "r", "percent": 5}),
]


async def _seen(client: httpx.AsyncClient) -> int:
    status = (await client.get("/api/v1/status")).json()
    return int(status["control_page"]["generation"])


@pytest.mark.parametrize(("method", "path", "order"), ORDERS)
async def test_an_order_is_refused_when_a_kill_came_after_what_it_saw(
    client: httpx.AsyncClient, instance: Instance, method: str, path: str, order: dict[str, object]
) -> None:
    """Until its giver has looked again."""
    old = await _seen(client)
    order_kill(instance.page, Scope("iris", "v2"), Part.DEFAULT, Source("bob", "x", "bad", 1))
    generation = instance.page.generation()
    answer = await client.request(method, path, json={**order, "seen_generation": old})
    assert answer.status_code == 412
    assert "bob (x): bad" in answer.json()["error"]
    assert instance.page.generation() == generation
    now = await _seen(client)
    answer = await client.request(method, path, json={**order, "seen_generation": now})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "order"), [*ORDERS, ("POST", "/api/v1/kill", {"reason": "r"})]
)
async def test_an_expired_order_is_refused(
    client: httpx.AsyncClient, instance: Instance, method: str, path: str, order: dict[str, object]
) -> None:
    """Even a kill, whose giver says by this that it goes another way afterwards."""
    generation = instance.page.generation()
    now_ms = wall_ns() // 1_000_000
    answer = await client.request(method, path, json={**order, "expires_ms": now_ms - 1_500})
    assert answer.status_code == 412
    late = re.search(r"expired ([0-9.]+) s ago", answer.json()["error"])
    assert late is not None
    assert float(late[1]) >= 1.5
    assert instance.page.generation() == generation
    answer = await client.request(method, path, json={**order, "expires_ms": now_ms + 60_000})
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path", "order"), ORDERS)
async def test_after_a_stall_an_order_must_say_what_it_saw(
    instance: Instance, method: str, path: str, order: dict[str, object]
) -> None:
    """Whatever lies in the socket then may be older than a kill; a kill itself is always taken."""
    pulse = Pulse()
    pulse.beat(monotonic_s())  # as at a start
    transport = httpx.ASGITransport(build_app(instance.config, instance.observer, pulse))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        answer = await client.request(method, path, json=order)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert (await client.post("/api/v1/kill", json={"reason": "r"})).status_code == 200
        order = {**order, "seen_generation": await _seen(client)}
        assert (await client.request(method, path, json=order)).status_code == 200


def test_the_pulse_doubts_after_a_start_and_after_a_stall() -> None:
    """For a while, and also before the first beat after the stall."""
    pulse = Pulse()
    assert not pulse.is_doubtful(100.0)
    pulse.beat(100.0)
    assert pulse.is_doubtful(100.1)
    now_s = 100.0
    while now_s <= 100.0 + SETTLE_S:
        now_s += 0.5
        pulse.beat(now_s)
    assert not pulse.is_doubtful(now_s)
    assert pulse.is_doubtful(now_s + STALL_S + 0.1)
    pulse.beat(now_s + 10)
    assert pulse.is_doubtful(now_s + 10)
