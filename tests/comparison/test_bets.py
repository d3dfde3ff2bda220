"""The evidence is valid, exact and the same for everybody; bounds agree with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from proxy.comparison.bets import BETS, Cells, Claim, log_threshold
from proxy.comparison.counts import Counts, Tally, three_counts
from proxy.comparison.reproducible import exp, log, log1p
from proxy.comparison.sequences import bounds, quantile_bounds
from proxy.comparison.sketch import QuantileSketch

counts_of_three = st.builds(
    three_counts,
    better=st.integers(0, 500),
    same=st.integers(0, 20_000),
    worse=st.integers(0, 500),
)
differences = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-1, 1))
margins = st.one_of(st.sampled_from([0.001, 0.01, 0.05]), st.floats(1e-4, 0.9))
claims = st.sampled_from([*Claim])


def tallied(pairs: list[tuple[float, float]]) -> Counts:
    """Return the counts of differences with weights."""
    tally = Tally()
    for difference, weight in pairs:
        tally.add(difference, weight)
    return tally.counts()


any_counts = st.lists(
    st.tuples(differences, st.one_of(st.just(1.0), st.floats(2**-10, 1))), max_size=30
).map(tallied)


def evidence(claim: Claim, counts: Counts, margin: float = 0.01) -> float:
    """Return the logarithm of one e-value."""
    return float(Cells.of([counts]).log_evidence(claim, np.array([margin]))[0])


@given(value=st.floats(-740, 700))
def test_exp_is_within_two_ulp(value: float) -> None:
    """Made of operations that IEEE 754 fixes, and still as good as a library's."""
    assert abs(float(exp(np.array([value]))[0]) - math.exp(value)) <= 2 * math.ulp(math.exp(value))


@given(value=st.floats(1e-300, 1e300))
def test_log_is_within_two_ulp(value: float) -> None:
    """Also near 1, where the logarithm is small."""
    assert abs(float(log(np.array([value]))[0]) - math.log(value)) <= 2 * math.ulp(math.log(value))


@given(value=st.one_of(st.floats(-0.95, 10), st.floats(-1e-5, 1e-5)))
def test_log1p_is_within_four_ulp(value: float) -> None:
    """A million factors near 1 are multiplied; what each loses adds up."""
    assume(value == 0 or abs(value) > 1e-300)
    true = math.log1p(value)
    assert abs(float(log1p(np.array([value]))[0]) - true) <= 4 * math.ulp(true)


@given(
    claim=claims,
    margin=margins,
    distances=st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)),
    inclusions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_no_bet_gains_on_average_where_its_claim_is_false(
    claim: Claim,
    margin: float,
    distances: tuple[float, float],
    inclusions: tuple[float, float],
) -> None:
    """The law of it all, at the border E[D] = margin, with unequal chances to be recorded.

    Two kinds of exchanges with D below and above the margin make every such distribution. They are
    recorded with probabilities of their own and weighed by the inverse; rounding is included.
    """
    below = max(margin - distances[0] * (1 + margin), -1.0)
    above = min(margin + distances[1] * (1 - margin), 1.0)
    share = (margin - below) / (above - below)
    floor = min(inclusions)
    recorded = [(1 - share) * inclusions[0], share * inclusions[1]]
    total = sum(recorded)
    factors = []
    for difference, inclusion in zip((below, above), inclusions, strict=True):
        cells = Cells.of([tallied([(difference, floor / inclusion)])])
        factors.append(np.exp(cells.log_factors(claim, np.array([margin]))[:, 0, 0]))
    means = (recorded[0] * factors[0] + recorded[1] * factors[1]) / total
    assert means.shape == (BETS,)
    assert np.all(means <= 1 + 1e-12)


def test_the_evidence_is_the_mean_product_of_the_bets() -> None:
    """Pair after pair, as the definition says, by numpy's own functions."""
    values = np.random.default_rng(7).choice([-1.0, 0.0, 1.0], 400, p=[0.02, 0.96, 0.02])
    shares = 0.9 * 0.8 ** np.arange(24)
    promote = np.prod(1 + shares[:, None] / 0.99 * (0.01 - values), axis=1).mean()
    halt = np.prod(1 + shares[:, None] / 1.01 * (values - 0.01), axis=1).mean()
    tally = Tally()
    tally.add_all(values)
    assert math.isclose(evidence(Claim.PROMOTE, tally.counts()), math.log(promote), rel_tol=1e-12)
    assert math.isclose(evidence(Claim.HALT, tally.counts()), math.log(halt), rel_tol=1e-12)


@given(counts=any_counts, margin=margins, difference=differences)
def test_evidence_is_monotone_in_the_pairs(
    counts: Counts, margin: float, difference: float
) -> None:
    """A pair above the margin never speaks for the candidate, one below it never against it."""
    tally = Tally()
    tally.merge(counts)
    tally.add(difference)
    more = {claim: evidence(claim, tally.counts(), margin) for claim in Claim}
    before = {claim: evidence(claim, counts, margin) for claim in Claim}
    slack = 1e-12
    if difference >= margin:
        assert more[Claim.PROMOTE] <= before[Claim.PROMOTE] + slack
    else:
        assert more[Claim.HALT] <= before[Claim.HALT] + slack
    if difference <= margin - 2**-9:
        assert more[Claim.PROMOTE] >= before[Claim.PROMOTE] - slack
    if difference >= margin + 2**-9:
        assert more[Claim.HALT] >= before[Claim.HALT] - slack


@given(pairs=st.lists(st.floats(-1, 1), min_size=1, max_size=30), claim=claims)
def test_rounding_speaks_against_each_claim(pairs: list[float], claim: Claim) -> None:
    """Neither claim has more evidence than the exact differences give it."""
    shares = 0.9 * 0.8 ** np.arange(24)
    sign = 1 if claim is Claim.PROMOTE else -1
    gains = sign * (0.01 - np.array(pairs))
    exact = np.prod(1 + shares[:, None] / (1 - sign * 0.01) * gains, axis=1).mean()
    assert evidence(claim, tallied([(value, 1.0) for value in pairs])) <= math.log(exact) + 1e-9


@given(rows=st.lists(any_counts, min_size=1, max_size=6), claim=claims, margin=margins)
def test_evidence_among_others_is_evidence_alone(
    rows: list[Counts], claim: Claim, margin: float
) -> None:
    """Bit for bit: segments and looks are computed together, verdicts are checked one by one."""
    together = Cells.of(rows).log_evidence(claim, np.array([margin]))
    assert [float(each) for each in together] == [evidence(claim, row, margin) for row in rows]


def test_no_pairs_are_no_evidence() -> None:
    """E = 1 for both claims; the bounds are those of D itself."""
    assert evidence(Claim.PROMOTE, Counts()) == 0.0
    assert evidence(Claim.HALT, Counts(missing=9)) == 0.0
    assert [float(end[0]) for end in bounds(Cells.of([Counts()]), 0.05)] == [-1.0, 1.0]


def test_a_billion_pairs_overflow_nothing() -> None:
    """Wealth is held as its logarithm."""
    many = three_counts(better=10**8, same=10**9, worse=10**6)
    assert math.isfinite(evidence(Claim.PROMOTE, many))
    assert evidence(Claim.PROMOTE, many) > 1e6
    assert evidence(Claim.HALT, many) < -1e5


@settings(max_examples=20)
@given(counts=counts_of_three, alpha=st.sampled_from([0.05, 0.01]))
def test_bounds_agree_with_the_verdicts(counts: Counts, alpha: float) -> None:
    """The interval holds the mean, and leaves out exactly the margins that are ruled out."""
    cells = Cells.of([counts])
    lower, upper = (float(end[0]) for end in bounds(cells, alpha))
    better, same, worse = counts.three()
    total = better + same + worse
    assert -1 <= lower <= upper <= 1
    assert not total or lower <= (worse - better) / total <= upper
    threshold = log_threshold(alpha)
    for margin in (0.001, 0.01, 0.1):
        if abs(margin - upper) > 2e-6:
            assert (evidence(Claim.PROMOTE, counts, margin) >= threshold) is (upper < margin)
        if abs(margin - lower) > 2e-6:
            assert (evidence(Claim.HALT, counts, margin) >= threshold) is (lower > margin)


@pytest.mark.parametrize("mean", [0.0, 0.03])
def test_bounds_hold_at_every_look(mean: float) -> None:
    """Of 150 experiments looked at 16 times, at most 5% (and chance) ever miss on one side."""
    rng = np.random.default_rng(11)
    ever = np.zeros((2, 150), dtype=bool)
    chances = [0.03 - mean / 2, 0.94, 0.03 + mean / 2]
    counts = np.zeros((150, 3))
    for _ in range(16):
        counts += rng.multinomial(100, chances, size=150)
        cells = Cells([(0, -1024), (0, 0), (0, 1024)], counts)
        lower, upper = bounds(cells, 0.05)
        ever[0] |= lower > mean
        ever[1] |= upper < mean
    assert ever.mean(axis=1).max() <= 0.08


def sketch_of(values: list[float]) -> QuantileSketch:
    """Return a sketch of values."""
    sketch = QuantileSketch()
    sketch.add(values)
    return sketch


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_a_sketch_tells_where_its_values_lie(values: list[float]) -> None:
    """Every value within the ends of one bucket, counted in it or below."""
    lower, upper, up_to = sketch_of(values).occupied()
    assert np.all(lower[1:] >= upper[:-1] - 1e-15)
    assert up_to[-1] == len(values)
    for end, count in zip(upper, up_to, strict=True):
        slack = abs(end) * 1e-12
        assert sum(value <= end - slack for value in values) <= count
        assert sum(value <= end + slack for value in values) >= count


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_bounds_of_a_quantile_hold_at_every_look(share: float) -> None:
    """Of 60 experiments with latencies, looked at 10 times, few ever miss on one side."""
    rng = np.random.default_rng(2)
    true = -10.0 * math.log(1 - share)
    missed = np.zeros((2, 60), dtype=bool)
    for number in range(60):
        sketch = QuantileSketch()
        for _ in range(10):
            sketch.add(rng.exponential(10.0, size=150))
            lower, upper = quantile_bounds(sketch, share, 0.05)
            missed[0, number] |= lower > true
            missed[1, number] |= upper < true
            assert lower < (sketch.quantile(share) or 0.0) < upper
    assert missed.mean(axis=1).max() <= 0.1


def test_bounds_of_a_quantile_close_in() -> None:
    """With 100,000 latencies the p99 is known to some percent; with few, nothing is claimed."""
    rng = np.random.default_rng(2)
    sketch = QuantileSketch()
    assert quantile_bounds(sketch, 0.99, 0.05) == (-np.inf, np.inf)
    sketch.add(rng.exponential(10.0, size=3))
    assert quantile_bounds(sketch, 0.99, 0.05)[1] == np.inf
    sketch.add(rng.exponential(10.0, size=100_000))
    lower, upper = quantile_bounds(sketch, 0.99, 0.05)
    assert 43 < lower < 46.05 < upper < 50
