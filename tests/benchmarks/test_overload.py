"""What is said of an overload: turn by turn, and by the median of all turns."""

from __future__ import annotations

import pytest

from benchmarks import candidates, overload
from benchmarks.candidates import OFF, Copies
from benchmarks.figures import Spread
from benchmarks.fleet import BenchmarkError
from benchmarks.programs.faulty import Fault


def _sample(case: str, worker_us: float, over_off: list[float], **fields: str) -> overload.Sample:
    return overload.Sample(
        case, fields.get("beside", ""), 0, 5.0, 9.0, 50.0, 30_000.0, worker_us, {}, [], None, over_off
    )  # fmt: skip


def test_a_candidate_is_judged_by_the_median_of_all_its_turns() -> None:
    """One bad turn does not move it; rounds have turns, and are none."""
    samples = [
        _sample(OFF, 20.0, [], beside="hung"),
        _sample("hung", 30.0, [1.0, 1.25, 9.0]),
        _sample(OFF, 30.0, [], beside="hung"),
        _sample("hung", 30.0, [1.5, 1.75, 1.125]),
        _sample(OFF, 1.0, [], beside="healthy"),
        _sample("healthy", 1.0, [0.5]),
    ]
    assert overload._over_off(samples, ["hung"]) == Spread(1.375, 1.0, 9.0)
    assert overload._over_off(samples, ["hung", "healthy"]) == Spread(1.25, 0.5, 9.0)
    assert overload._cpu_over_off(samples, "hung") == Spread(1.25, 1.0, 1.5)
    by_name = {claim.what.split(", candidate ")[-1]: claim for claim in overload._claims(samples)}
    assert by_name["hung over mirror off"].verdict == "no"
    assert by_name["healthy over mirror off"].verdict == "yes"
    assert "refuses over mirror off" not in by_name


def test_a_share_of_no_copies_is_none() -> None:
    """With the mirror off there are none to have a share of."""
    parts = [Copies(decided=300, sent=60).since(Copies(decided=100, sent=50)), Copies(200, 70)]
    assert candidates.share_sent(parts) == 0.2
    assert candidates.share_sent([Copies()]) is None


def test_a_candidate_that_there_is_not_is_told() -> None:
    """The order is that of all faults, whatever was typed."""
    assert candidates.chosen(["hung", "healthy"], []) == (Fault.HEALTHY, Fault.HUNG)
    assert candidates.chosen([], [Fault.BOMB]) == (Fault.BOMB,)
    with pytest.raises(BenchmarkError, match=r"no candidate hang; there are: healthy, hung"):
        candidates.chosen(["hang"], [])
