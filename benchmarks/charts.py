"""What a plot shows, as data; `benchmarks.plots` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.figures import Spread


class Kind(StrEnum):
    """How the points of a series are drawn."""

    BARS = "bars"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one colour of bars; places without a value are left out.

    Attributes:
        points: place on the x axis (a name with bars, a number with lines) and value.
    """

    label: str
    points: tuple[tuple[str | float, Spread], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot: median as bar or line, range over the rounds as whisker or band.

    Attributes:
        name: of the file, without its ending.
        x_label: with its unit; so is `y_label`.
        limits: values of claims, drawn as dashed lines, with their names.
        ticks: the places on the x axis to name; empty for the plot's own choice.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    kind: Kind
    series: tuple[Series, ...]
    is_log_x: bool = False
    is_log_y: bool = False
    limits: tuple[tuple[float, str], ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
