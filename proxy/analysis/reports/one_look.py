"""The section on fixed-horizon tests, which hold for one look only; `--one-look` adds them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.analysis.reports import words
from proxy.analysis.reports.document import Object, count_of, number_of, objects_of, text_of
from proxy.analysis.reports.page import Section, Table

WARNING = (
    "These tests hold for one look, at a number of pairs that was fixed before the first of them came. "
    "Whoever looks again and again until they please is wrong far more often than 1 time in 20. The "
    "gates above have no such condition, and only they make the verdict."
)


def one_look(candidate: Object) -> Iterator[Section]:
    """Yield the tests that were computed; nothing where none was asked for."""
    found = objects_of(candidate.get("one_look"))
    if not found:
        return
    rows = tuple(_row(each) for each in found)
    table = Table(
        "One-look tests",
        ("gate, test", "says", "difference", "interval", "p", "pairs"),
        rows,
        texts=frozenset({0, 1}),
        extra=frozenset({5}),
    )
    yield Section("One-look tests (not for repeated looks)", (WARNING, table))


def _row(each: Object) -> tuple[str, ...]:
    p = number_of(each.get("p_value"))
    return (
        f"{text_of(each.get('metric'))}, {text_of(each.get('test'))}",
        text_of(each.get("says")),
        words.points(each.get("mean")),
        words.bounds(each.get("low"), each.get("high")),
        "-" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}",
        f"{count_of(each.get('n')):,}",
    )
