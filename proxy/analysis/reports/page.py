"""What a report says, before anything decides how it looks.

A `Page` is made from the document of findings by `proxy.analysis.reports.build` and is shown by
`terminal`, `markdown` and `html`. So all three say the same, in the same order and the same words.
Every text here is plain: names and answers come from outside, and each form escapes them its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """How a verdict looks: never by colour alone, its words stand beside it."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; the first cell of a row names it.

    Attributes:
        caption: what the table shows.
        head: names of the columns; the first may be empty.
        rows: as many cells as `head`.
        texts: columns that hold words, so are not set to the right.
        flagged: numbers of the rows that a reader must not miss; their words say why.
        extra: columns for those who know what they mean; left out on a terminal.
        is_detail: the figure beside it says the same; shown folded, and on a terminal not at all.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[int] = frozenset({0})
    flagged: frozenset[int] = frozenset()
    extra: frozenset[int] = frozenset()
    is_detail: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bounds, all shares in [-1, 1]."""

    name: str
    low: float
    mean: float | None
    high: float
    margin: float | None = None
    is_flagged: bool = False


@dataclass(frozen=True, slots=True)
class Forest:
    """Intervals one below the other; each margin is a line that none may cross."""

    title: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points `(x, y)` of one side, in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class QuantilePlot:
    """Quantiles in [0, 1) against milliseconds, primary and candidate."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class CalibrationPlot:
    """Said probability against how often it came true, both in [0, 1]."""

    title: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bin or a label, and the share of either side's predictions in it; `tick` is its short name."""

    name: str
    tick: str
    primary: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Two bars for each bin."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class DifferencePlot:
    """Mean of both predictions against candidate minus primary (Bland and Altman, 1986)."""

    title: str
    points: tuple[tuple[float, float], ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Counts of primary's label (rows) against candidate's (columns)."""

    title: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer; `is_different` when the other side does not have it."""

    text: str
    is_different: bool


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One pair that differs, both predictions cut into parts.

    Attributes:
        title, facts: which pair it is, and how it differs.
        primary, candidate: the predictions.
        is_long: they are shown folded.
        answers: both whole answers, always folded; None where the predictions are all there is.
    """

    title: str
    facts: str
    primary: tuple[Part, ...]
    candidate: tuple[Part, ...]
    is_long: bool
    answers: tuple[tuple[Part, ...], tuple[Part, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph for those who read such a report for the first time; left out on a terminal."""

    text: str


Block = (
    str
    | Note
    | Table
    | Forest
    | QuantilePlot
    | CalibrationPlot
    | Histogram
    | DifferencePlot
    | HeatMap
    | Disagreement
)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands below it; a text is a paragraph."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class CandidatePage:
    """All about one candidate of one route, the verdict first.

    Attributes:
        name: `route/candidate`.
        tone: how the verdict looks.
        verdict: a few words that anybody understands.
        sentence: the verdict with its numbers.
        sections: what it rests on.
    """

    name: str
    tone: Tone
    verdict: str
    sentence: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: for a browser's tab.
        sentence: why there is nothing to compare; empty where there is.
        source: where the pairs came from, and which of them were chosen.
        candidates: in the order of the document.
        health: whether the data can be trusted.
    """

    title: str
    sentence: str
    source: str
    candidates: tuple[CandidatePage, ...]
    health: Section | None
