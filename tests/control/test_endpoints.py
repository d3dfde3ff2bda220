"""The admin API: orders change the page, are logged, and bad ones are refused with a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.control.openapi import OPERATIONS
from proxy.state import page_file
from proxy.state.control_page import Part
from proxy.state.orders import order_file_kills
from tests.support.admin import Instance

WEIGHT = "/api/v1/routes/iris/candidates/v3/weight"


async def test_a_kill_is_in_effect_when_it_is_answered(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """The answer says what changed, what is killed now and how long it took."""
    answer = await client.post("/api/v1/kill", json={"reason": "wrong answers"})
    assert answer.status_code == 200
    body = answer.json()
    assert 0 <= body.pop("took_ms") < 20_000
    assert body == {
        "action": "kill", "scope": "*", "old": [], "new": ["mirror", "canary"],
        "killed": {"*": ["mirror", "canary"]}, "opened": {}, "in_effect": True, "warnings": [],
        "log_error": "",
    }  # fmt: skip
    assert instance.page.read().killed == Part.DEFAULT


@pytest.mark.parametrize(
    ("order", "candidate", "expected"),
    [
        ({"route": "iris"}, "v3", Part.DEFAULT),
        ({"route": "iris", "candidate": "v2"}, "v3", Part.NONE),
        ({"only": "mirror"}, "v3", Part.MIRROR),
        ({"only": "record", "route": "iris"}, "v3", Part.RECORD),
    ],
)
async def test_a_kill_has_a_scope_and_a_part(
    client: httpx.AsyncClient,
    instance: Instance,
    order: dict[str, str],
    candidate: str,
    expected: Part,
) -> None:
    """Route, candidate and part narrow it."""
    answer = await client.post("/api/v1/kill", json={**order, "reason": "r"})
    assert answer.status_code == 200
    assert instance.page.read().killed_parts("iris", candidate) == expected


async def test_a_revive_says_what_stays_killed(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """A wider latch is not opened by a narrower word, and the answer shows it."""
    for order in ({}, {"route": "iris"}):
        await client.post("/api/v1/kill", json={**order, "reason": "r"})
    answer = await client.post("/api/v1/revive", json={"route": "iris", "reason": "fixed"})
    assert answer.json()["killed"] == {"*": ["mirror", "canary"]}
    answer = await client.post("/api/v1/revive", json={"reason": "fixed"})
    assert answer.json()["killed"] == {}
    assert instance.page.read().notes == {}


async def test_a_weight_is_set_in_percent(client: httpx.AsyncClient, instance: Instance) -> None:
    """0.01% is the step."""
    answer = await client.put(WEIGHT, json={"percent": 0.29, "reason": "first step"})
    assert (answer.json()["old"], answer.json()["new"]) == (0, 29)
    assert instance.page.read().routes["iris"].candidates["v3"].weight_bp == 29


async def test_decisions_tell_who_what_and_why(client: httpx.AsyncClient) -> None:
    """Newest first, with the caller's own name for itself, made printable."""
    await client.put(WEIGHT, json={"percent": 5, "reason": "one"})
    await client.post(
        "/api/v1/kill", json={"reason": "two"}, headers={"x-understudy-actor": "ann\x1b@host"}
    )
    found = (await client.get("/api/v1/decisions?limit=5")).json()["decisions"]
    assert [(d["action"], d["who"], d["via"], d["reason"]) for d in found] == [
        ("kill", "ann@host", "api 127.0.0.1", "two"),
        ("weight", "unnamed", "api 127.0.0.1", "one"),
    ]
    assert len((await client.get("/api/v1/decisions?limit=1")).json()["decisions"]) == 1


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        (("POST", "/api/v1/kill", {}), 422, "reason: Field required"),
        (("POST", "/api/v1/kill", {"reason": "  "}), 422, "reason: "),
        (("POST", "/api/v1/kill", {"reason": "r", "rout": "iris"}), 422, "rout: no such key; there are: reason, "),
        (("POST", "/api/v1/kill", {"reason": "r", "only": "all"}), 422, "only: "),
        (("POST", "/api/v1/kill", {"reason": "r", "candidate": "v2"}), 422, "needs its route"),
        (("POST", "/api/v1/kill", {"reason": "r", "route": "rose"}), 404, "no route 'rose'; there are: iris"),
        (("POST", "/api/v1/revive", {"reason": "r", "route": "iris", "candidate": "v9"}), 404, "v2, v3"),
        (("PUT", WEIGHT, {"percent": 101, "reason": "r"}), 422, "percent: "),
        (("PUT", WEIGHT, {"percent": "5", "reason": "r"}), 422, "percent: "),
        (("PUT", WEIGHT, {"percent": 0.005, "reason": "r"}), 422, "finer than"),
        (("PUT", WEIGHT, {"percent": 91, "reason": "r"}), 409, "between 0% and 90%"),
        (("PUT", WEIGHT.replace("iris", "rose"), {"percent": 1, "reason": "r"}), 404, "rose"),
        (("GET", "/api/v1/decisions?limit=0", None), 422, "limit: "),
        (("GET", "/api/v1/decisions?limit=x", None), 422, "limit: "),
        (("GET", "/api/v2/status", None), 404, "/openapi.json"),
        (("GET", "/api/v1/kill", None), 405, "GET is not for /api/v1/kill"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_answered_with_what_and_how_to_mend(
    client: httpx.AsyncClient,
    instance: Instance,
    sent: tuple[str, str, Any],
    status: int,
    message: str,
) -> None:
    """And changes nothing."""
    generation = instance.page.generation()
    method, path, body = sent
    answer = await client.request(method, path, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert instance.page.generation() == generation


@pytest.mark.parametrize(
    ("content_type", "data", "status"),
    [
        ("text/plain", b'{"reason": "r"}', 415),
        ("application/x-www-form-urlencoded", b"reason=r", 415),
        ("application/json", b"{", 400),
        ("application/json", b"[]", 422),
        ("application/json", b'{"reason": "' + b"x" * 70_000 + b'"}', 413),
        ("application/json; charset=utf-8", b'{"reason": "r"}', 200),
    ],
)
async def test_only_json_of_an_orders_size_is_read(
    client: httpx.AsyncClient, content_type: str, data: bytes, status: int
) -> None:
    """A form on a foreign page can only send the other types."""
    answer = await client.post("/api/v1/kill", content=data, headers={"content-type": content_type})
    assert answer.status_code == status


def _corrupt(instance: Instance) -> None:
    with instance.page.path.open("r+b") as file:
        file.write(b"\0" * 100)


async def test_a_kill_on_a_corrupt_page_is_kept_for_the_page_that_comes(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Only the primary serves already; the mending revive must not lose what was killed meanwhile."""
    _corrupt(instance)
    answer = await client.post("/api/v1/kill", json={"reason": "r", "route": "iris"})
    body = answer.json()
    assert (answer.status_code, body["in_effect"]) == (200, True)
    assert body["killed"] == {"iris": ["mirror", "canary"]}
    assert "only the primary serves already" in body["warnings"][0]
    assert (instance.state_dir / "KILL.iris").exists()
    part = await client.post("/api/v1/kill", json={"reason": "r", "only": "mirror"})
    assert part.status_code == 503
    assert "kill without `only`" in part.json()["error"]
    unknown = await client.post("/api/v1/kill", json={"reason": "r", "route": "rose"})
    assert unknown.status_code == 404
    body = (await client.post("/api/v1/revive", json={"reason": "mended"})).json()
    assert body["killed"] == {"iris": ["mirror", "canary"]}
    body = (await client.post("/api/v1/revive", json={"reason": "open"})).json()
    assert (body["killed"], body["opened"]) == ({}, {"iris": ["mirror", "canary"]})
    log = (await client.get("/api/v1/decisions")).json()["decisions"]
    told = [(d["action"], d["outcome"]) for d in log]
    assert told == [
        ("revive", "done"), ("revive", "done"), ("kill", "refused"), ("kill", "refused"),
        ("kill", "done"),
    ]  # fmt: skip


async def test_a_kill_that_waits_for_a_lock_says_that_it_is_not_in_effect(
    client: httpx.AsyncClient, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that was stopped inside the lock holds up every kill; 202 and the file, not success."""
    monkeypatch.setattr(page_file, "LOCK_TIMEOUT_S", 0.05)
    with page_file.locked(instance.state_dir):
        answer = await client.post("/api/v1/kill", json={"reason": "r"})
    assert (answer.status_code, answer.json()["in_effect"]) == (202, False)
    assert "NOT IN EFFECT YET" in answer.json()["warnings"][0]
    assert list(order_file_kills(instance.page, 1)) == ["KILL"]


async def test_reviving_everything_mends_a_corrupt_page_and_says_what_is_lost(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Live weights: loudly, in the answer and in the log. Anything narrower is refused."""
    await client.put(WEIGHT, json={"percent": 30, "reason": "step"})
    _corrupt(instance)
    narrow = await client.post("/api/v1/revive", json={"route": "iris", "reason": "r"})
    assert narrow.status_code == 503
    assert "corrupt" in (await client.get("/readyz")).json()["problems"][0]
    answer = await client.post("/api/v1/revive", json={"reason": "mended"})
    assert answer.status_code == 200
    (warning,) = answer.json()["warnings"]
    assert "live weights are the config's again (iris/v2 10%, iris/v3 0%)" in warning
    log = (await client.get("/api/v1/decisions")).json()["decisions"]
    assert log[0]["note"] == warning
    assert instance.page.read().routes["iris"].candidates["v2"].mirror_bp == 10_000
    assert (await client.get("/readyz")).json()["problems"] == []


async def test_a_page_that_was_deleted_is_made_again_by_a_revive(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Control looks at the file that is there now, as the workers do."""
    instance.page.path.unlink()
    assert (await client.post("/api/v1/kill", json={"reason": "r"})).json()["warnings"]
    mended = await client.post("/api/v1/revive", json={"reason": "r"})
    assert mended.json()["killed"] == {"*": ["mirror", "canary"]}
    revived = await client.post("/api/v1/revive", json={"reason": "r"})
    assert revived.json()["killed"] == {}
    assert not (await client.post("/api/v1/kill", json={"reason": "r"})).json()["warnings"]


async def test_readiness_asks_for_a_living_worker_only(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """A recorder in trouble is a problem told, not an instance taken out of rotation."""
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": []})
    instance.write_recorder(state="broker_down", message="no broker", remedy="start it")
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["problems"] == ["recorder 0: broker_down: no broker; to mend it, start it"]
    instance.write_recorder(updated_ms=0)
    assert "hangs or is down" in (await client.get("/readyz")).json()["problems"][0]
    instance.write_runtime(0)
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"][0] == "worker 0 is down (SIGKILL)"
    (instance.state_dir / "runtime.json").unlink()
    assert "launcher" in (await client.get("/readyz")).json()["problems"][0]


async def test_the_status_holds_live_state_counters_and_the_ledger(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """One document tells all."""
    stats = instance.stats
    stats.add(10, "routed", "iris")
    stats.add(9, "served", "iris", "ok")
    stats.add(10, "mirror_decided", "iris", "v2")
    stats.add(7, "mirror_sent", "iris", "v2")
    stats.add(3, "mirror_skipped", "iris", "v2", "in_flight")
    stats.add(20, "pairs_journaled", "iris", "v2")
    instance.write_journal(journaled_read=6, acknowledged=4, **{"dropped.rejected": 2})
    instance.write_dropped(9)
    stats.add(5, "canary", "iris", "v2")
    stats.add(2, "rescued", "iris", "v2")
    stats.add(99, "latency_us", "iris", "v2", "1000")
    stats.add(1, "latency_us", "iris", "v2", "+Inf")
    await client.post("/api/v1/kill", json={"route": "iris", "only": "mirror", "reason": "r"})
    status = (await client.get("/api/v1/status")).json()
    assert status["killed"] == {"iris": ["mirror"]}
    assert status["processes"][0]["restarts"] == 2
    route = status["routes"][0]
    v2 = route["candidates"][0]
    assert (v2["mirror_bp"], v2["effective_mirror_bp"]) == (10_000, 0)
    assert (v2["weight_bp"], v2["effective_weight_bp"]) == (1_000, 1_000)
    assert v2["mirror_skipped"] == {"in_flight": 3}
    assert (v2["canary"], v2["rescued"], v2["served"]) == (5, 2, 3)
    assert status["running"] is True
    assert 0.5 < v2["latency"]["p50_ms"] < 1.0
    assert v2["latency"]["count"] == 100
    accounts = {a["name"]: a for a in status["ledger"]}
    assert accounts["requests routed"]["open"] == 1
    assert accounts["mirrors decided"]["open"] == 0
    assert accounts["pairs journaled"] == {
        "name": "pairs journaled", "total": 20, "open": 5,
        "parts": {"acknowledged": 4, "dropped rejected": 2, "dropped journal_full": 9},
    }  # fmt: skip
    assert status["ledger_verdict"] == {"verdict": "unbalanced", "unbalanced": [
        {"account": "requests received", "scope": "", "total": 0, "settled": 10, "missing": -10},
        {"account": "pairs decided", "scope": "iris/v2", "total": 0, "settled": 20, "missing": -20},
    ]}  # fmt: skip
    assert (await client.get("/api/v1/routes")).json()["routes"] == status["routes"]


async def test_the_openapi_document_describes_every_path(client: httpx.AsyncClient) -> None:
    """Each described operation is there, and none answers 404 or 405."""
    document = (await client.get("/openapi.json")).json()
    assert sum(map(len, document["paths"].values())) == len(OPERATIONS)
    for path, methods in document["paths"].items():
        url = path.replace("{route}", "iris").replace("{candidate}", "v2")
        for method in methods:
            answer = await client.request(method, url)
            assert answer.status_code in (200, 415), (method, url)
    assert "reason" in document["components"]["schemas"]["LatchOrder"]["required"]


async def test_the_dashboard_is_static_and_locked_down(client: httpx.AsyncClient) -> None:
    """Its shell holds no data and runs no foreign script."""
    for path in ("/", "/dashboard.js", "/dashboard.css"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_an_order_that_cannot_be_logged_says_so(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """The kill holds; reading the log fails with a reason."""
    (instance.state_dir / "decisions.ndjson").mkdir()
    answer = await client.post("/api/v1/kill", json={"reason": "r"})
    assert answer.status_code == 200
    assert "cannot append" in answer.json()["log_error"]
    assert (await client.get("/api/v1/decisions")).status_code == 503


async def test_the_decisions_log_is_private(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Mode 0600, whoever writes first."""
    await client.post("/api/v1/kill", json={"reason": "r"})
    path = tmp_path / "decisions.ndjson"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["ts_ms"] > 0
    assert path.stat().st_uid == os.getuid()
