"""A summary counts every pair once, exactly, whatever else is in the stream."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from proxy.analysis.aggregate import BATCH_ROWS, MAX_GROUPS, Aggregate, Reading
from proxy.analysis.sources import SourceStatistics
from proxy.analysis.summarise import summarise, summary_of
from proxy.analysis.summary import Comparison, Selection, as_dict
from tests.support.records import NUMERIC, START_MS, pair

FAILED: dict[str, Any] = {
    "candidate_http_status": None,
    "candidate_body": None,
    "candidate_body_state": "omitted",
}


def only(records: list[dict[str, Any]], **selection: Any) -> Comparison:
    """Return the one comparison of `records`."""
    (comparison,) = summarise(records, Selection(**selection)).comparisons
    return comparison


def test_agreement_is_equal_pairs_among_the_comparable_ones() -> None:
    """A failed leg is no disagreement: it is an error, and the reason is counted."""
    records = [pair(n, 1, 1) for n in range(1, 91)]
    records += [pair(n, 1, 2) for n in range(91, 99)]
    records += [pair(n, candidate_status="timeout", **FAILED) for n in range(99, 101)]
    found = only(records)
    assert found.pairs == 100
    assert (found.agreement.count, found.agreement.total) == (90, 98)
    assert found.agreement.rate == pytest.approx(90 / 98)
    assert found.not_comparable == {"candidate_failed": 2}
    assert (found.candidate_leg.errors.count, found.candidate_leg.errors.total) == (2, 100)
    assert found.primary_leg.errors.count == 0
    assert found.candidate_leg.statuses == {"ok": 98, "timeout": 2}
    assert found.candidate_leg.http_statuses == {"200": 98}
    assert found.verdict is None


def test_the_interval_is_wilsons() -> None:
    """Against the published value for 81 of 263 (Newcombe 1998, table I: .2553 to .3662)."""
    records = [pair(n, 1, 1 if n <= 81 else 2) for n in range(1, 264)]
    agreement = only(records).agreement
    assert agreement.low == pytest.approx(0.2553, abs=5e-5)
    assert agreement.high == pytest.approx(0.3662, abs=5e-5)


def test_legs_that_were_never_tried_say_nothing_about_errors() -> None:
    """Shed, cancelled and unsent legs are in the counts, not in the rate."""
    statuses = ["shed", "cancelled", "not_sent", "connect_error", "reset", "http_error"]
    records = [
        pair(n, candidate_status=status, candidate_error=f"why {status}", **FAILED)
        for n, status in enumerate(statuses, 1)
    ]
    found = only([*records, pair(7)]).candidate_leg
    assert (found.errors.count, found.errors.total) == (3, 4)
    assert found.statuses == dict.fromkeys((*statuses, "ok"), 1)
    assert found.top_errors["why shed"] == 1


def test_the_noise_floor_comes_from_the_replicates() -> None:
    """How often the primary agrees with itself, over the pairs that asked it twice."""
    records = [pair(n, 1, 1, replicate=2 if n % 10 == 0 else 1) for n in range(1, 51)]
    records += [pair(n, 1, 1) for n in range(51, 101)]
    noise = only(records).self_agreement
    assert (noise.count, noise.total) == (45, 50)
    assert only([pair(1)]).self_agreement.rate is None


def test_latency_is_of_answered_legs_and_differences_are_paired() -> None:
    """A time-out's 30 s would say how long we waited, not how fast the model is."""
    records = [
        pair(n, primary_latency_us=1000 * n, candidate_latency_us=1000 * n + 5000)
        for n in range(1, 101)
    ]
    records.append(pair(101, candidate_status="timeout", candidate_latency_us=30_000_000, **FAILED))
    found = only(records)
    assert found.primary_leg.latency_ms.count == 101
    assert found.candidate_leg.latency_ms.maximum == 105
    assert found.candidate_leg.latency_ms.p50 == pytest.approx(55, rel=0.011)
    assert found.latency_difference_ms.count == 100
    assert found.latency_difference_ms.p50 == pytest.approx(5, rel=0.01)
    assert found.latency_difference_ms.mean == pytest.approx(5)


def test_the_worst_differences_come_first_and_are_shortened() -> None:
    """By absolute difference; of equals, the first."""
    rng = random.Random(3)
    sizes = [rng.randrange(1, 1000) for _ in range(800)]
    records = [pair(n, 0, size, compare=NUMERIC) for n, size in enumerate(sizes, 1)]
    records.append(pair(801, [0.0] * 500, [5000.0] + [0.0] * 499, compare=NUMERIC))
    worst = only(records, worst=4).worst
    assert [entry.abs_diff for entry in worst] == [5000, *sorted(sizes, reverse=True)[:3]]
    assert len(worst[0].candidate_prediction) < 200
    assert worst[0].candidate_prediction.endswith("…")
    assert worst[0].first_diff_path == "y[0]"
    found = only(records)
    assert found.abs_diff.count == 801
    assert found.abs_diff.maximum == 5000


def test_without_numbers_the_first_differences_are_shown_and_labels_are_tabulated() -> None:
    """Score vectors count by the label they mean."""
    records = [pair(n, "cat", "dog" if n % 2 else "cow") for n in range(1, 10)]
    records.append(pair(10, [0.1, 0.9], [0.8, 0.2]))
    found = only(records, worst=2)
    assert [entry.request_id for entry in found.worst] == ["r-1", "r-2"]
    table = [(entry.primary, entry.candidate, entry.pairs) for entry in found.confusion]
    assert table == [('"cat"', '"dog"', 5), ('"cat"', '"cow"', 4), ("1", "0", 1)]
    assert only(records, worst=0).worst == ()


def test_a_pair_delivered_twice_counts_once() -> None:
    """At least once is what a log promises."""
    records = [pair(n, 1, n % 2) for n in range(1, 2 * BATCH_ROWS)]
    summary = summarise(records + records[::-1])
    assert summary.comparisons == summarise(records).comparisons
    assert summary.health.duplicates == len(records)
    assert summary.health.selected == len(records)


def test_lost_pairs_show_as_gaps_but_not_in_a_window() -> None:
    """A reading that began in the middle cannot tell loss from its own edge."""
    records = [pair(n) for n in range(1, 50) if n not in (7, 8, 30)]
    health = summarise(records).health
    assert health.missing == 3
    assert health.gaps[0].instance == records[0]["instance"]
    aggregate = Aggregate(Reading())
    for record in records:
        aggregate.add(record)
    aggregate.flush()
    window = SourceStatistics("kafka://x/y", "kafka", is_window=True)
    assert summary_of(aggregate, Reading(), window).health.missing is None


def test_candidates_and_routes_are_kept_apart_and_sorted() -> None:
    """Each is compared with the primary of its own pairs."""
    records = [
        pair(n, 1, 1 if name == "v2" else 2, route=route, candidate=name)
        for n, (route, name) in enumerate([("b", "v2"), ("a", "v3"), ("a", "v2"), ("a", "v2")], 1)
    ]
    found = summarise(records).comparisons
    assert [(c.route, c.candidate, c.pairs, c.agreement.count) for c in found] == [
        ("a", "v2", 2, 2), ("a", "v3", 1, 0), ("b", "v2", 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, 20),
        ({"route": "iris"}, 20),
        ({"route": "other"}, 0),
        ({"candidate": "v3"}, 10),
        ({"since_ms": START_MS + 6000}, 15),
        ({"until_ms": START_MS + 6000}, 5),
        ({"candidate": "v2", "since_ms": START_MS + 6000, "until_ms": START_MS + 8000}, 1),
    ],
)
def test_a_selection_takes_what_it_names(selection: dict[str, Any], expected: int) -> None:
    """`since` belongs to the window, `until` does not; health is of all that was read."""
    records = [pair(n, candidate="v2" if n % 2 else "v3") for n in range(1, 21)]
    summary = summarise(records, Selection(**selection))
    assert summary.health.selected == expected
    assert summary.health.records == 20
    assert sum(comparison.pairs for comparison in summary.comparisons) == expected


BAD: list[dict[str, Any]] = [
    {},
    {"hello": "world"},
    pair(100) | {"schema_version": "2"},
    pair(100) | {"seq": "1"},
    pair(100) | {"seq": -1},
    pair(100) | {"seq": 2**70},
    pair(100) | {"seq": True},
    pair(100) | {"instance": None},
    pair(100) | {"instance": ["a"]},
    pair(101) | {"route": ["a"]},
    pair(101) | {"route": 5},
    pair(102) | {"ts_ms": "now"},
    pair(103) | {"primary_latency_ms": "fast"},
    pair(104) | {"abs_diff": [1]},
    pair(105) | {"primary_status": {"a": 1}},
    pair(106) | {"candidate_model_version": ["v"]},
    {key: value for key, value in pair(107).items() if key != "comparable"},
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_record_is_counted_and_costs_no_other(bad: dict[str, Any]) -> None:
    """Wherever in a batch it is, and whatever is wrong with it."""
    records = [pair(n, 1, 2) for n in range(1, 41)]
    summary = summarise([*records[:20], bad, *records[20:]])
    assert summary.health.bad_records == 1
    assert summary.health.bad_example
    (comparison,) = summary.comparisons
    assert comparison.pairs == summary.health.selected == 40
    assert len(comparison.worst) == 5


def test_records_of_a_later_release_with_more_fields_are_read() -> None:
    """Within one schema version fields may be added."""
    assert only([pair(1) | {"new_field": {"deep": [1]}}]).pairs == 1


def test_a_summary_is_json_that_reads_back() -> None:
    """Field for field."""
    value = as_dict(summarise([pair(n, 1, n % 3) for n in range(1, 30)]))
    assert orjson.loads(orjson.dumps(value)) == value
    assert value["format"] == "understudy.compare/1"
    assert value["comparisons"][0]["verdict"] is None


def test_no_records_give_an_empty_summary() -> None:
    """Not an error."""
    summary = summarise([])
    assert (summary.comparisons, summary.health.records, summary.health.missing) == ((), 0, 0)


def test_hostile_variety_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never answers with the same version, label or error, and many candidates."""
    monkeypatch.setattr("proxy.analysis.tally.MAX_VALUES", 100)
    monkeypatch.setattr("proxy.analysis.tally.MAX_CELLS", 100)
    template = pair(1, 1, 2)

    def hostile(count: int) -> Iterator[dict[str, Any]]:
        for n in range(1, count + 1):
            yield template | {
                "seq": n,
                "candidate_model_version": f"build {n}",
                "candidate_status": "reset",
                "candidate_error": f"reset {n} " + "x" * 500,
                "not_comparable_reason": f"reason {n}",
                "candidate_prediction": f"label {n}",
            }

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            summarise(hostile(count))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(3_000) < 1.2 * peak(1_000)
    (comparison,) = summarise(hostile(1_000)).comparisons
    assert comparison.pairs == 1_000
    assert comparison.candidate_leg.model_versions["(other)"] == 900


def test_candidates_beyond_what_a_report_holds_are_counted() -> None:
    """Instead of filling the memory."""
    template = pair(1)
    summary = summarise(template | {"candidate": f"c{n}", "seq": n} for n in range(MAX_GROUPS + 9))
    assert len(summary.comparisons) == MAX_GROUPS
    assert summary.health.not_tabulated == 9
