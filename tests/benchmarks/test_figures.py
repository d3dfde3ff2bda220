"""The arithmetic behind the tables."""

from __future__ import annotations

import json

import pytest

from benchmarks import tables
from benchmarks.figures import (
    Spread,
    median_interval,
    paired_difference,
    paired_ratio,
    parse_size,
    rotated,
    size_label,
    spread,
)
from benchmarks.fleet import BenchmarkError
from benchmarks.load import json_body, parse_result
from benchmarks.origin import parse_received
from benchmarks.peers import Mode
from benchmarks.stage import Sample


def test_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was slow for both leaves the ratio as it is."""
    assert paired_ratio([10, 30, 11], [20, 60, 20]) == Spread(0.5, 0.5, 0.55)
    assert paired_difference([3, 5], [1, 1]) == Spread(3, 2, 4)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1], [1, 2])


def test_spread_is_median_and_range() -> None:
    """The median is not the mean."""
    assert spread([1, 100, 2]) == Spread(2, 1, 100)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (100, 40, 61)],
)
def test_a_median_has_the_interval_of_the_books(count: int, low: int, high: int) -> None:
    """As tables of the sign test have it; of fewer than six values there is none of 95%."""
    values = [float(value) for value in range(count, 0, -1)]
    assert median_interval(values) == Spread((count + 1) / 2, low, high)


def test_every_target_runs_first_once() -> None:
    """The order turns by one each round."""
    assert [rotated("abc", turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert rotated([], 3) == []


@pytest.mark.parametrize(
    ("text", "size", "label"),
    [
        ("1KB", 1024, "1 KB"),
        ("64 kb", 65536, "64 KB"),
        ("1MiB", 1 << 20, "1 MB"),
        ("300", 300, "300 B"),
    ],
)
def test_sizes_are_read_and_written_as_people_do(text: str, size: int, label: str) -> None:
    """Binary multiples, either case, with or without the B."""
    assert parse_size(text) == size
    assert size_label(size) == label


@pytest.mark.parametrize("size", [128, 1024, 1031, 65536])
def test_body_is_json_of_the_exact_size(size: int) -> None:
    """Every size gives a document that parses."""
    body = json_body(size)
    assert len(body) == size
    assert json.loads(body)["inputs"][0]["name"] == "x"


def test_a_size_without_room_is_refused() -> None:
    """The document's frame has a size of its own."""
    with pytest.raises(BenchmarkError, match="bytes or more"):
        json_body(10)


def test_result_of_the_generator_is_found_in_its_output() -> None:
    """Errors of zero are left out."""
    result = parse_result(
        'Running 1s test\n\nRESULT {"requests": 500, "duration_us": 2000000, "p50_us": 10, '
        '"p99_us": 20, "max_us": 30, "connect": 0, "read": 2, "write": 0, "status": 0, "timeout": 0}\n'
    )
    assert result.rate_per_s == 250
    assert result.errors == {"read": 2}
    with pytest.raises(BenchmarkError, match="no result"):
        parse_result("unable to connect")


def test_requests_are_read_from_a_status_page() -> None:
    """The third number of nginx's stub_status is the count of requests."""
    page = "Active connections: 1 \nserver accepts handled requests\n 7 7 4242 \nReading: 0\n"
    assert parse_received(page) == 4242
    with pytest.raises(ValueError, match="no counts"):
        parse_received("<html>")


def _sample(peer: str, turn: int, worker_us: float | None, mode: Mode = Mode.MIRROR) -> Sample:
    """A round with round numbers."""
    return Sample(
        peer, mode, 1024, 32, 1, turn, 1000, 500.0, 1000, 2000, worker_us, worker_us, 0.5, 10**7,
        1000, 1000 if mode is Mode.MIRROR else 0, (),
    )  # fmt: skip


def test_ratio_table_has_ours_against_each_other_peer() -> None:
    """Direct has no CPU time and gets no row; neither do we against ourselves."""
    samples = [_sample("Understudy", turn, 30.0 + turn) for turn in range(3)]
    samples += [_sample("Envoy", turn, 60.0) for turn in (2, 0, 1)]
    samples += [_sample("direct", turn, None, Mode.FORWARD) for turn in range(3)]
    table = tables.ratios(samples, tables.SATURATED)
    assert [row[0] for row in table.rows] == ["Understudy / Envoy, with mirror, 1 KB"]
    assert table.rows[0][1] == "0.52 (0.50-0.53)"
    assert [row[0] for row in tables.per_target(samples, 1024).rows] == [
        "direct", "Understudy, with mirror", "Envoy, with mirror",
    ]  # fmt: skip
    ratio = tables.summary(samples, tables.SATURATED)["ratios_of_understudy_to"]
    assert ratio["1 KB/with mirror/Envoy"]["worker CPU"]["low"] == 0.5
