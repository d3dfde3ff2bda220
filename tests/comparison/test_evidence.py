"""What evidence is of, how it starts afresh, and how shards add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from proxy.comparison.counts import Counts, three_counts
from proxy.comparison.evidence import (
    MAX_KEYS,
    Evidence,
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
    add_up,
    key_fields,
    key_of,
    params_of,
)
from proxy.comparison.gates import Metric, correctness
from proxy.comparison.sample_ratio import ArmCounts
from proxy.config.load import load_config
from tests.support.records import pair

PARAMS = Params(
    gates=(
        GateParams(Metric.AGREEMENT, 0.01, has_noise_floor=True),
        GateParams(Metric.AVAILABILITY, 0.001),
        GateParams(Metric.LATENCY, 0.01, budget_s=0.05),
    )
)
KEY = EvidenceKey("score", "score", "v2", "c1", "1", "2")
METRICS = (Metric.AGREEMENT, Metric.AVAILABILITY, Metric.LATENCY)


def overall(evidence: Evidence, metric: Metric, key: EvidenceKey) -> Counts:
    """Return one gate's counts."""
    return next(g.overall for g in evidence.counts(key).gates if g.metric is metric)


def test_pairs_are_counted_in_every_gate_that_looks_at_them() -> None:
    """Agreement where there is a replicate, availability and latency everywhere."""
    evidence = Evidence(PARAMS)
    record = pair(1, 1, 2, replicate=1)
    evidence.note(record)
    evidence.note(pair(2, 1, 2))
    key = key_of(record)
    assert overall(evidence, Metric.AGREEMENT, key) == three_counts(better=0, same=0, worse=1)
    assert overall(evidence, Metric.AVAILABILITY, key).pairs == 2
    assert overall(evidence, Metric.LATENCY, key).pairs == 2


def test_a_failed_candidate_is_missing_to_agreement_and_counted_by_availability() -> None:
    """So it cannot pass by failing."""
    evidence = Evidence(PARAMS)
    record = pair(1, 1, 1, replicate=1, candidate_status="reset")
    evidence.note(record)
    key = key_of(record)
    assert overall(evidence, Metric.AGREEMENT, key) == Counts(missing=1)
    assert overall(evidence, Metric.AVAILABILITY, key).three() == (0, 0, 1)


def test_segments_have_counts_of_their_own() -> None:
    """One for each name and value; the whole counts every pair."""
    evidence = Evidence(PARAMS)
    record = pair(1, segments={"tier": "gold", "language": "de"})
    evidence.note(record)
    evidence.note(pair(2, segments={"tier": "free"}))
    gate = next(g for g in evidence.counts(key_of(record)).gates if g.metric is Metric.AVAILABILITY)
    assert [name for name, _ in gate.segments] == ["language=de", "tier=free", "tier=gold"]
    assert gate.overall.pairs == 2


def test_a_new_model_or_config_starts_afresh() -> None:
    """The key changes, and what was counted under another one is not in it."""
    evidence = Evidence(PARAMS)
    before = pair(1)
    changed = [before | {field: "new"} for field in ("config_version", "candidate_model_version")]
    evidence.note(before)
    evidence.note(before)
    for record in changed:
        evidence.note(record)
        assert overall(evidence, Metric.AVAILABILITY, key_of(record)).pairs == 1
    assert overall(evidence, Metric.AVAILABILITY, key_of(before)).pairs == 2


def test_the_number_of_keys_is_bounded() -> None:
    """The one that was longest without a pair goes, and is counted."""
    evidence = Evidence(PARAMS)
    for number in range(MAX_KEYS + 3):
        evidence.note(pair(1) | {"config_version": f"c{number}"})
    assert evidence.keys()[0].config_version == "c3"
    assert evidence.statistics()["dropped"] == 3


def test_pairs_are_weighed_by_the_inverse_of_their_probability() -> None:
    """A canary's pair, always recorded, counts a tenth of one mirrored at 10%."""
    evidence = Evidence(replace(PARAMS, floor=0.1))
    evidence.note(pair(1, sample_prob=0.1))
    evidence.note(pair(2, sample_prob=1.0))
    evidence.note(pair(3, sample_prob=0.01))
    found = overall(evidence, Metric.AVAILABILITY, key_of(pair(1)))
    assert [(weight > 0, count) for weight, _, count in found.cells] == [(False, 1), (True, 1)]
    assert found.missing == 1


def test_labels_are_counted_when_they_come() -> None:
    """In the gate that waits for them, under the key of their pair."""
    evidence = Evidence(PARAMS)
    record = pair(1)
    evidence.note_label(key_fields(record), correctness(candidate_wrong=True, primary_wrong=False))
    assert overall(evidence, Metric.CORRECTNESS, key_of(record)).three() == (0, 0, 1)


counts = st.builds(
    three_counts,
    better=st.integers(0, 5),
    same=st.integers(0, 50),
    worse=st.integers(0, 5),
    missing=st.integers(0, 3),
)
gates = st.lists(
    st.builds(
        GateCounts,
        st.sampled_from(METRICS),
        counts,
        st.dictionaries(st.sampled_from("abc"), counts).map(lambda d: tuple(sorted(d.items()))),
    ),
    unique_by=lambda gate: gate.metric,
    max_size=3,
).map(lambda found: tuple(sorted(found, key=lambda gate: gate.metric)))
arms = st.dictionaries(
    st.sampled_from(["canary v2", "mirror v2"]),
    st.dictionaries(st.integers(1, 3), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1),
).map(
    lambda found: tuple(
        ArmCounts(name, tuple((bp, *cell) for bp, cell in sorted(cells.items())))
        for name, cells in sorted(found.items())
    )
)
shards = st.lists(st.tuples(gates, arms), min_size=1, max_size=5).map(
    lambda found: [
        EvidenceCounts(KEY, g, a, ((f"pairs-{number}", 7),)) for number, (g, a) in enumerate(found)
    ]
)


@given(parts=shards, cut=st.integers(0, 5))
def test_adding_up_is_associative_and_commutative(parts: list[EvidenceCounts], cut: int) -> None:
    """So it does not matter which replica merges what first."""
    whole = add_up(parts)
    assert add_up(reversed(parts)) == whole
    groups = [group for group in (parts[:cut], parts[cut:]) if group]
    assert add_up([add_up(group) for group in groups]) == whole
    assert add_up([whole]) == whole


@given(seeds=st.lists(st.integers(0, 11), min_size=1, max_size=25), ways=st.integers(1, 5))
def test_pairs_spread_over_processes_give_the_unsharded_counts(seeds: list[int], ways: int) -> None:
    """Exactly: the evidence of five partitions is the evidence of one."""
    whole, *split = (Evidence(PARAMS) for _ in range(ways + 1))
    for number, seed in enumerate(seeds):
        record = RECORDS[seed]
        whole.note(record)
        split[number % ways].note(record)
    key = key_of(RECORDS[0])
    assert add_up([each.counts(key) for each in split]) == whole.counts(key)


def _records() -> list[dict[str, Any]]:
    ends = ("ok", "timeout")
    return [
        pair(1, 1, candidate, replicate=replicate, candidate_status=end, segments={"tier": end})
        for candidate in (1, 2)
        for replicate in (None, 1, 2)
        for end in ends
    ]


RECORDS = _records()


def test_what_does_not_belong_together_is_not_added_up() -> None:
    """Another key, or pairs that would count twice."""
    one = EvidenceCounts(KEY, offsets=(("pairs-0", 7),))
    with pytest.raises(ValueError, match="different experiments"):
        add_up([one, EvidenceCounts(replace(KEY, candidate_version="3"))])
    with pytest.raises(ValueError, match="pairs-0 is counted in two"):
        add_up([one, one])
    with pytest.raises(ValueError, match="do not add up"):
        add_up([])


def test_a_routes_ramp_says_how_it_is_judged(tmp_path: Path) -> None:
    """Margins and budgets from the gates, the floor from the mirror percent."""
    path = tmp_path / "understudy.yaml"
    path.write_text("""
backends: {a: {endpoints: ["http://127.0.0.1:1"]}, b: {endpoints: ["http://127.0.0.1:2"]}}
routes:
  - name: score
    primary: a
    candidates: [{name: v2, backend: b, mirror: 20%}]
    replicate: 2%
    ramp:
      steps: [{weight: 1%}]
      gates: [{metric: agreement, margin: 0.02}, {metric: latency, budget: 50ms}]
""")
    found = params_of(load_config(path, {}).routes[0], "v2")
    assert found.floor == 0.2
    assert found.gates == (
        GateParams(Metric.AGREEMENT, 0.02, has_noise_floor=True),
        GateParams(Metric.LATENCY, 0.01, budget_s=0.05),
    )
