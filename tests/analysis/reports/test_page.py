"""The page says the verdict first, leaves out what is absent, and never fails on a document."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import Phase, given, settings, strategies as st
from rich.console import Console

from proxy.analysis.reports import words
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.reports.page import Disagreement, Forest, Page, Table, Tone
from proxy.analysis.reports.terminal import render
from proxy.analysis.reports.worst import marked
from tests.support.findings import findings

ORDER = [
    "Agreement, and what the gates say", "One-look tests (not for repeated looks)", "Errors", "Latency",
    "Segments", "Drift of the predictions", "Differences of numbers", "Worst disagreements", "Pairs",
]  # fmt: skip


def shown(page: Page) -> str:
    """Return all three forms in one text."""
    out = io.StringIO()
    render(page, Console(file=out, width=80))
    return out.getvalue() + markdown_of(page) + html_of(page)


def tables(page: Page) -> dict[str, Table]:
    """Return the tables of the first candidate by caption."""
    blocks = [block for section in page.candidates[0].sections for block in section.blocks]
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a document; of long lists, of the first two."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2])
    for key, each in items:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))


def test_the_verdict_comes_first_in_words_that_anybody_understands() -> None:
    """And looks as it is meant."""
    ship, stop, nothing = page_of(findings()).candidates
    assert (ship.verdict, ship.tone) == ("May be shipped", Tone.GOOD)
    assert (stop.verdict, stop.tone) == ("Stop: its answers differ more than allowed", Tone.BAD)
    assert (nothing.verdict, nothing.tone) == ("No data to judge by", Tone.OPEN)
    assert ship.sentence.startswith("Equivalent within the margins after 18,400 pairs: ")


def test_sections_stand_in_the_order_of_what_one_needs_first() -> None:
    """Those without data are left out."""
    ship, stop, nothing = page_of(findings()).candidates
    assert [section.title for section in ship.sections] == ORDER
    assert [section.title for section in stop.sections if section.title not in ORDER] == [
        "Who is right", "Streamed answers", "Labels that change", "Calibration",
    ]  # fmt: skip
    assert [section.title for section in nothing.sections] == []


def test_gates_and_segments_over_their_margin_are_named_and_flagged() -> None:
    """In words, not by colour alone."""
    stop = page_of(findings()).candidates[1]
    segments = next(section for section in stop.sections if section.title == "Segments")
    assert segments.blocks[0] == "Over the margin: language=pt-BR."
    [table] = [block for block in segments.blocks if isinstance(block, Table)]
    assert [table.rows[number][-1] for number in table.flagged] == ["over margin"]


def test_numbers_are_those_of_the_document() -> None:
    """Shares with their intervals, the noise floor beside them."""
    found = tables(page_of(findings()))
    assert found["Gates"].rows[0][:6] == (
        "agreement", "within margin", "+0.30%", "-0.09% to +0.72%", "1%", "18,400",
    )  # fmt: skip
    agreement = found["Agreement (95% intervals, one look)"].rows
    assert agreement[1][1:] == ("2.3%", "2.1-2.5%", "18,344")
    assert agreement[2] == ("primary differs from itself (noise floor)", "1.6%", "0.7-3.5%", "368")
    assert found["How calls ended"].rows[1] == ("timeout", "14 (0.1%)", "6 (0.03%)")


def test_any_part_may_be_null_or_empty() -> None:
    """Each in turn."""
    document = findings()
    for number, path in enumerate(places(document)):
        *way, last = path
        target = reduce(getitem, way, document)
        before, target[last] = target[last], (None, [], {})[number % 3]
        page_of(document)
        target[last] = before


@pytest.mark.parametrize("part", sorted(findings()["candidates"][1]))
def test_a_report_without_a_part_is_shown_in_every_form(part: str) -> None:
    """One part less, nothing else less."""
    document = findings()
    document["candidates"] = [document["candidates"][1] | {part: None}]
    assert "Data health" in shown(page_of(document))


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "label",
                    "from",
                    "to",
                    "primary",
                    "candidate",
                    "n",
                    "mean",
                    "low",
                    "high",
                    "p50",
                    "rate",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=20, phases=(Phase.explicit, Phase.generate))  # shrinking takes minutes
@given(st.sampled_from(sorted(findings()["candidates"][1])), json)
def test_a_part_of_any_other_shape_is_no_fault(part: str, value: Any) -> None:
    """Of a later version, or of somebody else's program."""
    document = findings()
    document["candidates"] = [document["candidates"][1] | {part: value}]
    shown(page_of(document))


def test_an_empty_document_says_that_there_are_no_pairs() -> None:
    """In every form."""
    page = page_of({"source": {"name": "./state"}, "candidates": []})
    assert shown(page).count("No pairs in ./state.") == 3


def test_an_undecided_candidate_is_told_how_long_it_takes() -> None:
    """About, and if pairs come like those so far."""
    document = findings()
    [gate, *_] = document["candidates"][0]["verdict"]["gates"]
    gate |= {
        "verdict": "continue", "mean": 0.0, "margin": 0.01, "alpha": 0.05,
        "counts": {"better": 1, "same": 98, "worse": 1, "missing": 0},
    }  # fmt: skip
    document["candidates"][0] |= {"pairs": 100}
    document["candidates"][0]["verdict"] = {"verdict": "continue", "gates": [gate]}
    candidate = page_of(document).candidates[0]
    assert candidate.verdict == (
        "Not enough yet: about 2,000 more pairs, if they come like those so far"
    )


def test_a_sentence_does_not_repeat_what_stands_above_it() -> None:
    """Whose it is, and the verdict."""
    document = findings()
    document["candidates"][0]["sentence"] = "fraud-score/v2: promote. Equivalent after 9 pairs."
    assert page_of(document).candidates[0].sentence == "Equivalent after 9 pairs."


@given(st.text(alphabet="ab 1.,\n", max_size=60), st.text(alphabet="ab 1.,\n", max_size=60))
def test_marked_parts_add_up_to_both_answers(primary: str, candidate: str) -> None:
    """And what is not marked is the same on both sides, white space apart."""
    left, right = marked(primary, candidate)
    assert "".join(part.text for part in left) == primary
    assert "".join(part.text for part in right) == candidate
    same = ["".join(p.text for p in side if not p.is_different) for side in (left, right)]
    assert "".join(same[0].split()) == "".join(same[1].split())


def test_differing_words_are_marked_whole() -> None:
    """Numbers, too; long answers that repeat themselves take no time."""
    left, right = marked("take 12 pills a day", "take 2 pills a day")
    assert [part.text for part in left if part.is_different] == ["12"]
    assert [part.text for part in right if part.is_different] == ["2"]
    left, _ = marked(f"{'a ' * 2_000}yes", f"{'a ' * 2_000}no")
    assert [part.text for part in left if part.is_different] == ["yes"]


def test_a_very_long_answer_is_cut_and_folded() -> None:
    """The pair's id leads to the whole."""
    document = findings()
    document["candidates"][0]["worst"][0]["primary"] = "x" * 100_000
    [block, *_] = page_of(document).candidates[0].sections[7].blocks
    assert isinstance(block, Disagreement)
    assert block.is_long
    assert "(96,000 characters more)" in "".join(part.text for part in block.primary)


def test_what_was_chosen_is_said_beside_the_source() -> None:
    """A report of two hours is not one of all time."""
    document = findings()
    document["selection"] = {
        "route": "fraud-score",
        "candidate": "",
        "since_ms": 0,
        "until_ms": None,
    }
    assert page_of(document).source == (
        "kafka://127.0.0.1:9092/shadow.pairs.v1, route fraud-score, since 1970-01-01 00:00:00 UTC"
    )


def test_of_many_segments_those_are_drawn_that_matter() -> None:
    """All are in the table, which is then folded."""
    document = findings()
    calm = document["candidates"][1]["segments"][0]
    worse = document["candidates"][1]["segments"][2]
    many = [calm | {"value": f"v{n}", "n": n} for n in range(1, 100)]
    document["candidates"][1]["segments"] = [*many, worse]
    sections = page_of(document).candidates[1].sections
    _, forest, table, _ = next(each for each in sections if each.title == "Segments").blocks
    assert isinstance(forest, Forest)
    assert isinstance(table, Table)
    assert [each.name for each in forest.intervals[:3]] == [
        "language=pt-BR", "language=v99", "language=v98",
    ]  # fmt: skip
    assert (len(forest.intervals), forest.title) == (24, "Difference by segment; 24 of 100")
    assert (len(table.rows), table.is_detail) == (100, True)


def test_labels_of_another_route_make_no_table_of_noughts() -> None:
    """A sentence says that there are none for this candidate."""
    document = findings()
    counts = dict.fromkeys(("labelled", "unanswered", "both", "only_primary", "neither"), 0)
    document["candidates"][0]["correctness"] = counts
    page = page_of(document)
    assert "No pair of this candidate has a label" in shown(page)
    assert "Right answers" not in tables(page)


def test_labels_that_never_change_have_no_table_of_changes() -> None:
    """The matrix shows it."""
    document = findings()
    for counts in ([[7, 0], [0, 9]], [[7, 1], [0, 9]]):
        found = {"labels": ['"a"', '"b"'], "counts": counts, "kappa": 1.0}
        document["candidates"][0]["confusion"] = found
        assert ("Most frequent changes" in tables(page_of(document))) == (counts[0][1] > 0)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.994, 0.997, "99.4-99.7%"), (0.99981, 1.0, "99.98-100.00%"), (0.0, 0.0004, "0.00-0.04%")],
)
def test_a_narrow_interval_is_no_single_number(low: float, high: float, told: str) -> None:
    """100.0-100.0% says less than it knows."""
    assert words.share_bounds({"low": low, "high": high}) == told
