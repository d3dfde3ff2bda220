"""The waits before a restart."""

from __future__ import annotations

from proxy.launcher.backoff import Backoff


def test_waits_double_to_five_seconds_and_a_healthy_life_starts_them_again() -> None:
    """0.1 s after the first death; again 0.1 s after ten seconds of life."""
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(9.9) == 5.0
    assert backoff.after(10.0) == 0.1
    assert backoff.after(0.0) == 0.2
