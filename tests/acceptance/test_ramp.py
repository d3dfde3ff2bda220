"""Ramps end to end: real processes, real model servers, traffic, and times that are shortened.

A candidate that is as good goes to 100%; one that is wrong more often is halted; one that breaks while
it serves a quarter of the users is rolled back, and no user has noticed.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.comparison.verdict_json import loads_verdict
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running
from tests.support.ramp_models import models
from tests.support.ramp_users import users_of

pytestmark = pytest.mark.slow

#: How long any one ramp may take on a busy machine.


def _config(urls: dict[str, str]) -> dict[str, Any]:
    """Return a route for each of three candidates, the primary behind all of them."""
    margins = {"equal": 0.05, "wrong": 0.01, "fragile": 0.05}
    return {
        "backends": {name: {"endpoints": [url]} for name, url in urls.items()},
        "routes": [
            {
                "name": name,
                "match": {"path": f"/{name}"},
                "primary": "primary",
                "candidates": [
                    # What is shown here is what the gates do.
                    {"name": "v2", "backend": name, "weight": "0%", "guard": {"failures": 0}}
                ],
                "compare": {"prediction": "y", "comparator": "label"},
                "ramp": {
                    "steps": [
                        {
                            "weight": weight,
                            "min_pairs": 50,
                            "min_duration": "500ms",
                            "max_duration": "1m",
                        }
                        for weight in ("25%", "100%")
                    ],
                    "gates": [
                        {"metric": "agreement", "margin": margin},
                        {"metric": "availability", "margin": margin},
                    ],
                },
            }
            for name, margin in margins.items()
        ],
        "limits": {"shutdown": "2s"},
    }


def _told(instance: Instance, route: str) -> dict[str, Any]:
    """Return what the status document says of a route's candidate."""
    routes = {
        each["name"]: each for each in instance.admin("GET", "/api/v1/routes").json()["routes"]
    }
    found: dict[str, Any] = routes[route]["candidates"][0]
    return found


def _decisions(instance: Instance, route: str) -> list[dict[str, Any]]:
    """Return the ramp's decisions on a route, the oldest first."""
    found = instance.admin("GET", "/api/v1/decisions?limit=1000").json()["decisions"]
    return [
        each
        for each in reversed(found)
        if each["scope"] == f"{route}/v2" and each["action"].startswith("ramp_")
    ]


def _wait(instance: Instance, route: str, phase: str, step: int | None = None) -> dict[str, Any]:
    def is_there() -> dict[str, Any]:
        found = _told(instance, route)
        told = found["ramp"]
        return found if told["phase"] == phase and step in (None, told["step"]) else {}

    try:
        return wait_for(is_there, f"{route} {phase}")
    except AssertionError as exc:
        exc.add_note(json.dumps(_told(instance, route)["ramp"], indent=1))
        raise


def test_three_candidates_get_what_they_deserve(tmp_path: Path) -> None:
    """Promoted, halted by evidence, and rolled back from live traffic without a failure."""
    with models() as urls, running(_config(urls), tmp_path) as instance:
        generation = instance.status()["control_page"]["generation"]
        with users_of(instance, "equal", "wrong", "fragile"):
            for route in ("equal", "wrong", "fragile"):
                path = f"/api/v1/routes/{route}/ramp/start"
                order = {"reason": "a new model", "seen_generation": generation}
                done = instance.admin("POST", path, order)
                assert done.status_code == 200, done.text
            fragile = _wait(instance, "fragile", "stepping", 1)
            assert fragile["effective_weight_bp"] == 2_500
            httpx.post(f"{urls['fragile']}/break", trust_env=False, timeout=PATIENCE_S)
            fragile = _wait(instance, "fragile", "rolled_back")
            wrong = _wait(instance, "wrong", "rolled_back")
            instance.send("control", signal.SIGKILL)
            wait_for(instance.is_ready, "control back")
            equal = _wait(instance, "equal", "promoted")
        assert (equal["effective_weight_bp"], equal["ramp_step"]) == (10_000, 1)
        assert wrong["ramp"]["why"].startswith("agreement: worse_than_margin")
        assert (wrong["weight_bp"], wrong["canary"]) == (0, 0)
        assert fragile["ramp"]["why"].startswith("availability: worse_than_margin")
        assert fragile["weight_bp"] == 0
        assert fragile["rescued"] > 0
        _check_records(instance)


def _check_records(instance: Instance) -> None:
    """Every transition is a decision that says who, why, from what, to what, on which evidence."""
    ways = {route: _decisions(instance, route) for route in ("equal", "wrong", "fragile")}
    assert [each["action"].removeprefix("ramp_") for each in ways["equal"]] == [
        "start", "pass", "advance", "pass", "advance", "pass", "finish",
    ]  # fmt: skip
    assert [each["action"] for each in ways["wrong"]] == ["ramp_start", "ramp_halt"]
    halt = ways["fragile"][-1]
    assert halt["action"] == "ramp_halt"
    assert (halt["who"], halt["old"], halt["new"]) == (
        "ramp", ["stepping step 1 of 2 at 25%"], ["rolled_back"],
    )  # fmt: skip
    for way in ways.values():
        assert way[0]["who"] != "ramp"
        for each in way[1:]:
            verdict = loads_verdict(json.dumps(each["evidence"]).encode())
            assert f"{verdict.reason}" == each["reason"]
