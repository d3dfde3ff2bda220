"""A verdict is about what answers now, charges failures to it, and comes out of its record again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.analysis.aggregate import Aggregate, Labels, Reading
from proxy.analysis.findings import CandidateFindings, GateFinding
from proxy.analysis.judging import DEFAULTS, Judging
from proxy.analysis.label_store import LabelStore
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.summarise import summarise, verdict_of
from proxy.analysis.summary import as_dict
from proxy.analysis.verdict_report import document, read_record
from proxy.comparison.evidence import Evidence
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Verdict, judge
from tests.support.records import START_MS, pair

FAILED: dict[str, Any] = {
    "candidate_status": "timeout",
    "candidate_http_status": None,
    "candidate_body": None,
    "candidate_body_state": "omitted",
}


def versioned(n: int, version: str | None, **changes: Any) -> dict[str, Any]:
    """Return a pair that the candidate's `version` answered."""
    changes.setdefault("primary", 1)
    record = pair(n, changes.pop("primary"), changes.pop("candidate_says", 1), **changes)
    return record | {"primary_model_version": "p", "candidate_model_version": version}


def found(records: list[dict[str, Any]], **judging: Any) -> CandidateFindings:
    """Return the findings about the one candidate in `records`."""
    (one,) = summarise(records, judging=Judging(**judging)).candidates
    return one


def gate(findings: CandidateFindings, metric: str) -> GateFinding:
    """Return one gate of the verdict."""
    return next(each for each in findings.verdict.gates if each.metric == metric)


def verdict_on(records: list[dict[str, Any]], judging: Judging = DEFAULTS) -> Verdict:
    """Return the verdict on iris/v2."""
    reading = Reading(judging=judging)
    aggregate = Aggregate(reading)
    for record in records:
        aggregate.add(record)
    aggregate.flush()
    return verdict_of(aggregate, reading, ("iris", "v2"))


def test_the_newest_version_decides_and_older_ones_are_told_apart() -> None:
    """A bad build that was replaced does not count against its successor."""
    bad = [versioned(n, "1", candidate_says=2) for n in range(1, 201)]
    good = [versioned(n, "2") for n in range(201, 1_001)]
    one = found([*bad, *good])
    assert [(v.candidate_version, v.pairs, v.is_deciding) for v in one.versions] == [
        ("2", 800, True), ("1", 200, False),
    ]  # fmt: skip
    assert gate(one, "agreement").n == 800
    assert one.verdict.verdict == "continue"
    assert found(bad).verdict.verdict == "halt"


def test_a_failure_is_charged_to_the_version_that_answered_last() -> None:
    """A call that times out names none; also when it comes first, or in another part."""
    records = [versioned(n, None, **FAILED) for n in range(1, 4)]
    records += [versioned(n, "1") for n in range(4, 100)]
    records += [versioned(n, None, **FAILED) for n in range(100, 103)]
    one = found(records)
    assert [(v.candidate_version, v.pairs) for v in one.versions] == [("1", 102)]
    assert gate(one, "availability").counts.worse == 6
    halves = [Aggregate(Reading()), Aggregate(Reading())]
    for half, part in zip(halves, (records[:100], records[100:]), strict=True):
        for record in part:
            half.add(record)
        half.flush()
    halves[0].merge(halves[1])
    whole = verdict_of(halves[0], Reading(), ("iris", "v2"))
    assert whole == verdict_on(records)


def test_the_counts_are_those_of_the_evidence_that_takes_pair_by_pair() -> None:
    """Against `comparison.evidence`, with replicates, failures, segments and unequal sampling."""
    records = []
    for n in range(1, 400):
        record = versioned(
            n, "1", candidate_says=2 if n % 9 == 0 else 1,
            replicate=None if n % 3 else (2 if n % 5 == 0 else 1),
            candidate_latency_us=60_000 if n % 7 == 0 else 2_000,
            sample_prob=0.5 if n % 2 else 1.0,
            **(FAILED if n % 11 == 0 else {}),
        )  # fmt: skip
        record["candidate_model_version"] = "1"
        record["segments"] = {"tier": "ab"[n % 2], "language": "de"}
        records.append(record)
    metrics = (Metric.AGREEMENT, Metric.AVAILABILITY, Metric.LATENCY)
    verdict = verdict_on(records, Judging(metrics=metrics, budget_s=0.05))
    evidence = Evidence(verdict.params)
    for record in records:
        evidence.note(record)
    (key,) = evidence.keys()
    assert verdict.params.floor == 0.5
    assert verdict.counts.key == key
    assert verdict.counts.gates == evidence.counts(key).gates
    assert verdict == judge(verdict.counts, verdict.params)


def test_a_verdict_comes_out_of_its_record_bit_for_bit() -> None:
    """And a record that was changed is found out."""
    verdict = verdict_on([versioned(n, "1", candidate_says=n % 50) for n in range(1, 300)])
    told = orjson.dumps(document(verdict, "defaults", (), None, None))
    assert read_record(told) == verdict
    said = orjson.loads(told)
    assert said["sentence"].startswith("iris/v2: halt. More disagreement than the margin allows")
    assert read_record(orjson.dumps(said["record"])) == verdict
    said["record"]["outcome"] = "promote"
    with pytest.raises(ValueError, match="its counts give"):
        read_record(orjson.dumps(said))
    with pytest.raises(ValueError, match="not a verdict"):
        read_record(b"[1]")


def test_labels_take_the_place_of_agreement() -> None:
    """A better candidate disagrees; what counts is who is right, and whether scores mean it."""
    store = LabelStore()
    records = []
    for n in range(1, 601):
        label = n % 2
        right, wrong = [0.8, 0.2][:: 1 - 2 * label], [0.3, 0.7][:: 1 - 2 * label]
        says = wrong if n % 10 == 0 else right
        records.append(versioned(n, "1", primary=says, candidate_says=right))
    store.load({"request_id": f"r-{n}", "label": n % 2} for n in range(1, 601))
    (one,) = summarise(records, labels=Labels(store, "here")).candidates
    store.close()
    assert {each.metric for each in one.verdict.gates} == {"correctness", "availability"}
    assert gate(one, "correctness").counts.better == 60
    assert gate(one, "correctness").verdict == "promote"
    assert one.calibration is not None
    assert one.calibration.candidate.n == 600
    assert one.calibration.candidate.brier == pytest.approx(0.04)
    assert one.calibration.candidate.bins[8].right == 1.0
    assert one.calibration.primary.bins[7].right == 0.0
    assert one.drift is not None
    assert one.drift.kind == "label"


def test_no_pair_that_can_be_judged_is_no_data() -> None:
    """Never a pass; the sentence says what is missing."""
    one = found([versioned(n, "1", **FAILED) for n in range(1, 50)], metrics=(Metric.AGREEMENT,))
    assert one.verdict.verdict == "no_data"
    assert one.sentence.startswith("iris/v2: no_data. No data about disagreement")


def test_a_segment_that_is_worse_is_flagged() -> None:
    """By e-BH, of all segments; its numbers are its own."""
    records = []
    for n in range(1, 2_001):
        is_hit = n % 20 == 0
        record = versioned(n, "1", candidate_says=2 if is_hit and n % 40 == 0 else 1)
        records.append(record | {"segments": {"language": "fi" if is_hit else "en"}})
    one = found(records)
    flagged = {each.value: each.flagged for each in one.segments}
    assert flagged == {"en": False, "fi": True}
    assert one.verdict.reason in (
        "agreement: worse_than_margin", "agreement: worse_than_margin in language=fi",
    )  # fmt: skip
    assert one.versions[0].first_ts_ms == START_MS + 1_000


def test_quantiles_have_bounds_that_may_be_looked_at_all_the_time() -> None:
    """Around the true ones; none where there is too little to claim anything."""
    records = [
        versioned(n, "1", candidate_latency_us=1_000 * (n % 100 + 1)) for n in range(1, 2_001)
    ]
    side = found(records).latency_ms.candidate
    for name, true in (("p50", 50.0), ("p90", 90.0)):
        low, high = side.bounds[name]
        assert low is not None
        assert high is not None
        assert true - 8 < low < true < high < true + 8
    assert found(records[:3]).latency_ms.candidate.bounds["p50"] == (None, None)
    told = markdown_of(page_of(as_dict(summarise(records))))
    assert "bounds of the quantile that hold however often one looks" in told
