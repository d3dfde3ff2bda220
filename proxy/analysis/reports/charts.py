"""Charts as lines, boxes, dots and words, which the template writes as inline SVG. Pure.

A library is not used on purpose: matplotlib's figures know neither dark mode nor a screen reader and
cost a second and 40 MB; plotly, altair and bokeh put megabytes of script into the page, which must be
readable without any. Five kinds of chart need little more than an axis.

Colours are classes of the style sheet (Okabe and Ito's, told apart by colour-blind people), and never
the only sign: the candidate's lines are dashed, its bars hollow, flagged dots square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from proxy.analysis.reports import page
from proxy.analysis.reports.scale import Scale, around, without_outliers
from proxy.analysis.wording import number

#: Units of all drawings; as wide as a phone, so that words stay readable there.
WIDTH = 480
_LEFT, _RIGHT = 58, 14
_ROW = 44


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str
    kind: str = "line"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; `hint` is what a pointer that rests on it is told."""

    x: float
    y: float
    width: float
    height: float
    look: str
    hint: str = ""
    kind: str = "box"


@dataclass(frozen=True, slots=True)
class Dot:
    """A small circle."""

    x: float
    y: float
    look: str
    kind: str = "dot"


@dataclass(frozen=True, slots=True)
class Trace:
    """A line through points."""

    points: str
    look: str
    kind: str = "trace"


@dataclass(frozen=True, slots=True)
class Label:
    """A text; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    look: str = "label"
    kind: str = "label"


Shape = Line | Box | Dot | Trace | Label
Chart = (
    page.Forest | page.QuantilePlot | page.CalibrationPlot | page.Histogram | page.DifferencePlot
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG image, and what it shows in words, for those who do not see it."""

    title: str
    description: str
    height: float
    shapes: list[Shape] = field(default_factory=list)
    width: float = WIDTH


def draw(chart: Chart) -> Drawing:
    """Return the drawing of a chart."""
    match chart:
        case page.Forest():
            return _forest(chart)
        case page.QuantilePlot():
            return _quantiles(chart)
        case page.CalibrationPlot():
            return _calibration(chart)
        case page.Histogram():
            return _histogram(chart)
        case page.DifferencePlot():
            return _differences(chart)


def _forest(chart: page.Forest) -> Drawing:
    """Draw a row for each interval: its name above, its margin as a line across the row."""
    values = [0.0]
    for each in chart.intervals:
        values += [each.low, each.high, *(() if each.margin is None else (each.margin,))]
    low, high = around(values)
    x = Scale(low, high, _LEFT - 40, WIDTH - _RIGHT - 8)
    bottom = _ROW * len(chart.intervals) + 8
    drawing = Drawing(chart.title, "; ".join(map(_in_words, chart.intervals)), bottom + 42)
    for tick in _few(x.ticks(5)):
        drawing.shapes.append(Line(x(tick), 4, x(tick), bottom, "grid"))
        drawing.shapes.append(Label(x(tick), bottom + 16, _per_cent(tick, x), "middle", "tick"))
    drawing.shapes.append(Line(x(0), 4, x(0), bottom, "zero"))
    for row, each in enumerate(chart.intervals):
        _interval(drawing, each, x, top=row * _ROW + 6)
    has_margins = any(each.margin is not None for each in chart.intervals)
    words = "fewer with the candidate ← → more" + ("; thick: margin" if has_margins else "")
    drawing.shapes.append(Label(WIDTH / 2, bottom + 36, words, "middle", "tick"))
    return drawing


def _interval(drawing: Drawing, each: page.Interval, x: Scale, *, top: float) -> None:
    look = "flagged" if each.is_flagged else "interval"
    y = top + 28
    name = f"{each.name}: over its margin" if each.is_flagged else each.name
    drawing.shapes.append(Label(x.start, top + 13, name, "start", f"name {look}"))
    if each.margin is not None:
        drawing.shapes.append(Line(x(each.margin), y - 10, x(each.margin), y + 10, "margin"))
    drawing.shapes.append(Line(x(each.low), y, x(each.high), y, look))
    for end in (each.low, each.high):
        drawing.shapes.append(Line(x(end), y - 5, x(end), y + 5, look))
    if each.mean is not None:
        place = x(each.mean)
        drawing.shapes.append(
            Box(round(place - 5, 1), y - 5, 10, 10, look)
            if each.is_flagged
            else Dot(place, y, look)
        )


def _quantiles(chart: page.QuantilePlot) -> Drawing:
    """Draw milliseconds over quantiles; each nine takes the same room, as the tail matters."""
    points = [point for curve in chart.curves for point in curve.points if 0 <= point[0] < 1]
    times = [y for _, y in points]
    is_log = 1e-6 < min(times, default=0.0) < max(times, default=0.0) / 8
    low, high = (min(times), max(times)) if is_log else around([0.0, *times], 0.03)
    low, high = (low / 1.1, high * 1.1) if is_log else (max(low, 0.0), high)
    y = Scale(low, high, 190, 26, is_log=is_log)
    nines = max((_nines(quantile) for quantile, _ in points), default=0.0)
    x = Scale(0.0, max(nines, 1.0), _LEFT, WIDTH - _RIGHT - 8)
    drawing = Drawing(chart.title, _curves_in_words(chart.curves), 236)
    _horizontal(drawing, y, y.ticks(4), lambda tick: f"{tick:,g}")
    for quantile in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999):
        place = _nines(quantile)
        if x.low <= place <= x.high + 1e-9:
            drawing.shapes.append(Line(x(place), 26, x(place), 190, "grid"))
            name = f"{100 * quantile:g}%"
            drawing.shapes.append(Label(x(place), 207, name, "middle", "tick"))
    for curve in chart.curves:
        places = ((x(_nines(q)), y(time)) for q, time in curve.points if 0 <= q < 1)
        drawing.shapes.append(_trace(places, f"{curve.name} curve"))
    _legend(drawing, [curve.name for curve in chart.curves])
    scale = "ms, logarithmic" if is_log else "ms"
    drawing.shapes.append(Label(4, 14, scale, "start", "tick"))
    drawing.shapes.append(Label(WIDTH / 2, 228, "share of calls that are faster", "middle", "tick"))
    return drawing


def _calibration(chart: page.CalibrationPlot) -> Drawing:
    """Draw how often it came true over what was said; the diagonal is perfect."""
    x, y = Scale(0, 1, _LEFT, 344), Scale(0, 1, 316, 30)
    drawing = Drawing(chart.title, _curves_in_words(chart.curves), 364)
    _horizontal(drawing, y, [0, 0.25, 0.5, 0.75, 1], lambda tick: f"{tick:g}", end=344)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        drawing.shapes.append(Label(x(tick), 333, f"{tick:g}", "middle", "tick"))
    drawing.shapes.append(Line(x(0), y(0), x(1), y(1), "zero"))
    for curve in chart.curves:
        drawing.shapes.append(
            _trace(((x(a), y(b)) for a, b in curve.points), f"{curve.name} curve")
        )
        for a, b in curve.points:
            drawing.shapes.append(Dot(x(a), y(b), curve.name))
    _legend(drawing, [curve.name for curve in chart.curves])
    drawing.shapes.append(Label(4, 14, "came true", "start", "tick"))
    drawing.shapes.append(Label(200, 355, "said probability", "middle", "tick"))
    return drawing


def _histogram(chart: page.Histogram) -> Drawing:
    """Draw two bars for each bin, side by side."""
    highest = max((max(bar.primary, bar.candidate) for bar in chart.bars), default=0.0) or 1.0
    y = Scale(0, highest * 1.05, 190, 26)
    drawing = Drawing(chart.title, _bars_in_words(chart.bars), 236)
    _horizontal(drawing, y, y.ticks(4), lambda tick: f"{100 * tick:g}%")
    room = (WIDTH - _RIGHT - _LEFT) / len(chart.bars)
    width = round(room * 0.42, 1)
    every = max(1, math.ceil(len(chart.bars) / 6))
    for place, bar in enumerate(chart.bars):
        left = round(_LEFT + room * (place + 0.08), 1)
        for side, share, x in (
            ("primary", bar.primary, left),
            ("candidate", bar.candidate, round(left + width, 1)),
        ):
            top = y(share)
            hint = f"{bar.name}: {side} {100 * share:.1f}%"
            drawing.shapes.append(Box(x, top, width, round(190 - top, 1), f"{side} bar", hint))
        if place % every == 0:
            # A bin is named by where it begins, a label below its middle.
            x_name = round(_LEFT + room * (place if bar.tick != bar.name else place + 0.5), 1)
            words = _short(bar.tick, int(room * every / 7.5))
            drawing.shapes.append(Label(x_name, 207, words, "middle", "tick"))
    for side, x in (("primary", WIDTH - 244), ("candidate", WIDTH - 129)):
        drawing.shapes.append(Box(x, 4, 26, 12, f"{side} bar"))
        drawing.shapes.append(Label(x + 32, 14.5, side))
    return drawing


def _differences(chart: page.DifferencePlot) -> Drawing:
    """Draw each pair as a dot, with the mean difference and its limits as lines.

    Pairs far beyond the others are drawn at the edge and counted; lines there are left out.
    """
    lines = ((chart.mean, "mean"), (chart.low, "limit"), (chart.high, "limit"))
    shown = without_outliers(difference for _, difference in chart.points)
    if len(shown) == len(chart.points):
        shown += [value for value, _ in lines]
    x_low, x_high = around(without_outliers(mean for mean, _ in chart.points))
    y_low, y_high = around([0.0, *shown])
    x, y = Scale(x_low, x_high, _LEFT, WIDTH - _RIGHT - 8), Scale(y_low, y_high, 250, 26)
    description = (
        f"{len(chart.points)} pairs; mean difference {number(chart.mean)}, "
        f"limits of agreement {number(chart.low)} and {number(chart.high)}"
    )
    drawing = Drawing(chart.title, description, 296)
    _horizontal(drawing, y, y.ticks(5), lambda tick: f"{tick:.4g}")
    for tick in _few(x.ticks(5)):
        drawing.shapes.append(Label(x(tick), 267, f"{tick:.4g}", "middle", "tick"))
    for a, b in chart.points:
        drawing.shapes.append(Dot(x(a), y(b), "pair"))
    for value, look in lines:
        if y_low <= value <= y_high:
            drawing.shapes.append(Line(_LEFT, y(value), WIDTH - _RIGHT, y(value), look))
    drawing.shapes.append(Label(4, 14, "candidate minus primary", "start", "tick"))
    beyond = sum(not (x_low <= a <= x_high and y_low <= b <= y_high) for a, b in chart.points)
    words = "mean of both; lines: mean difference, and limits of 95%"
    if beyond:
        words = f"mean of both; {beyond} of {len(chart.points)} pairs are beyond the edge"
    drawing.shapes.append(Label(WIDTH / 2, 288, words, "middle", "tick"))
    return drawing


def _horizontal(
    drawing: Drawing,
    y: Scale,
    ticks: Iterable[float],
    show: Callable[[float], str],
    end: float = WIDTH - _RIGHT,
) -> None:
    for tick in ticks:
        drawing.shapes.append(Line(_LEFT, y(tick), end, y(tick), "grid"))
        drawing.shapes.append(Label(_LEFT - 6, y(tick) + 4.5, show(tick), "end", "tick"))


def _legend(drawing: Drawing, names: list[str]) -> None:
    for place, name in enumerate(names):
        x = WIDTH - _RIGHT - 115 * (len(names) - place)
        drawing.shapes.append(Line(x, 10, x + 26, 10, f"{name} curve"))
        drawing.shapes.append(Label(x + 32, 14.5, name))


def _trace(points: Iterable[tuple[float, float]], look: str) -> Trace:
    return Trace(" ".join(f"{x:g},{y:g}" for x, y in points), look)


def _nines(quantile: float) -> float:
    """Return how many nines a quantile has: 0.9 one, 0.99 two; 0.5 has 0.3."""
    return -math.log10(1.0 - quantile)


def _few(ticks: list[float]) -> list[float]:
    return ticks if len(ticks) <= 7 else ticks[::2]


def _per_cent(value: float, scale: Scale) -> str:
    digits = 0 if scale.high - scale.low > 0.05 else 1 if scale.high - scale.low > 0.005 else 2
    text = f"{100 * value:+.{digits}f}%"
    return "0" if float(text[:-1]) == 0 else text


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: max(characters - 1, 1)]}…"


def _in_words(each: page.Interval) -> str:
    margin = "" if each.margin is None else f", margin {100 * each.margin:.3g}%"
    flag = ", over its margin" if each.is_flagged else ""
    return f"{each.name} {100 * each.low:+.2f}% to {100 * each.high:+.2f}%{margin}{flag}"


def _curves_in_words(curves: Iterable[page.Curve]) -> str:
    """Say the first, the middle and the last point of each curve."""
    found = []
    for curve in curves:
        points = curve.points
        chosen = (points[0], points[len(points) // 2], points[-1])
        words = ", ".join(f"{x:.4g} at {number(y)}" for x, y in chosen)
        found.append(f"{curve.name}: {words}")
    return "; ".join(found)


def _bars_in_words(bars: tuple[page.Bar, ...]) -> str:
    return "; ".join(
        f"{bar.name}: primary {100 * bar.primary:.1f}%, candidate {100 * bar.candidate:.1f}%"
        for bar in bars[:30]
    )
