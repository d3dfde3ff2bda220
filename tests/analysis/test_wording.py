"""Numbers are said so that nobody reads more into them than is there."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.analysis.summarise import summarise
from proxy.analysis.window import parse_instant_ms
from proxy.analysis.wording import milliseconds, number, percent
from proxy.errors import SourceError
from tests.support.records import pair


@pytest.mark.parametrize(
    ("count", "total", "text"),
    [
        (0, 0, "-"),
        (0, 10, "0%"),
        (10, 10, "100%"),
        (973, 1000, "97.3%"),
        (9_999, 10_000, "99.99%"),
        (1, 10_000, "0.01%"),
        (999_999, 1_000_000, ">99.999%"),
        (1, 1_000_000, "<0.001%"),
    ],
)
def test_almost_is_not_rounded_to_all_or_nothing(count: int, total: int, text: str) -> None:
    """99.99% agreement over a million pairs is a hundred wrong answers."""
    assert percent(count, total) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0"), (0.042, "0.042"), (1.234, "1.23"), (9.999, "10.0"),
        (12.34, "12.3"), (99.96, "100"), (1234.5, "1,234"), (2e7, "2.00e+07"), (-12.34, "-12.3"),
        (1e-5, "1.00e-05"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    """More would pretend."""
    assert number(value) == text


def test_differences_of_time_carry_their_sign() -> None:
    """Plus is slower."""
    assert milliseconds(3.1, is_signed=True) == "+3.10 ms"
    assert milliseconds(-3.1, is_signed=True) == "-3.10 ms"
    assert milliseconds(None) == "-"


def test_the_headline_says_what_was_counted_and_that_it_is_no_verdict() -> None:
    """And never that one side is better."""
    records = [
        pair(n, 1, 1 if n > 27 else 2, primary_latency_us=9_000, candidate_latency_us=12_000)
        for n in range(1, 1001)
    ]
    (comparison,) = summarise(records).comparisons
    assert comparison.headline == (
        "iris/v2: 1,000 pairs, 97.3% agree; candidate errors 0% against 0%; p99 12.0 ms against "
        "9.00 ms. No verdict: counts of one look, not a test; without labels nobody knows who is "
        "right."
    )
    assert "better" not in comparison.headline


def test_the_headline_of_a_candidate_that_never_answered() -> None:
    """Nothing to divide by is nothing to claim."""
    unsent: dict[str, Any] = {
        "candidate_status": "shed",
        "candidate_body": None,
        "candidate_body_state": "omitted",
    }
    (comparison,) = summarise([pair(1, **unsent)]).comparisons
    assert comparison.headline.startswith(
        "iris/v2: 1 pair, none comparable; the candidate was never asked. No verdict"
    )


NOW_MS = 1_772_366_400_000  # 2026-03-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "ago_ms"),
    [
        ("15m", 900_000),
        ("2h ago", 7_200_000),
        ("1.5d", 129_600_000),
        ("1w", 604_800_000),
        ("500ms", 500),
        ("2026-03-01T12:00:00Z", 0),
        ("2026-03-01T13:00:00+01:00", 0),
        ("2026-03-01 11:59:59.5", 500),
        ("2026-03-01", 43_200_000),
    ],
)
def test_an_instant_is_how_long_ago_or_a_date(text: str, ago_ms: int) -> None:
    """Without an offset a date is UTC, as in the records."""
    assert NOW_MS - parse_instant_ms(text, now_ms=NOW_MS) == ago_ms


@pytest.mark.parametrize("text", ["", "yesterday", "15", "m", "-3h", "2026-13-01"])
def test_what_is_no_instant_is_an_error_that_shows_how_to_write_one(text: str) -> None:
    """The operator's fault, said before anything is read."""
    with pytest.raises(SourceError, match="15m, 2h or 7d"):
        parse_instant_ms(text, now_ms=NOW_MS)
