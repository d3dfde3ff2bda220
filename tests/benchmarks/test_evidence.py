"""The simulation is one of a look after every pair, and its figures are what the claims say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import claims
from benchmarks.evidence import DESIGN, DISCORDANCE, GROUPS, sample_of, shards_agree
from benchmarks.experiments import Booleans, Design, Law, Pairs, decide, mcnemar_alarms
from benchmarks.groups import find_groups, noisy_law
from proxy.comparison.bets import Cells, Claim, log_threshold
from proxy.comparison.reproducible import Floats

SHORT = Design(margin=0.01, alpha=0.2, looks=700)


class Kept(Pairs):
    """Pairs of one experiment that are remembered, as differences."""

    def __init__(self, law: Law, rng: np.random.Generator) -> None:
        super().__init__(law, rng)
        self.differences: list[float] = []

    def draw(self, experiments: int, count: int) -> tuple[NDArray[np.int64], Booleans]:
        """Draw, and remember."""
        gaps, is_worse = super().draw(experiments, count)
        for gap, worse in zip(gaps[0], is_worse[0], strict=True):
            self.differences += [0.0] * (int(gap) - 1) + [1.0 if worse else -1.0]
        return gaps, is_worse


def first_look(claim: Claim, differences: list[float]) -> float:
    """Return the first of all looks with the evidence, each computed by itself."""
    seen = np.array(differences[: SHORT.looks])
    counts: Floats = np.stack(
        [np.cumsum(seen == value) for value in (-1.0, 0.0, 1.0)], axis=1
    ).astype(np.float64)
    cells = Cells([(0, -1024), (0, 0), (0, 1024)], counts)
    values = cells.log_evidence(claim, np.full(1, SHORT.margin))
    reached = np.flatnonzero(values >= log_threshold(SHORT.alpha))
    return float(reached[0] + 1) if reached.size else np.inf


@pytest.mark.parametrize("difference", [0.0, 0.01, 0.03, -0.04])
def test_no_look_is_left_out(difference: float) -> None:
    """Decisions come at the very pair at which looking after every pair would make them."""
    decided = 0
    for seed in range(25):
        pairs = Kept(Law(difference, 0.04), np.random.default_rng(seed))
        found = decide(pairs, 1, SHORT)
        promoted = first_look(Claim.PROMOTE, pairs.differences)
        halted = first_look(Claim.HALT, pairs.differences)
        is_halt = halted <= promoted
        assert found.promoted[0] == (np.inf if is_halt else promoted)
        assert found.halted[0] == (halted if is_halt else np.inf)
        decided += min(promoted, halted) < np.inf
    assert decided > 0


def test_errors_and_pairs_to_a_verdict_are_as_claimed() -> None:
    """The short form of the benchmark: 150 experiments for each true difference."""
    samples = []
    for number, difference in enumerate((0.0, 0.01, 0.03)):
        pairs = Pairs(Law(difference, DISCORDANCE), np.random.default_rng(number))
        samples.append(sample_of(difference, decide(pairs, 150, DESIGN)))
    none, margin, worse = samples
    for share in (none.halted, margin.promoted, margin.halted):
        assert share * 100 <= claims.ERRORS.limit
    assert none.median_promoted is not None
    assert claims.PROMOTE_PAIRS.is_met_by(none.median_promoted)
    assert worse.median_halted is not None
    assert claims.HALT_PAIRS.is_met_by(worse.median_halted)


def test_the_naive_test_alarms_again_and_again() -> None:
    """McNemar's, looked at every 100 of 20,000 pairs: some 43% at a nominal 5%."""
    rng = np.random.default_rng(1)
    often = mcnemar_alarms(Law(0.0, DISCORDANCE), 400, range(100, 20_001, 100), rng)
    once = mcnemar_alarms(Law(0.0, DISCORDANCE), 2_000, range(2_000, 2_001, 2_000), rng)
    assert 0.33 < often < 0.53
    assert 0.03 < once < 0.07


def test_noise_of_the_primary_halts_nobody() -> None:
    """Two calls to the same model differ in 2% of requests, so a replicate is as far off."""
    noisy = decide(Pairs(noisy_law(0.02), np.random.default_rng(7)), 100, DESIGN)
    assert np.isinf(noisy.halted).mean() >= 0.95
    assert np.isfinite(noisy.promoted).mean() >= 0.95
    # Without the noise floor 2% of the pairs count against the candidate, twice the margin.
    naive = decide(Pairs(Law(0.02, 0.02), np.random.default_rng(7)), 100, DESIGN)
    assert np.isfinite(naive.halted).mean() >= 0.95


def test_the_group_that_is_served_worse_is_named_and_no_other() -> None:
    """The short form: 20 experiments, looked at every 400 pairs of each group."""
    found = find_groups(replace(GROUPS, looks=range(400, 3_601, 400)), 20, np.random.default_rng(2))
    assert found.named >= 0.95
    assert found.misnamed <= 0.05


def test_five_shards_give_the_verdict_of_one_process() -> None:
    """Bit for bit, merged in any order."""
    assert shards_agree(1)
