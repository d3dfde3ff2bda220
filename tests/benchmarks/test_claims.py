"""How figures are judged, written and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import plots, report, tables
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Bar, judged
from benchmarks.figures import Spread
from benchmarks.memory import flatness, peaks
from benchmarks.peers import Mode
from benchmarks.report import Report, Run, Table
from benchmarks.stage import Sample


@pytest.mark.parametrize(
    ("bar", "figure", "is_met"),
    [
        (Bar(0.75), 0.75, True),
        (Bar(0.75), 0.76, False),
        (Bar(1.3, is_floor=True), 1.3, True),
        (Bar(1.3, is_floor=True), 1.29, False),
    ],
)
def test_a_bar_is_met_at_its_limit(bar: Bar, figure: float, *, is_met: bool) -> None:
    """A ceiling from above, a floor from below; the limit itself is good."""
    assert judged("x", bar, Spread(figure, figure, figure)).is_met is is_met


def test_a_claim_shows_its_median_and_range() -> None:
    """The median is judged, the range is beside it, and the bar has its unit."""
    claim = judged("p99", Bar(1.0, " ms"), Spread(0.5, 0.25, 3))
    assert (claim.bar, claim.figure) == ("≤ 1 ms", "0.50 ms (0.25 to 3.00)")
    assert claim.verdict == "yes"


def test_what_was_not_measured_is_no_pass() -> None:
    """Without a figure there is no verdict."""
    claim = judged("p99", Bar(1.0), None)
    assert claim.is_met is None
    assert claim.verdict == "not measured"


def _run() -> Run:
    claims = (judged("CPU", Bar(0.75), Spread(0.6, 0.6, 0.6)),)
    chart = Chart("cpu", "CPU", "size", "µs", Kind.BARS, ())
    table = Table("T", ("", "a"), (("row", "1"),))
    found = Report("one", ("a condition",), (table,), (), {}, claims, (chart,), ("broken",))
    return Run("2026-01-01T00:00:00+00:00", {"cores": "2"}, "python -m benchmarks", [], [found])


def test_markdown_has_claims_first_then_plots_and_tables() -> None:
    """A README's section: the verdicts, then each benchmark's plot with its tables folded."""
    text = report.markdown(_run(), "benchmarks/plots")
    order = ["| CPU | ≤ 0.75 | 0.60 | yes |", "](benchmarks/plots/cpu.svg)", "- a condition"]
    order += ["| row | 1 |", "**fault:** broken"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_run_is_written_as_json(tmp_path: Path) -> None:
    """Charts, claims and samples with numbers as keys are all in it."""
    run = _run()
    sample = Sample(
        "direct", Mode.FORWARD, 1, 1, 1, 0, 1, 1, 1, 1, None, None, None, None, 1, 0, ()
    )
    sample.quantiles_us[0.5] = 1.0
    run.reports[0] = Report("one", (), (), (sample,), {})
    assert '"0.5": 1.0' in report.write_json(run, tmp_path).read_text()


@pytest.mark.parametrize(
    "kind_points",
    [
        (Kind.BARS, (("a", Spread(1, 0, 2)), ("b", Spread(2, 1, 3)))),
        (Kind.LINES, ((1.0, Spread(1, 1, 2)), (10.0, Spread(2, 1, 3)))),
    ],
)
def test_the_same_figures_give_the_same_plot(
    kind_points: tuple[Kind, tuple[tuple[str | float, Spread], ...]], tmp_path: Path
) -> None:
    """Plots are kept with the sources: a file changes only with its figures."""
    pytest.importorskip("matplotlib")
    kind, points = kind_points
    series = (Series("Envoy, forward only", points), Series("Understudy", points[:1]))
    chart = Chart(
        "c", "C", "x", "y", kind, series, is_log_x=kind is Kind.LINES, limits=((1.5, "bar"),)
    )
    (path,) = plots.draw([chart], tmp_path)
    first = path.read_bytes()
    plots.draw([chart], tmp_path)
    assert path.read_bytes() == first
    assert b"<svg" in first


def test_memory_is_flat_when_its_last_quarter_is_like_its_second() -> None:
    """The first quarter is warm-up; of too few points nothing is said."""
    assert flatness([1, 1, 10, 10, 10, 10, 10, 10]) == 1
    assert flatness([10, 10, 10, 10, 15, 15, 20, 20]) == 2
    assert flatness([1] * 7) is None


def test_a_chart_of_memory_shows_the_highest_point_of_each_second() -> None:
    """In their order; a second without a sample has none."""
    assert peaks([(0.1, 3), (0.9, 5), (1.0, 4), (3.2, 1), (3.3, 1)]) == [
        (0.9, 5),
        (1.0, 4),
        (3.2, 1),
    ]
    assert peaks([]) == []


def test_ratio_is_taken_over_the_rounds_that_both_have() -> None:
    """A round that one of them lacks is left out; without a common round there is no ratio."""
    samples = [
        Sample(peer, Mode.MIRROR, 1, 1, 1, turn, 1, 1, 1, 1, cost, cost, None, None, 1, 1, ())
        for peer, turn, cost in (
            ("Understudy", 0, 30.0),
            ("Understudy", 1, 90.0),
            ("Envoy", 0, 60.0),
        )
    ]
    assert tables.ratio_to(samples, tables.WORKER, "Envoy") == Spread(0.5, 0.5, 0.5)
    assert tables.ratio_to(samples, tables.WORKER, "nginx") is None
