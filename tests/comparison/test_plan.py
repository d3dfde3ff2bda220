"""How long a verdict takes is what looking after every pair says, and what must be so by theory."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.evidence import DESIGN, DISCORDANCE
from benchmarks.experiments import Law, Pairs, decide as decide_at_every_pair
from proxy.comparison.plan import Trial, decide, forecast

LIMIT = DESIGN.looks


def trial(difference: float, disagreement: float = DISCORDANCE, max_pairs: int = LIMIT) -> Trial:
    """Return a trial with the benchmark's margin."""
    return Trial(difference, disagreement, DESIGN.margin, max_pairs)


@pytest.mark.parametrize(("difference", "says_halt"), [(0.0, False), (0.02, True), (0.03, True)])
def test_it_agrees_with_a_look_after_every_pair(difference: float, says_halt: bool) -> None:
    """Median and 90% quantile of the benchmark's simulation, within four standard errors."""
    pairs = Pairs(Law(difference, DISCORDANCE), np.random.default_rng(1))
    exact = decide_at_every_pair(pairs, 600, DESIGN)
    wanted = exact.halted if says_halt else exact.promoted
    found = forecast(trial(difference), np.random.default_rng(2))
    duration = found.halt if says_halt else found.promote
    assert duration.share == pytest.approx(np.isfinite(wanted).mean(), abs=0.03)
    assert duration.median == pytest.approx(np.quantile(wanted, 0.5), rel=0.15)
    assert duration.most == pytest.approx(np.quantile(wanted, 0.9), rel=0.2)


def test_it_says_what_the_benchmark_published() -> None:
    """Some 3,058 pairs to promote at 4%, some 700 to halt a candidate 3 points worse."""
    none = forecast(trial(0.0), np.random.default_rng(3), 2_000)
    worse = forecast(trial(0.03), np.random.default_rng(4), 2_000)
    assert none.promote.median == pytest.approx(3_058, rel=0.1)
    assert worse.halt.median == pytest.approx(700, rel=0.1)


def test_at_the_margin_both_claims_are_rare() -> None:
    """Each is false there, so each is made in 5% of experiments at most."""
    found = forecast(trial(DESIGN.margin), np.random.default_rng(5))
    assert found.promote.share <= 0.06
    assert found.halt.share <= 0.06
    assert found.undecided >= 0.88
    assert found.promote.median is None


def test_without_disagreement_the_pairs_are_those_of_arithmetic() -> None:
    """All experiments are the same one: the wealth's growth in equal pairs, looked at every 1%."""
    promoted, halted = decide(trial(0.0, 0.0), np.random.default_rng(6), 3)
    assert np.isinf(halted).all()
    assert promoted[0] == promoted[1] == promoted[2]
    # The mean of 24 bets of which the greatest wins 0.9 / 0.99 of the margin with each pair.
    least = np.log(20) / np.log1p(0.9 * 0.01 / 0.99)
    most = (np.log(20) + np.log(24)) / np.log1p(0.9 * 0.01 / 0.99)
    assert least <= promoted[0] <= 1.01 * most


def test_more_disagreement_and_a_smaller_margin_take_longer() -> None:
    """And a greater harm is found sooner."""

    def median(margin: float, disagreement: float) -> int:
        asked = Trial(0.0, disagreement, margin, 1_000_000)
        found = forecast(asked, np.random.default_rng(7), 200).promote.median
        assert found is not None
        return found

    assert median(0.01, 0.02) < median(0.01, 0.04) < median(0.01, 0.16)
    assert median(0.02, 0.04) < median(0.01, 0.04) < median(0.005, 0.04)
    harms = [
        forecast(trial(each, 0.1), np.random.default_rng(8), 200) for each in (0.02, 0.05, 0.1)
    ]
    medians = [found.halt.median or 0 for found in harms]
    assert medians == sorted(medians, reverse=True)


def test_a_plan_takes_about_a_second_whatever_its_numbers() -> None:
    """Processor time: ten million pairs, of which hardly any experiment says anything."""
    begun_s = time.process_time()
    forecast(Trial(0.0, 0.9, 0.001, 10_000_000), np.random.default_rng(1))
    assert time.process_time() - begun_s < 10


def test_the_same_seed_gives_the_same_plan() -> None:
    """And another one another."""
    one, again, other = (
        forecast(trial(0.0), np.random.default_rng(seed), 100) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_a_difference_needs_pairs_that_differ() -> None:
    """A mean of 0.05 cannot come of 4% of the pairs."""
    with pytest.raises(ValueError, match="as many pairs"):
        trial(0.05)
