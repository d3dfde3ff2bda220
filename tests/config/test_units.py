"""Units: what operators write, as numbers, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from proxy.config import units


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("500us", 0.0005), ("10ms", 0.01), ("1s", 1.0), ("1.5s", 1.5), ("10m", 600.0),
        ("1h", 3600.0), ("1h30m", 5400.0), ("2d", 172800.0), (" 30s ", 30.0), (0, 0.0), ("0", 0.0),
        ("0s", 0.0),
    ],
)  # fmt: skip
def test_durations_become_seconds(written: Any, expected: float) -> None:
    """A duration is a number with a unit, or several."""
    assert units.seconds(written) == expected


@pytest.mark.parametrize(
    ("written", "telling"),
    [
        (30, "30 has no unit; write 30ms, 30s or 30m"), ("1.5", "has no unit"),
        ("10 parsecs", "is not a duration"), ("-1s", "is not a duration"), (True, "not a number"),
        ([1], "not a number"), ("", "is not a duration"), ("1s" * 30, "too long"), ("nan", "not a"),
    ],
)  # fmt: skip
def test_wrong_durations_say_how_to_write_one(written: Any, telling: str) -> None:
    """A number without a unit is the most common mistake and gets its own advice."""
    with pytest.raises(ValueError, match=telling):
        units.seconds(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("32KiB", 32768), ("8MiB", 8 * 2**20), ("10GB", 10**10), ("10kB", 10_000), ("1KB", 1000),
        ("1.5GiB", 3 * 2**29), (65536, 65536), ("65536", 65536), ("7B", 7), ("8 MiB", 8 * 2**20),
        (0, 0),
    ],
)  # fmt: skip
def test_sizes_become_bytes(written: Any, expected: int) -> None:
    """KiB counts in 1,024, kB in 1,000, and a plain number is bytes."""
    assert units.size_bytes(written) == expected


@pytest.mark.parametrize(
    ("written", "telling"),
    [
        ("32K", "could mean two sizes; write 32KiB"), ("1.5B", "not a whole number of bytes"),
        ("8 sheep", "unknown unit"), ("-1KiB", "is not a size"), (True, "not a number"),
        ("9999999TiB", "more than any disk"), ("big", "is not a size"),
    ],
)  # fmt: skip
def test_wrong_sizes_say_how_to_write_one(written: Any, telling: str) -> None:
    """A bare K is refused rather than guessed."""
    with pytest.raises(ValueError, match=telling):
        units.size_bytes(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("100%", 10_000), ("2%", 200), ("0.5%", 50), ("0.29%", 29), ("12.34 %", 1234), (0, 0), ("0%", 0)],
)  # fmt: skip
def test_percents_become_basis_points(written: Any, expected: int) -> None:
    """Decimal arithmetic: 0.29% is 29 basis points, not 28."""
    assert units.basis_points(written) == expected


@pytest.mark.parametrize(
    ("written", "telling"),
    [
        ("0.125%", "more than 2 decimals; the smallest step is 0.01%"), ("101%", "outside 0% to 100%"),
        ("-1%", "outside"), (10, "no percent sign; write 10%"), ("ten%", "is not a percent"),
        (True, "not a number"), ("nan%", "is not a percent"), ("%", "is not a percent"),
    ],
)  # fmt: skip
def test_wrong_percents_say_how_to_write_one(written: Any, telling: str) -> None:
    """A bare number could mean 0.1 or 10%, so it is refused."""
    with pytest.raises(ValueError, match=telling):
        units.basis_points(written)


@given(st.integers(0, 10_000))
def test_percents_survive_the_round_trip(share_bp: int) -> None:
    """What is printed can be written into a config."""
    assert units.basis_points(units.percent(share_bp)) == share_bp


@given(st.integers(0, 2**50))
def test_sizes_survive_the_round_trip(count_bytes: int) -> None:
    """What is printed can be written into a config."""
    assert units.size_bytes(units.size(count_bytes)) == count_bytes


@given(st.integers(0, 10**12))
def test_durations_survive_the_round_trip(microseconds: int) -> None:
    """What is printed can be written into a config."""
    duration_s = microseconds / 1e6
    assert units.seconds(units.duration(duration_s)) == pytest.approx(duration_s, rel=1e-12)
