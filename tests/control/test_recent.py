"""Who fails now: the counters' last minute, judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.control.recent import SAMPLES, Key, Recent, RecentWindow, failing_legs
from tests.support.resolved_config import small_config

ROUTE = small_config(Path("/nowhere")).routes[0]


def _leg(status: str, candidate: str = "v2") -> Key:
    return ("leg", "iris", candidate, status)


def _users(outcome: str) -> Key:
    return ("served", "iris", outcome)


def test_only_what_moved_since_the_oldest_sample_counts() -> None:
    """A candidate that failed an hour ago is not failing."""
    window = RecentWindow()
    window.add(0.0, {_leg("connect_error"): 900})
    window.add(1.0, {_leg("connect_error"): 900, _leg("ok"): 4})
    recent = window.recent(2.0, {_leg("connect_error"): 901, _leg("ok"): 9})
    assert recent == Recent(2.0, {_leg("connect_error"): 1, _leg("ok"): 9})
    for second in range(SAMPLES + 1):
        window.add(10.0 + second, {_leg("connect_error"): 901})
    assert window.recent(72.0, {_leg("connect_error"): 901}) == Recent(62.0, {})
    assert RecentWindow().recent(5.0, {_leg("ok"): 1}) == Recent()


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({_leg("connect_error"): 40}, "iris/v2: 40 of 40 calls failed in the last 60 s (connect_error 40)"),
        ({_leg("timeout"): 6, _leg("reset"): 5, _leg("ok"): 10}, "11 of 21"),
        ({_leg("timeout"): 5, _leg("ok"): 5}, ""),
        ({_leg("timeout"): 4}, ""),
        ({_leg("cancelled"): 90, _leg("ok"): 5}, ""),
        ({_leg("shed"): 900, _leg("not_sent"): 9, _leg("timeout"): 5}, "5 of 5"),
        ({_leg("http_error"): 20}, "20 of 20"),
        ({_leg("http_error"): 20, _users("http_error"): 20}, ""),
        ({_leg("http_error"): 20, _users("http_error"): 2, _users("ok"): 8}, "16 of 20"),
        ({_leg("http_error"): 20, _users("http_error"): 20, ("canary", "iris", "v2"): 9}, "20 of 20"),
        ({_users("connect_error"): 9, _users("ok"): 3}, "iris for its users: 9 of 12 calls failed"),
        ({_users("http_error"): 99}, ""),
    ],
)  # fmt: skip
def test_more_than_half_of_a_minutes_calls_make_a_problem(
    counts: dict[Key, int], told: str
) -> None:
    """Few calls, kills, and the nonsense of clients do not."""
    found = failing_legs(ROUTE, Recent(60.0, counts))
    assert [told in sentence for sentence in found] == ([True] if told else [])
