"""The section of plain counts: who answered users, what was paired, and how numbers differ. Pure.

They come from the document's `comparisons`, which hold the same pairs as the findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from proxy.analysis.reports.document import (
    Object,
    count_of,
    number_of,
    object_of,
    objects_of,
    text_of,
)
from proxy.analysis.reports.page import Block, Section, Table
from proxy.analysis.wording import milliseconds, number


def counts(comparison: Object, candidate: Object) -> Iterator[Section]:
    """Yield the counts of a candidate, and the versions that answered."""
    blocks: list[Block] = []
    rows = [*_served(comparison), *_differences(comparison)]
    if rows:
        blocks.append(Table("Counts", ("", "primary", "candidate"), tuple(rows)))
    versions = objects_of(candidate.get("versions"))
    if len(versions) > 1:
        blocks.append(
            "Config or models changed while pairs came. Evidence is never added up over such a "
            "change, so the verdict is about the newest alone; plain counts are about all pairs."
        )
    if versions:
        head = ("from", "until", "config", "primary", "candidate", "pairs")
        table = Table("Versions", head, tuple(map(_version, versions)), frozenset(range(5)))
        blocks.append(table)
    if blocks:
        yield Section("Pairs", tuple(blocks))


def _served(comparison: Object) -> Iterator[tuple[str, str, str]]:
    if not comparison:
        return
    served = object_of(comparison.get("served_by"))
    yield "pairs", "", f"{count_of(comparison.get('pairs')):,}"
    yield (
        "answered users",
        f"{count_of(served.get('primary')):,}",
        f"{count_of(served.get('candidate')):,}",
    )
    if count_of(comparison.get("rescued")):
        yield "rescued", f"{count_of(comparison['rescued']):,}", ""


def _differences(comparison: Object) -> Iterator[tuple[str, str, str]]:
    paired = object_of(comparison.get("latency_difference_ms"))
    if count_of(paired.get("count")):
        for key in ("p50", "p99"):
            shown = milliseconds(number_of(paired.get(key)), is_signed=True)
            yield f"slower than the primary, {key}", "", shown
    for field, name in (("abs_diff", "absolute difference"), ("rel_diff", "relative difference")):
        values = object_of(comparison.get(field))
        if count_of(values.get("count")):
            for key in ("p50", "p99", "maximum"):
                yield f"{name}, {key}", "", number(number_of(values.get(key)))


def _version(each: Object) -> tuple[str, ...]:
    is_deciding = " (decides)" if each.get("is_deciding") is True else ""
    return (
        instant(number_of(each.get("first_ts_ms"))),
        instant(number_of(each.get("last_ts_ms"))),
        f"{text_of(each.get('config_version'))}{is_deciding}",
        text_of(each.get("primary_version")) or "-",
        text_of(each.get("candidate_version")) or "-",
        f"{count_of(each.get('pairs')):,}",
    )


def instant(ts_ms: float | None) -> str:
    """Return a time in milliseconds since 1970 as people write it."""
    if ts_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{ts_ms:.0f} ms"
