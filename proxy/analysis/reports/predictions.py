"""Sections on the predictions themselves: drift, differences of numbers, labels, truth. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.analysis.reports import words
from proxy.analysis.reports.document import (
    Object,
    count_of,
    label_of,
    list_of,
    number_of,
    object_of,
    objects_of,
)
from proxy.analysis.reports.page import (
    Bar,
    Block,
    CalibrationPlot,
    Curve,
    DifferencePlot,
    HeatMap,
    Histogram,
    Note,
    Section,
    Table,
)
from proxy.analysis.wording import number, percent

#: What a page can show; more labels than these are unreadable as a map.
MAX_LABELS = 24
#: Changes of a label that are listed.
MAX_CHANGES = 10
#: Points of a scatter: more of them hide each other and make the page heavy.
MAX_POINTS = 1_000

_SIDES = ("primary", "candidate")


def drift(candidate: Object) -> Iterator[Section]:
    """Yield how the predictions of both sides are spread."""
    found = object_of(candidate.get("drift"))
    bins = objects_of(found.get("bins"))
    if not bins:
        return
    totals = [sum(count_of(each.get(side)) for each in bins) for side in _SIDES]
    rows, bars = [], []
    for each in bins:
        name = label_of(each["label"]) if "label" in each else _range(each)
        counts = [count_of(each.get(side)) for side in _SIDES]
        shares = [n / total if total else 0.0 for n, total in zip(counts, totals, strict=True)]
        bars.append(Bar(name, _tick(each, name), *shares))
        rows.append(
            (name, *(f"{n:,} ({percent(n, t)})" for n, t in zip(counts, totals, strict=True)))
        )
    is_labels = found.get("kind") == "label"
    text = _drift_text(found, is_labels=is_labels)
    head = ("label" if is_labels else "prediction", *_SIDES)
    title = "Predictions of both sides"
    table = Table(title, head, tuple(rows), is_detail=True)
    yield Section("Drift of the predictions", (text, Histogram(title, tuple(bars)), table))


def _drift_text(found: Object, *, is_labels: bool) -> str:
    lead = (
        "How often each label is given by either side."
        if is_labels
        else "How the predictions of both sides are spread; each bin holds a like share of both together."
    )
    text = (
        f"{lead} Population stability index {number(number_of(found.get('psi')))} (below 0.1 is "
        f"usually called stable, above 0.25 shifted); Jensen-Shannon divergence "
        f"{number(number_of(found.get('js')))} of 1."
    )
    apart, gap = number_of(found.get("wasserstein")), number_of(found.get("ks"))
    if apart is not None:
        text += f" On average predictions moved by {number(apart)} (Wasserstein distance)."
    if gap is not None:
        text += f" The cumulative shares are at most {number(gap)} apart (Kolmogorov-Smirnov)."
    return text


def differences(candidate: Object) -> Iterator[Section]:
    """Yield the Bland-Altman plot of numeric predictions."""
    found = object_of(candidate.get("bland_altman"))
    mean, low, high = (number_of(found.get(key)) for key in ("mean_diff", "low", "high"))
    if mean is None or low is None or high is None:
        return
    points = [[*map(number_of, list_of(each)[:2])] for each in list_of(found.get("points"))]
    kept = [(point[0], point[1]) for point in points if len(point) == 2][:MAX_POINTS]
    text = (
        f"Candidate minus primary is {number(mean)} on average of {count_of(found.get('n')):,}; the "
        f"limits of agreement are {number(low)} and {number(high)}, between which 19 of 20 differences "
        "lie if they are spread normally."
    )
    note = Note(
        "A slope or a funnel means that the difference depends on the size of the prediction."
    )
    plot = DifferencePlot(
        "Difference against mean of both (Bland-Altman)",
        tuple((x, y) for x, y in kept if x is not None and y is not None),
        mean,
        low,
        high,
    )
    yield Section("Differences of numbers", (text, plot, note) if plot.points else (text,))


def confusion(candidate: Object) -> Iterator[Section]:
    """Yield primary's labels against candidate's."""
    found = object_of(candidate.get("confusion"))
    labels = tuple(label_of(label) for label in list_of(found.get("labels")))
    counts = tuple(
        tuple(count_of(cell) for cell in list_of(row)) for row in list_of(found.get("counts"))
    )
    is_square = len(counts) == len(labels) and all(len(row) == len(labels) for row in counts)
    if not labels or not is_square:
        return
    kappa = number_of(found.get("kappa"))
    text = "Rows are what the primary said, columns what the candidate said."
    if kappa is not None:
        text += f" Cohen's kappa {kappa:.3f}: 1 is full agreement, 0 what chance would give."
    blocks: list[Block] = [text]
    if len(labels) <= MAX_LABELS:
        blocks.append(HeatMap("Primary's label against candidate's", labels, counts))
    changes = _changes(labels, counts)
    if changes.rows:
        blocks.append(changes)
    yield Section("Labels that change", tuple(blocks))


def correctness(candidate: Object) -> Iterator[Section]:
    """Yield who is right, where ground truth is known."""
    found = object_of(candidate.get("correctness"))
    if not found:
        return
    if not count_of(found.get("labelled")):
        yield Section("Who is right", ("No pair of this candidate has a label that says so.",))
        return
    right = [object_of(found.get(side)) for side in _SIDES]
    rows = []
    if any(right):
        rows.append(("right", *map(words.share, right)))
        rows.append(("interval, 95%, one look", *map(words.share_bounds, right)))
    pairs = (("only this one right", "only_primary", "only_candidate"),)
    rows += [(name, _shown(found.get(a)), _shown(found.get(b))) for name, a, b in pairs]
    for name, key in (("both right", "both"), ("neither right", "neither")):
        rows.append((name, _shown(found.get(key)), _shown(found.get(key))))
    text = (
        f"{count_of(found.get('labelled')):,} pairs have a label that says the right answer"
        + (f"; in {count_of(found['unanswered']):,} of them a side gave no prediction."
           if count_of(found.get("unanswered")) else ".")
    )  # fmt: skip
    yield Section("Who is right", (text, Table("Right answers", ("", *_SIDES), tuple(rows))))


def calibration(candidate: Object) -> Iterator[Section]:
    """Yield whether probabilities come true as often as they say."""
    found = object_of(candidate.get("calibration"))
    sides = {side: object_of(found.get(side)) for side in _SIDES}
    curves = tuple(Curve(side, _calibration_points(value)) for side, value in sides.items())
    curves = tuple(curve for curve in curves if len(curve.points) > 1)
    rows = [
        (name, *(number(number_of(value.get(key))) for value in sides.values()))
        for key, name in (
            ("ece", "expected calibration error"), ("brier", "Brier score"), ("log_loss", "log loss"))
        if any(number_of(value.get(key)) is not None for value in sides.values())
    ]  # fmt: skip
    note = Note(
        "Whether scores mean what they say: of the predictions with score 0.8, 80% should be right. "
        "Points on the diagonal do."
    )
    blocks: list[Block] = [note]
    if curves:
        blocks.append(CalibrationPlot("Said probability against how often it came true", curves))
    if rows:
        blocks.append(Table("Calibration, less is better", ("", *_SIDES), tuple(rows)))
    if len(blocks) > 1:
        yield Section("Calibration", tuple(blocks))


def _calibration_points(side: Object) -> tuple[tuple[float, float], ...]:
    points = [
        (number_of(each.get("mean_score")), number_of(each.get("right")))
        for each in objects_of(side.get("bins"))
    ]
    return tuple((x, y) for x, y in points if x is not None and y is not None)


def _changes(labels: tuple[str, ...], counts: tuple[tuple[int, ...], ...]) -> Table:
    found = sorted(
        (
            (count, row, column)
            for row, cells in enumerate(counts)
            for column, count in enumerate(cells)
            if count and row != column
        ),
        key=lambda each: -each[0],
    )
    total = sum(map(sum, counts))
    rows = tuple(
        (f"{labels[row]} → {labels[column]}", f"{count:,}", percent(count, total))
        for count, row, column in found[:MAX_CHANGES]
    )
    head = ("primary → candidate", "pairs", "of all")
    return Table("Most frequent changes", head, rows)


def _range(each: Object) -> str:
    low, high = number_of(each.get("from")), number_of(each.get("to"))
    if low is None or high is None:
        return f"below {number(high)}" if low is None else f"from {number(low)}"
    return f"{number(low)} to {number(high)}"


def _tick(each: Object, name: str) -> str:
    """Return where a bin of numbers begins; a label as it is."""
    start = None if "label" in each else number_of(each.get("from"))
    return name if start is None else f"{start:.3g}"


def _shown(value: Any) -> str:
    return "-" if number_of(value) is None else f"{count_of(value):,}"
