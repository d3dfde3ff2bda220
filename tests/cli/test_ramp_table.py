"""Ramps as an operator reads them on a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.ramp_table import ramp_table, span

GATE = {
    "metric": "agreement", "outcome": "continue", "reason": "undecided", "pairs": 1_143,
    "missing": 0, "mean": 0.002, "lower": -0.011, "upper": 0.0312, "log_e_promote": 1.1,
    "log_e_halt": -3.0, "margin": 0.02, "acts_at": 20.0,
}  # fmt: skip
TOLD: dict[str, Any] = {
    "phase": "stepping", "words": "stepping step 2 of 3 at 10%", "step": 2, "weights_bp": [100, 1_000, 10_000],
    "pairs": 143, "min_pairs": 2_000, "elapsed_s": 62.0, "wait_s": 538.0, "expires_s": 86_340.0,
    "approval": "auto", "waits": "continue: agreement: undecided", "why": "within_margin",
    "who": "ramp", "trouble": "", "gates": [GATE],
}  # fmt: skip


def _shown(**changes: Any) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(ramp_table({"digits/v2": TOLD | changes}))
    return console.export_text()


def test_place_evidence_and_time_left_are_there() -> None:
    """Each gate with how much worse the candidate is, and how far the evidence goes both ways."""
    shown = _shown()
    assert "digits/v2  stepping step 2 of 3 at 10%  shadow → 1% → [10%] → 100%" in shown
    assert "143 pairs (at least 2,000), 1 min 2 s in this step, 8 min 58 s to wait" in shown
    assert "rolled back in 23 h 59 min unless it passes" in shown
    assert "waits: continue: agreement: undecided" in shown
    for cell in ("1,143", "+0.2% (-1.1 to +3.1)", "2%", "3/20", "0.05/20"):
        assert f" {cell}" in shown
    assert ">1,000/20" in _shown(gates=[GATE | {"log_e_promote": 900.0}])
    assert " 665/20" in _shown(gates=[GATE | {"log_e_promote": 6.5}])
    assert "<0.001/20" in _shown(gates=[GATE | {"log_e_halt": -9.0}])
    assert max(map(len, shown.splitlines())) <= 80


def test_a_follower_says_who_judges() -> None:
    """And since when nothing has changed; whoever judges by itself says nothing of it."""
    assert "as a judges, which leads; unchanged for 3.2 s" in _shown(judged_by="a", judged_s=3.2)
    assert "judges" not in _shown(judged_by="", judged_s=None)


def test_a_ramp_that_has_ended_says_why_and_by_whom() -> None:
    """It has no place on the way any more, and no time."""
    shown = _shown(phase="rolled_back", words="rolled_back", waits="", elapsed_s=None, gates=[])
    assert "digits/v2  rolled back\n" in shown
    assert "because: within_margin, by ramp" in shown
    assert "pairs" not in shown


def test_what_is_promoted_waits_for_nothing() -> None:
    """Control says the reason in both places then."""
    shown = _shown(phase="promoted", words="promoted", waits="within_margin", elapsed_s=None)
    assert "because: within_margin, by ramp" in shown
    assert "waits:" not in shown


def test_a_manual_step_and_trouble_are_told() -> None:
    """A gate without pairs has no difference."""
    shown = _shown(approval="manual", trouble="the disk is full", expires_s=None, wait_s=0.0,
                   gates=[GATE | {"mean": None, "pairs": 0}])  # fmt: skip
    assert "an operator must promote it" in shown
    assert "trouble: the disk is full" in shown
    assert "to wait" not in shown
    assert "rolled back in" not in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (9.4, "9.4 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3_600, "1 h"),
     (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_times_are_said_as_people_do(seconds: float, words: str) -> None:
    """Two units at most."""
    assert span(seconds) == words
