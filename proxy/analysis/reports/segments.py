"""The section on segments: parts of the traffic, each with evidence of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.analysis.reports import words
from proxy.analysis.reports.document import Object, count_of, objects_of, text_of
from proxy.analysis.reports.gates import interval_of, margins_of
from proxy.analysis.reports.page import Block, Forest, Note, Section, Table

#: Segments that are drawn: those over their margin, then the largest. The table has all.
MAX_DRAWN = 24

#: Gates that do not judge answers.
_OTHERS = frozenset({"availability", "latency"})
_HEAD = ("segment", "pairs", "difference", "bounds", "e-value", "finding")
_NOTE = Note(
    "The more segments are looked at, the more evidence each needs (e-BH), so that few of those named "
    "are named by chance."
)


def segments(candidate: Object) -> Iterator[Section]:
    """Yield the segments, those over their margin first and by name."""
    found = sorted(
        objects_of(candidate.get("segments")),
        key=lambda each: (not _is_flagged(each), -count_of(each.get("n"))),
    )
    if not found:
        return
    named = ", ".join(_name(each) for each in found if _is_flagged(each))
    lead = f"Over the margin: {named}." if named else "No segment is found to be over the margin."
    yield Section("Segments", (lead, *_forest(found, margins_of(candidate)), _table(found), _NOTE))


def _forest(found: list[Object], margins: dict[str, float | None]) -> Iterator[Block]:
    intervals = (
        interval_of(
            _name(each),
            each,
            margins.get(text_of(each.get("metric"))),
            is_flagged=_is_flagged(each),
        )
        for each in found[:MAX_DRAWN]
    )
    drawn = tuple(each for each in intervals if each is not None)
    if drawn:
        left_out = f"; {MAX_DRAWN} of {len(found)}" if len(found) > MAX_DRAWN else ""
        yield Forest(f"Difference by segment{left_out}", drawn)


def _table(found: list[Object]) -> Table:
    is_any_flagged = any(map(_is_flagged, found))
    columns = len(_HEAD) if is_any_flagged else len(_HEAD) - 1
    return Table(
        "Segments",
        _HEAD[:columns],
        tuple(_row(each)[:columns] for each in found),
        texts=frozenset({0, 5}),
        extra=frozenset({4}),
        flagged=frozenset(number for number, each in enumerate(found) if _is_flagged(each)),
        is_detail=len(found) > MAX_DRAWN,
    )


def _row(segment: Object) -> tuple[str, ...]:
    return (
        _name(segment),
        f"{count_of(segment.get('n')):,}",
        words.points(segment.get("mean")),
        words.bounds(segment.get("low"), segment.get("high")),
        words.evidence(segment.get("e")),
        "over margin" if _is_flagged(segment) else "",
    )


def _name(segment: Object) -> str:
    """Return key and value, and the gate where it is not the one that judges answers."""
    key, value = text_of(segment.get("key")), text_of(segment.get("value"))
    metric = text_of(segment.get("metric"))
    name = f"{key}={value}" if key else value
    return f"{name} ({metric})" if metric in _OTHERS else name


def _is_flagged(segment: Object) -> bool:
    return segment.get("flagged") is True
