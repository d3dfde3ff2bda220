"""Draws charts as SVG (and PNG) with matplotlib, one of the bench extra.

The background is transparent and text and grid are of a middle grey, so that a plot reads on a
light and on a dark page alike. Colours are those of Okabe and Ito, told apart by all common kinds
of colour vision; a peer has the same colour in every plot.
"""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.charts import Chart, Kind, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#7d8590"
_COLOURS = {
    "Understudy": "#0072b2",
    "Envoy": "#e69f00",
    "nginx": "#009e73",
    "Starlette+httpx": "#cc79a7",
    "LiteLLM": "#d55e00",
    "direct": "#7d8590",
}
_OTHERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b5a800", "#8c6bb1")
_INCHES = (8.0, 3.6)
#: Characters in a line below a group of bars.
_WRAP = 10


def can_draw() -> bool:
    """Tell whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(charts: Sequence[Chart], folder: Path, endings: Sequence[str] = ("svg",)) -> list[Path]:
    """Draw every chart into `folder` and return the files."""
    import matplotlib as mpl  # noqa: PLC0415 - the benchmarks run without it, plots aside

    mpl.use("agg")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "understudy",
            "svg.fonttype": "path",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
            **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    return [path for chart in charts for path in _draw_one(chart, folder, endings)]


def _draw_one(chart: Chart, folder: Path, endings: Sequence[str]) -> list[Path]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - see `draw`

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    (_draw_bars if chart.kind is Kind.BARS else _draw_lines)(axes, chart)
    for limit, name in chart.limits:
        axes.axhline(limit, color=_INK, linestyle="--", linewidth=1)
        place = (1.01, limit)
        axes.annotate(name, place, xycoords=("axes fraction", "data"), va="center", fontsize=9)
    _label(axes, chart)
    paths = [folder / f"{chart.name}.{ending}" for ending in endings]
    for path in paths:
        # Without a date the same figures give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, transparent=True, metadata=metadata)
    return paths


def _label(axes: Axes, chart: Chart) -> None:
    """Set title, axes, grid and legend."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415 - see `draw`

    axes.set_title(chart.title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.grid(visible=True, axis="y", color=_INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if chart.is_log_y:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        # Over less than two decades the powers of ten alone would be one label or none.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if chart.is_log_x:
        axes.set_xscale("log")
    if chart.ticks:
        axes.set_xticks([place for place, _ in chart.ticks], [name for _, name in chart.ticks])
        axes.minorticks_off()
    if len(chart.series) > 1:
        # Beside the plot: at the top, or below the names of the limits.
        height = 0.3 if chart.limits else 1.0
        axes.legend(
            frameon=False,
            fontsize=9,
            loc="upper left",
            bbox_to_anchor=(1.0, height),
            borderaxespad=0,
        )


def _draw_bars(axes: Axes, chart: Chart) -> None:
    """Draw groups of bars with the range of the rounds as whiskers."""
    places = list(dict.fromkeys(str(place) for one in chart.series for place, _ in one.points))
    width = 0.8 / len(chart.series)
    for index, one in enumerate(chart.series):
        found = {str(place): value for place, value in one.points}
        shown = [(place, found[name]) for place, name in enumerate(places) if name in found]
        values = [value for _, value in shown]
        axes.bar(
            [place + (index - (len(chart.series) - 1) / 2) * width for place, _ in shown],
            [value.median for value in values],
            width * 0.92,
            yerr=[
                [value.median - value.low for value in values],
                [value.high - value.median for value in values],
            ],
            ecolor=_INK,
            error_kw={"elinewidth": 1},
            label=one.label,
            **_style(one, index),
        )
    axes.set_xticks(range(len(places)), [textwrap.fill(place, _WRAP) for place in places])


def _draw_lines(axes: Axes, chart: Chart) -> None:
    """Draw medians as lines and the range of the rounds as bands."""
    for index, one in enumerate(chart.series):
        style = _style(one, index)
        x = [float(place) for place, _ in one.points]
        dash = "--" if style.pop("hatch", None) else "-"
        style.pop("edgecolor", None)
        # A line through named places shows where it was measured, one over time does not.
        marker = "o" if chart.is_log_x else ""
        axes.plot(
            x, [value.median for _, value in one.points], dash,
            marker=marker, markersize=3.5, linewidth=1.6, label=one.label, **style,
        )  # fmt: skip
        axes.fill_between(
            x,
            [value.low for _, value in one.points],
            [value.high for _, value in one.points],
            alpha=0.12,
            linewidth=0,
            **style,
        )


def _style(one: Series, index: int) -> dict[str, Any]:
    """Return colour, and a pattern for the second series of a peer (`Envoy, with mirror`)."""
    peer, _, rest = one.label.partition(",")
    colour = _COLOURS.get(peer, _OTHERS[index % len(_OTHERS)])
    is_second = rest.strip().startswith(("forward", "whole", "2 "))
    return {"color": colour, **({"hatch": "///", "edgecolor": "#ffffff80"} if is_second else {})}
