"""Segments looked at together: e-BH, as it is defined."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from proxy.comparison.bets import Cells, Claim
from proxy.comparison.segments import MAX_SEGMENTS, OTHER, found_by_e_bh, segment_of

log_values = st.lists(st.floats(-5, 15), max_size=20)


@given(values=log_values, alpha=st.sampled_from([0.05, 0.2]))
def test_e_bh_finds_what_its_definition_says(values: list[float], alpha: float) -> None:
    """The k greatest, for the greatest k at which the k-th is at least K / (k alpha)."""
    ordered = sorted(values, reverse=True)
    fitting = [
        k
        for k, value in enumerate(ordered, start=1)
        if value >= math.log(len(values) / (k * alpha))
    ]
    found = found_by_e_bh(values, alpha)
    least = ordered[max(fitting) - 1] if fitting else math.inf
    assert found == tuple(value >= least for value in values)
    assert any(found) is bool(fitting)


def test_one_segment_needs_what_a_gate_needs_and_many_need_more() -> None:
    """E of 25 is enough alone, and not among three; together they carry each other."""
    assert found_by_e_bh([math.log(25)], 0.05) == (True,)
    assert found_by_e_bh([math.log(25), 0.0, 0.0], 0.05) == (False, False, False)
    assert found_by_e_bh([math.log(35), math.log(35), 0.0], 0.05) == (True, True, False)
    assert found_by_e_bh([], 0.05) == ()


def test_what_is_not_a_number_is_never_found() -> None:
    """And hides nothing."""
    assert found_by_e_bh([math.nan, 10.0], 0.05) == (False, True)


def test_false_findings_are_rare_among_twenty_segments_at_every_look() -> None:
    """80 experiments with all segments at the margin, stopped at the first finding."""
    rng = np.random.default_rng(5)
    counts = np.zeros((80 * 20, 3))
    is_found = np.zeros(80, dtype=bool)
    for _ in range(8):
        counts += rng.multinomial(120, [0.015, 0.96, 0.025], size=80 * 20)
        cells = Cells([(0, -1024), (0, 0), (0, 1024)], counts)
        values = cells.log_evidence(Claim.HALT, np.array([0.01])).reshape(80, 20)
        is_found |= np.array([any(found_by_e_bh(row.tolist(), 0.05)) for row in values])
    assert is_found.mean() <= 0.05


def test_segments_beyond_the_bound_are_counted_together() -> None:
    """Those that are known stay their own."""
    known = [f"tier={number}" for number in range(MAX_SEGMENTS)]
    assert segment_of(known, MAX_SEGMENTS, "tier=7") == "tier=7"
    assert segment_of(known, MAX_SEGMENTS, "tier=new") == OTHER
    assert segment_of(known[:-1], MAX_SEGMENTS - 1, "tier=new") == "tier=new"
