"""Reports of real summaries: what was recorded, compared and judged arrives on the page."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from proxy.analysis.aggregate import Labels
from proxy.analysis.label_store import LabelStore
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.reports.terminal import render
from proxy.analysis.sources import SourceStatistics
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import Selection, Summary, as_dict
from tests.support.records import NUMERIC, pair


def text_of(summary: Summary, width: int = 100) -> str:
    """Return the report as a file would get it."""
    out = io.StringIO()
    render(page_of(as_dict(summary)), Console(file=out, width=width))
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


def test_all_candidates_are_in_all_forms() -> None:
    """With their verdicts first, also those with long names."""
    names = ("v2", "a-candidate-with-a-rather-long-name", "v3")
    summary = summarise(many(names))
    page = page_of(as_dict(summary))
    for text in (text_of(summary), markdown_of(page), html_of(page)):
        for name in names:
            assert f"iris/{name}" in text
    assert text_of(summary).startswith("iris/a-candidate-with-a-rather-long-name: ")


def test_the_figures_are_those_of_the_pairs() -> None:
    """Agreement, the noise floor, latency, labels."""
    report = text_of(summarise(many(("v2",))))
    rows = {line.strip().split("  ")[0]: line.split() for line in report.splitlines()}
    assert rows["candidate agrees with primary"][-3:] == ["87.5%", "73.9-94.5%", "40"]
    assert rows["primary differs from itself (noise floor)"][-3:] == ["0%", "0.0-32.4%", "8"]
    assert "2.00 ms" in report
    assert rows["3 → 8"][-2] == "5"


def test_labels_add_a_section_and_hide_none() -> None:
    """Who is right."""
    records = many(("v2",))
    store = LabelStore()
    store.load({"request_id": record["request_id"], "label": 3} for record in records[:20])
    report = text_of(summarise(records, labels=Labels(store, "test")))
    store.close()
    assert "20 pairs have a label that says the right answer." in report
    rows = {line.strip().split("  ")[0]: line.split() for line in report.splitlines()}
    assert rows["right"] == ["right", "100%", "90.0%"]
    assert rows["only this one right"][-2:] == ["2", "0"]


def test_errors_are_counted_with_their_texts() -> None:
    """Of either side."""
    records = many(("v2",)) + [
        pair(1000 + n, candidate="v2", candidate_status="timeout", candidate_body=None,
             candidate_body_state="omitted", candidate_error="no answer in 30 s")
        for n in range(3)
    ]  # fmt: skip
    rows = {
        line.strip().split("  ")[0]: line.split()
        for line in text_of(summarise(records)).splitlines()
    }
    assert rows["timeout"] == ["timeout", "0", "3", "(7.0%)"]
    assert rows["no answer in 30 s"][-2:] == ["0", "3"]


def test_numbers_are_ranked_by_difference() -> None:
    """The greatest first."""
    report = text_of(summarise([pair(n, 0, n, compare=NUMERIC) for n in range(1, 20)]))
    assert report.index("r-19") < report.index("r-18")
    assert "absolute difference 19.0" in report


def test_weak_data_is_said_and_sound_data_too() -> None:
    """Each weakness in its own sentence."""
    assert "No gaps, duplicates, damage or truncated answers." in text_of(summarise(many(("v2",))))
    records = [
        pair(n, config_version="a" if n < 20 else "b", sample_prob=1.0 if n < 30 else 0.5,
             primary_body_state="truncated")
        for n in range(1, 60) if n != 41
    ]  # fmt: skip
    weak = " ".join(text_of(summarise([*records, records[0], {"no": "pair"}])).split())
    for words in (
        "1 pairs are missing",
        "1 pairs were delivered again",
        "1 records are no pairs that this version reads; the first: it has no schema_version",
        "58 answers of the primary (100%) were longer than is recorded",
        "Recorded under 2 configurations",
        "recorded with different probabilities",
        "Config or models changed while pairs came.",
    ):
        assert words in weak


@pytest.mark.parametrize(
    ("source", "words"),
    [(SourceStatistics("state", "files"), "kafka://HOST:PORT/TOPIC"),
     (SourceStatistics("kafka://a:1/b", "kafka"), "topic_prefix")],
)  # fmt: skip
def test_an_empty_source_says_how_to_get_pairs(source: SourceStatistics, words: str) -> None:
    """In all forms."""
    document = as_dict(summarise([])) | {"source": {"name": source.name, "kind": source.kind}}
    page = page_of(document)
    assert page.sentence.startswith(f"No pairs in {source.name}.")
    assert words in page.sentence
    assert page.health is None
    assert "No pairs in" in html_of(page)


def test_a_selection_that_takes_nothing_says_that() -> None:
    """Not that there are no pairs."""
    missed = text_of(summarise([pair(1)], Selection(route="nope")))
    assert missed.startswith("No pairs selected: none of the 1 ")
