"""The terminal report shows what matters, fits the terminal, and cannot be abused by its data."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from proxy.analysis.aggregate import Labels
from proxy.analysis.label_store import LabelStore
from proxy.analysis.report import render
from proxy.analysis.sources import SourceStatistics
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import Selection, Summary
from tests.support.records import NUMERIC, pair


def text_of(summary: Summary, width: int = 80) -> str:
    """Return the report as a file would get it."""
    out = io.StringIO()
    render(summary, Console(file=out, width=width))
    return out.getvalue()


def many(candidates: tuple[str, ...], **changes: Any) -> list[dict[str, Any]]:
    """Return 40 pairs of each candidate, one in eight differing."""
    return [
        pair(
            n, 3, 8 if n % 8 == 0 else 3,
            candidate=candidates[n % len(candidates)], replicate=3 if n % 5 == 0 else None,
            **changes,
        )
        for n in range(1, 40 * len(candidates) + 1)
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """However many candidates there are, and however long their names."""
    names = ("v2", "a-candidate-with-a-rather-long-name", "v3", "v4", "v5")
    report = text_of(summarise(many(names)), width)
    assert max(map(len, report.splitlines())) <= width
    assert "\x1b" not in report
    for name in names:
        assert name in report.replace("\n", "")


def test_the_first_line_is_the_finding_and_rows_show_both_sides() -> None:
    """Two candidates stand side by side at 80 columns."""
    report = text_of(summarise(many(("v2", "v3"))))
    first = report.splitlines()[0]
    assert first.startswith("iris/v2: 40 pairs, ")
    assert "No verdict" in report
    header = next(line for line in report.splitlines() if "primary" in line and "v2" in line)
    assert header.split() == ["primary", "v2", "primary", "v3"]
    rows = {line.strip().split("  ")[0]: line for line in report.splitlines()}
    assert "itself 100%" in rows["agree with primary"]
    assert "2.00 ms" in rows["latency p99"]
    assert "3 → 8: 10" in report


def test_labels_add_rows_and_hide_none() -> None:
    """Rows are told apart by their names: two of one name would be one."""
    records = many(("v2",))
    store = LabelStore()
    store.load({"request_id": record["request_id"], "label": 3} for record in records[:20])
    before = text_of(summarise(records)).splitlines()
    after = text_of(summarise(records, labels=Labels(store, "test"))).splitlines()
    store.close()
    rows = {line.strip().split("  ")[0]: line.split() for line in after}
    assert rows["labelled"] == ["labelled", "20"]
    assert rows["right"] == ["right", "100%", "90.0%"]
    assert rows["only this one"][-2:] == ["2", "0"]
    agreement = next(line for line in before if "95%, one look" in line)
    assert agreement.split() in [line.split() for line in after]


def test_rows_that_one_candidate_lacks_stay_in_their_place() -> None:
    """Statuses of the second candidate are not appended behind the latencies."""
    records = many(("v2",)) + [
        pair(1000 + n, candidate="v3", candidate_status="timeout", candidate_body=None,
             candidate_body_state="omitted", candidate_error="no answer in 30 s")
        for n in range(3)
    ]  # fmt: skip
    report = text_of(summarise(records))
    assert report.index("  timeout") < report.index("latency p50")
    assert "candidate's errors: no answer in 30 s 3" in report
    assert "candidate_timeout" in report or "candidate_failed" in report


def test_numbers_are_ranked_by_difference() -> None:
    """With the column that ranks them."""
    report = text_of(summarise([pair(n, 0, n, compare=NUMERIC) for n in range(1, 20)]))
    assert "largest differences" in report
    assert "abs diff max" in report
    assert report.index("r-19") < report.index("r-18")


def test_names_from_outside_cannot_write_to_the_terminal() -> None:
    """Neither escape sequences nor rich's own markup."""
    evil = "\x1b[2J[bold red]x[/]\r\u202e"
    records = [
        pair(n, evil, "y", request_id=evil, candidate=evil, candidate_error=evil) for n in (1, 2)
    ]
    report = text_of(summarise(records), width=200)
    assert not {"\x1b", "\r", "\u202e"} & set(report)
    assert "\\x1b[2J[bold red]x[/]\\r\\u202e" in report


def test_weak_data_is_said_and_sound_data_too() -> None:
    """Each weakness in its own sentence."""
    sound = text_of(summarise(many(("v2",))))
    assert "Data health: no gaps" in sound
    records = [
        pair(n, config_version="a" if n < 20 else "b", sample_prob=1.0 if n < 30 else 0.5,
             primary_body_state="truncated")
        for n in range(1, 60) if n != 41
    ]  # fmt: skip
    weak = text_of(summarise([*records, records[0], {"no": "pair"}]))
    for words in (
        "1 pairs are missing",
        "1 pairs were delivered again",
        "1 records are no pairs that this version reads; the first: it has no schema_version",
        "58 answers of the primary (100%) were longer than is recorded",
        "recorded under 2 configurations",
        "recorded with different probabilities",
    ):
        assert words in " ".join(weak.split())


def test_an_empty_source_says_how_to_get_pairs() -> None:
    """And a selection that takes nothing says that."""
    files, topic = SourceStatistics("state", "files"), SourceStatistics("kafka://a:1/b", "kafka")
    empty = summarise([])
    for source, words in ((files, "kafka://HOST:PORT/TOPIC"), (topic, "topic_prefix")):
        summary = Summary(empty.format, source, empty.selection, empty.health, empty.comparisons)
        report = " ".join(text_of(summary).split())
        assert report.startswith(f"No pairs in {source.name}.")
        assert words in report
        assert "Data health" not in report
    missed = " ".join(text_of(summarise([pair(1)], Selection(route="nope"))).split())
    assert missed.startswith("No pairs selected: none of the 1 ")
