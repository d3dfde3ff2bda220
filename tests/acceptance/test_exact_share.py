"""A share of users is exactly that share, moves nobody back, and ends for everybody at once.

`UNDERSTUDY_KEYS=1000000 .venv/bin/pytest tests/acceptance/test_exact_share.py` is the long form.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest

from proxy.config.resolved import Route
from proxy.routing.decide import PRIMARY, Plan, decide, make_plan, unit_of
from proxy.state.control_page import ControlState, Part, for_config
from proxy.state.instance_config import config_of
from proxy.state.kill import Scope, kill, set_weight
from tests.support.counting_backend import counting_backend, two_workers
from tests.support.deadline import PATIENCE_S
from tests.support.instance import Instance, running
from tests.support.resolved_config import small_config

KEYS = int(os.environ.get("UNDERSTUDY_KEYS", "100000"))
#: Over a million keys a tenth of a point is more than three standard deviations.
WITHIN_POINTS = 0.1 * max(1.0, (1_000_000 / KEYS) ** 0.5)
V2 = Scope("iris", "v2")


def is_served(plan: Plan, key: bytes) -> bool:
    """Return whether a candidate serves a key."""
    return decide(plan, key, unit_of(plan, key)).serving != PRIMARY


def test_the_share_of_many_keys_is_exact_and_only_grows() -> None:
    """10% is 10% within 0.1 points over a million keys; at 25% all of these are still served."""
    config = small_config(Path("/nowhere"))
    state = set_weight(for_config(config, ControlState()), V2, 1_000)
    few, more, killed = (
        make_plan(config.routes[0], each)
        for each in (
            state,
            set_weight(state, V2, 2_500),
            kill(set_weight(state, V2, 2_500), Scope(), Part.DEFAULT, "x"),
        )
    )
    at_10 = at_25 = moved_back = left = 0
    for number in range(KEYS):
        key = b"user-%d" % number
        before, after = is_served(few, key), is_served(more, key)
        at_10 += before
        at_25 += after
        moved_back += before and not after
        left += is_served(killed, key)
    told = f"{KEYS:,} keys: {100 * at_10 / KEYS:.3f}% at 10%, {100 * at_25 / KEYS:.3f}% at 25%"
    sys.stderr.write(f"{told}\n")
    assert abs(100 * at_10 / KEYS - 10) < WITHIN_POINTS, told
    assert abs(100 * at_25 / KEYS - 25) < 1.5 * WITHIN_POINTS, told
    assert (moved_back, left) == (0, 0)


def served(instance: Instance, keys: list[str]) -> set[str]:
    """Ask once for each key; return those that the candidate answered."""
    found = set()
    with httpx.Client(base_url=instance.base_url, trust_env=False, timeout=PATIENCE_S) as client:
        for key in keys:
            answer = client.post("/", json={}, headers={"x-user-id": key})
            assert answer.status_code == 200
            if answer.json()["from"] == "candidate":
                found.add(key)
    return found


def expected(route: Route, weight_bp: int, keys: list[str], state: ControlState) -> set[str]:
    """Return the keys that the candidate serves by the pure decision."""
    plan = make_plan(route, set_weight(state, V2, weight_bp))
    return {key for key in keys if is_served(plan, key.encode())}


@pytest.mark.slow
def test_users_get_exactly_what_the_decision_says(tmp_path: Path) -> None:
    """On real sockets, over two workers: key by key, through two weights and a kill."""
    keys = [f"user-{number}" for number in range(250)]
    with counting_backend("primary") as primary, counting_backend("candidate") as candidate:
        config = two_workers(primary, candidate)
        config["routes"][0]["candidates"][0]["mirror"] = "0%"
        with running(config, tmp_path) as instance:
            resolved = config_of(instance.state_dir)
            assert resolved is not None
            state = for_config(resolved, ControlState())
            found = {}
            for percent in (10, 25):
                assert instance.cli("weight", "iris", "v2", str(percent)).returncode == 0
                found[percent] = served(instance, keys)
                assert found[percent] == expected(resolved.routes[0], percent * 100, keys, state)
            assert found[10] < found[25]
            assert instance.cli("kill", "--reason", "test").returncode == 0
            assert served(instance, keys) == set()
            assert candidate.requests == len(found[10]) + len(found[25])
