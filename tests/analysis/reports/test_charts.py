"""Axes have round numbers at the right places, and every drawing stays inside its frame."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, strategies as st

from proxy.analysis.reports import page
from proxy.analysis.reports.charts import Box, Dot, Drawing, Label, Line, Trace, draw
from proxy.analysis.reports.scale import Scale, around, round_step, without_outliers

numbers = st.floats(-1e9, 1e9)
shares = st.floats(0, 1)


def places(drawing: Drawing) -> list[tuple[float, float]]:
    """Return every point that a drawing uses."""
    found: list[tuple[float, float]] = []
    for shape in drawing.shapes:
        match shape:
            case Line():
                found += [(shape.x1, shape.y1), (shape.x2, shape.y2)]
            case Box():
                found += [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
            case Dot() | Label():
                found.append((shape.x, shape.y))
            case Trace():
                pairs = [point.split(",") for point in shape.points.split()]
                found += [(float(x), float(y)) for x, y in pairs]
    return found


def is_inside(drawing: Drawing) -> bool:
    """Return whether nothing is drawn outside of the frame, a bar's edge apart."""
    return all(
        -1 <= x <= drawing.width + 1 and -1 <= y <= drawing.height + 1 for x, y in places(drawing)
    )


@given(numbers, st.floats(1e-6, 1e9))
def test_ticks_are_round_rising_and_within(low: float, spread: float) -> None:
    """And about as many as asked for."""
    assume(low + spread - low > spread / 2)
    ticks = Scale(low, low + spread, 0, 100).ticks(5)
    assert 1 <= len(ticks) <= 8
    assert all(after > before for before, after in itertools.pairwise(ticks))


@pytest.mark.parametrize(("rough", "step"), [(0.013, 0.02), (1, 1), (2.1, 5), (70, 100)])
def test_steps_are_one_two_or_five(rough: float, step: float) -> None:
    """Times a power of ten."""
    assert round_step(rough) == pytest.approx(step)


def test_a_logarithmic_scale_gives_equal_room_to_equal_ratios() -> None:
    """And marks 1, 2 and 5, or decades alone where there are many."""
    scale = Scale(1, 100, 0, 200, is_log=True)
    assert [scale(value) for value in (1, 10, 100, 1_000)] == [0, 100, 200, 200]
    assert scale.ticks(5) == pytest.approx([1, 2, 5, 10, 20, 50, 100])
    assert Scale(1, 1e6, 0, 1, is_log=True).ticks(4) == pytest.approx(
        [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    )


@given(st.lists(numbers, min_size=1))
def test_there_is_room_around_values(values: list[float]) -> None:
    """Also around one that stands alone."""
    low, high = around(values)
    assert low < high
    assert low <= min(values) <= max(values) <= high


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.none() | st.floats(0.0001, 0.9)),
        min_size=1,
        max_size=12,
    )
)
def test_intervals_stay_inside_and_say_themselves(
    found: list[tuple[float, float, float | None]],
) -> None:
    """Whatever they are."""
    intervals = tuple(
        page.Interval(f"i{n}", min(a, b), (a + b) / 2, max(a, b), margin, is_flagged=n == 0)
        for n, (a, b, margin) in enumerate(found)
    )
    drawing = draw(page.Forest("f", intervals))
    assert is_inside(drawing)
    assert "i0 " in drawing.description
    assert "over its margin" in drawing.description


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e7)), min_size=2, max_size=20))
def test_quantiles_stay_inside(points: list[tuple[float, float]]) -> None:
    """From microseconds to hours, and the share 1, which has no place, too."""
    curve = tuple(sorted(points))
    curves = (page.Curve("primary", curve), page.Curve("candidate", curve))
    assert is_inside(draw(page.QuantilePlot("q", curves)))
    assert is_inside(
        draw(page.CalibrationPlot("c", tuple(page.Curve("primary", curve) for _ in "a")))
    )


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=25))
def test_bars_stay_inside(found: list[tuple[float, float]]) -> None:
    """Empty ones included."""
    bars = tuple(page.Bar(f"bin {n}", f"{n}", a, b) for n, (a, b) in enumerate(found))
    assert is_inside(draw(page.Histogram("h", bars)))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20), numbers, st.floats(0, 1e6))
def test_dots_stay_inside(points: list[tuple[float, float]], mean: float, half: float) -> None:
    """One pair alone included."""
    plot = page.DifferencePlot("d", tuple(points), mean, mean - half, mean + half)
    assert is_inside(draw(plot))


def test_one_pair_far_off_does_not_press_the_others_into_a_line() -> None:
    """It is drawn at the edge and counted; a line that is as far off is left out."""
    points = tuple((float(n), n / 50.0) for n in range(100))
    plain = draw(page.DifferencePlot("d", points, 1.0, -1.0, 3.0))
    far = draw(page.DifferencePlot("d", (*points, (4e6, 8e6)), 8e4, -1.5e6, 1.7e6))

    def height(drawing: Drawing) -> float:
        places = sorted(shape.y for shape in drawing.shapes if isinstance(shape, Dot))
        return places[95] - places[5]

    def lines(drawing: Drawing) -> int:
        shapes = (shape for shape in drawing.shapes if isinstance(shape, Line))
        return sum(shape.look in ("mean", "limit") for shape in shapes)

    def words(drawing: Drawing) -> str:
        return " ".join(shape.text for shape in drawing.shapes if isinstance(shape, Label))

    assert is_inside(far)
    assert height(far) >= height(plain) > 80
    assert (lines(plain), lines(far)) == (3, 0)
    assert "1 of 101 pairs are beyond the edge" in words(far)
    assert "beyond" not in words(plain)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_outliers_are_few_and_never_the_middle(values: list[float]) -> None:
    """At most a tenth, and what is left keeps its order."""
    kept = without_outliers(values)
    assert len(kept) >= 0.9 * len(values) - 2
    assert sorted(values)[len(values) // 2] in kept
    rest = iter(values)
    assert all(value in rest for value in kept)
