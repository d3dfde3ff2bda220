"""The report as one HTML file: no script, nothing from elsewhere, readable on paper and aloud.

Jinja2 escapes every value, and the page's own Content-Security-Policy allows neither script nor
network: what a hostile answer may contain cannot run even where escaping failed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from proxy.analysis.reports import page as pages
from proxy.analysis.reports.charts import Chart, draw
from proxy.analysis.wording import printable

#: Shades of the heat map, in the style sheet `h0` to `h8`.
_SHADES = 8
_CHARTS = (
    pages.Forest
    | pages.QuantilePlot
    | pages.CalibrationPlot
    | pages.Histogram
    | pages.DifferencePlot
)
_KINDS = {
    pages.Table: "table",
    pages.HeatMap: "heat_map",
    pages.Disagreement: "disagreement",
    pages.Note: "note",
    str: "text",
}


def html_of(page: pages.Page) -> str:
    """Return the report as an HTML document."""
    return _template().render(page=page)


def kind_of(block: pages.Block) -> str:
    """Return which part of the template shows a block."""
    return "chart" if isinstance(block, _CHARTS) else _KINDS[type(block)]


def shade(count: int, row: tuple[int, ...]) -> int:
    """Return how dark a cell of a heat map is, 0 to 8: its share of its row, small ones lifted."""
    total = sum(row)
    return 0 if not count or not total else max(1, round(_SHADES * (count / total) ** 0.5))


def visible(text: str) -> str:
    """Return `text` with control characters made visible, but for lines and tabs."""
    return "\n".join(
        "\t".join(printable(piece) for piece in line.split("\t")) for line in text.split("\n")
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("proxy.analysis.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.globals.update(draw=_drawn, kind_of=kind_of, shade=shade)
    return environment.get_template("report.html.j2")


def _drawn(chart: Chart) -> Any:
    return draw(chart)


def _finalized(value: Any) -> Any:
    """Make control characters of every plain value visible; markup has none."""
    return visible(value) if type(value) is str else value
