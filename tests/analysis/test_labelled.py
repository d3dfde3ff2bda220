"""Pairs and labels are joined by request id: the latest label, whichever came first."""

from __future__ import annotations

import random
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from hypothesis import given, strategies as st

from proxy.analysis.aggregate import Labels
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import labels_beside
from proxy.analysis.proportions import Correctness
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import Selection, as_dict
from tests.cli.test_compare import compare
from tests.support.deadline import PATIENCE_S
from tests.support.kafka_topics import create_topic
from tests.support.records import pair, write_pairs


def label(number: int, value: Any, ts_ms: int = 0) -> dict[str, Any]:
    """Return the recorded label of the request of pair `number`."""
    return {
        "schema_version": "1", "request_id": f"r-{number}", "label": value, "ts_ms": ts_ms,
        "ts": None, "source": None, "weight": None,
    }  # fmt: skip


@pytest.fixture
def store() -> Iterator[LabelStore]:
    """An empty store."""
    found = LabelStore()
    yield found
    found.close()


def correctness(records: list[dict[str, Any]], store: LabelStore, **selection: Any) -> Correctness:
    """Return what labels say of the only candidate."""
    summary = summarise(records, Selection(**selection), labels=Labels(store, "test"))
    (comparison,) = summary.comparisons
    assert comparison.correctness is not None
    return comparison.correctness


def test_who_is_right_is_counted_both_ways(store: LabelStore) -> None:
    """Pairs without a label, or without both predictions, are in none of the four."""
    records = [
        pair(1, 3, 3), pair(2, 3, 4), pair(3, 4, 3), pair(4, 5, 6), pair(5, 3, 3),
        pair(6, 3, 3, candidate_status="timeout", candidate_body=None,
             candidate_body_state="omitted", candidate_http_status=None),
    ]  # fmt: skip
    store.load([label(n, 3) for n in (1, 2, 3, 4, 6, 99)])
    found = correctness(records, store)
    assert (found.labelled, found.unanswered) == (5, 1)
    assert (found.both, found.only_primary, found.only_candidate, found.neither) == (1, 1, 1, 1)
    assert (found.primary.count, found.primary.total, found.candidate.rate) == (2, 4, 0.5)


def test_a_pair_that_was_delivered_twice_is_judged_once(store: LabelStore) -> None:
    """And one that was not selected, not at all."""
    store.load([label(n, 1) for n in range(1, 11)])
    records = [pair(n) for n in range(1, 11)]
    assert correctness([*records, *records], store).labelled == 10
    chosen = correctness([*records, *records], store, until_ms=records[4]["ts_ms"])
    assert chosen.labelled == 4


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 3)), max_size=30))
def test_the_latest_label_counts_in_whatever_order_they_are_read(
    sent: list[tuple[int, int, int]],
) -> None:
    """By its own time; of the same time, the one that is read later."""
    store = LabelStore()
    store.load([label(*each) for each in sent])
    expected: dict[str, tuple[int, int]] = {}
    for number, value, ts_ms in sent:
        if ts_ms >= expected.get(f"r-{number}", (0, -1))[1]:
            expected[f"r-{number}"] = (value, ts_ms)
    found = store.find([f"r-{n}" for n in range(1, 7)])
    assert found == {request_id: value for request_id, (value, _) in expected.items()}
    assert (store.read, store.requests()) == (len(sent), len(expected))
    store.close()


def test_more_labels_are_found_than_one_statement_may_ask_for(store: LabelStore) -> None:
    """Parquet hands over 32,768 pairs at once."""
    store.load([label(n, n) for n in range(0, 40_000, 1_000)])
    assert len(store.find([f"r-{n}" for n in range(40_000)])) == 40


def test_what_is_no_label_is_counted_and_told(store: LabelStore) -> None:
    """And hides no label."""
    store.load([{"request_id": 1}, label(1, 1), pair(1)])
    assert (store.read, store.bad) == (1, 2)
    summary = summarise([pair(1)], labels=Labels(store, "there"))
    assert summary.labels is not None
    assert summary.labels.bad_example == "request_id: must be a text of 1 to 128 characters"


def test_without_labels_the_summary_says_nothing_of_them() -> None:
    """Null, not zero."""
    value = as_dict(summarise([pair(1)]))
    assert (value["labels"], value["comparisons"][0]["correctness"]) == (None, None)


def test_a_broken_pair_is_not_judged(store: LabelStore) -> None:
    """The rows of its batch are, each with its own predictions."""
    store.load([label(n, n) for n in range(1, 6)])
    records = [pair(n, n, n) for n in range(1, 6)]
    records[2]["candidate_latency_ms"] = "soon"
    found = correctness(records, store)
    assert (found.labelled, found.both) == (4, 4)


def test_memory_stays_flat_with_many_labels(store: LabelStore) -> None:
    """A hundred thousand take no more than ten thousand, in any order."""
    rng = random.Random(5)

    def peak(start: int, count: int) -> int:
        numbers = list(range(start, start + count))
        rng.shuffle(numbers)
        tracemalloc.start()
        store.load(label(number, number % 10) for number in numbers)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(10_000, 100_000) < 2 * peak(0, 10_000) + 2_000_000
    assert store.requests() == 110_000


@pytest.mark.parametrize(
    ("pairs", "labels"),
    [
        ("kafka://a:1/shadow.pairs.v1", "kafka://a:1/shadow.labels.v1"),
        ("kafka://a:1/other", None),
        ("ftp://x", None),
    ],
)
def test_labels_are_looked_for_beside_a_topic(pairs: str, labels: str | None) -> None:
    """By the names that topics have."""
    assert labels_beside(pairs) == labels


def test_the_command_joins_what_lies_in_a_state_directory(tmp_path: Path) -> None:
    """By the folder, by the folder of pairs in it, or by name; `none` leaves them out."""
    records = [pair(n, 3, 3 if n % 10 else 8) for n in range(1, 101)]
    write_pairs(tmp_path / "pairs" / "1.ndjson.zst", records)
    write_pairs(tmp_path / "labels" / "labels-1.ndjson.zst", [label(n, 3) for n in range(1, 51)])
    done = compare("--from", str(tmp_path))
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "50 pairs have a label" in words
    assert "right 100% 90.0%" in words
    assert words.startswith("iris/v2: Not enough yet")
    for arguments in (
        ("--from", str(tmp_path / "pairs")),
        ("--from", str(tmp_path / "pairs"), "--labels", str(tmp_path / "labels")),
    ):
        value = orjson.loads(compare(*arguments, "--json").stdout)
        assert value["comparisons"][0]["correctness"]["only_primary"] == 5
        assert value["labels"]["requests"] == 50
    without = orjson.loads(compare("--from", str(tmp_path), "--labels", "none", "--json").stdout)
    assert without["labels"] is None
    missing = compare("--from", str(tmp_path), "--labels", str(tmp_path / "nowhere"))
    assert (missing.returncode, "there is nothing at" in missing.stderr) == (1, True)


@pytest.mark.kafka
def test_the_command_joins_two_topics(kafka_bootstrap: str) -> None:
    """A topic of pairs without one of labels beside it is compared as before."""
    prefix = f"join-{uuid.uuid4().hex[:8]}"
    source = f"kafka://{kafka_bootstrap}/{prefix}.pairs.v1"
    create_topic(kafka_bootstrap, f"{prefix}.pairs.v1")
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    for number in range(1, 101):
        record = orjson.dumps(pair(number, 3, 3 if number % 10 else 8))
        producer.produce(f"{prefix}.pairs.v1", key=f"r-{number}", value=record)
    assert producer.flush(PATIENCE_S) == 0
    before = orjson.loads(compare("--from", source, "--json").stdout)
    assert (before["labels"], before["comparisons"][0]["pairs"]) == (None, 100)
    create_topic(kafka_bootstrap, f"{prefix}.labels.v1")
    for ts_ms, value in ((2, 3), (1, 8), (2, 3)):
        for number in range(1, 101):
            record = orjson.dumps(label(number, value, ts_ms))
            producer.produce(f"{prefix}.labels.v1", key=f"r-{number}", value=record)
    assert producer.flush(PATIENCE_S) == 0
    after = orjson.loads(compare("--from", source, "--json").stdout)
    assert (after["labels"]["read"], after["labels"]["requests"]) == (300, 100)
    found = after["comparisons"][0]["correctness"]
    assert (found["both"], found["only_primary"]) == (90, 10)
