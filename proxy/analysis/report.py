"""The report on a terminal: what a person needs to see first comes first.

One sentence per candidate, then for each route its candidates side by side, then the pairs that
differ most, then whether the data can be trusted. Everything that came from requests and models is
printed as text, never as markup, and cannot move the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from proxy.analysis.health import findings
from proxy.analysis.summary import Comparison, Disagreement, Leg, Quantiles, Summary
from proxy.analysis.wording import (
    NO_TEST,
    NO_VERDICT,
    interval,
    milliseconds,
    number,
    percent,
    printable,
    share,
)

#: Columns that the names of rows and each candidate's two values take.
_LABEL_COLUMNS = 20
_CANDIDATE_COLUMNS = 29

#: Name of the row, the primary's value, the candidate's value.
Row = tuple[str, str, str]


def render(summary: Summary, console: Console) -> None:
    """Print the report of `summary` on `console`, in its width."""
    for block in blocks(summary, console.width):
        console.print(block)


def blocks(summary: Summary, width: int) -> Iterator[RenderableType]:
    """Yield the parts of the report for a terminal of `width` columns."""
    if not summary.comparisons:
        yield Text(_no_pairs(summary))
    else:
        yield _headlines(summary)
        yield Text()
    for _, group in groupby(summary.comparisons, key=attrgetter("route")):
        candidates = list(group)
        at_once = max((width - _LABEL_COLUMNS) // _CANDIDATE_COLUMNS, 1)
        for start in range(0, len(candidates), at_once):
            yield _side_by_side(candidates[start : start + at_once])
        for comparison in candidates:
            yield from _details(comparison)
    yield from _health(summary)


def _headlines(summary: Summary) -> RenderableType:
    lines = []
    for comparison in summary.comparisons:
        finding = comparison.headline.removesuffix(NO_VERDICT).removesuffix(NO_TEST).rstrip()
        name = f"{comparison.route}/{comparison.candidate}"
        line = _plain(finding)
        line.stylize("bold", 0, len(printable(name)))
        lines.append(line)
    is_unlabelled = any(each.headline.endswith(NO_VERDICT) for each in summary.comparisons)
    lines.append(Text(NO_VERDICT if is_unlabelled else NO_TEST, style="dim"))
    return Group(*lines)


def _no_pairs(summary: Summary) -> str:
    source = summary.source
    name = source.name if source else "the records"
    if summary.health.records and not summary.health.bad_records:
        return (
            f"No pairs selected: none of the {summary.health.records:,} in {printable(name)} "
            "fits --route, --candidate, --since and --until."
        )
    hint = (
        "the topic is `<topic_prefix>.pairs.v1` of record.kafka in the config"
        if source and source.kind == "kafka"
        else "with record.kafka in the config they are in the topic: kafka://HOST:PORT/TOPIC"
    )
    return (
        f"No pairs in {printable(name)}. Pairs are written while `understudy serve` mirrors "
        f"requests (a candidate needs mirror above 0%); {hint}. `understudy demo` makes some."
    )


def _side_by_side(candidates: list[Comparison]) -> RenderableType:
    table = Table(
        box=box.SIMPLE_HEAD, title=_title(candidates), title_justify="left", pad_edge=False
    )
    table.title_style = "bold"
    table.add_column("", no_wrap=True)
    for comparison in candidates:
        table.add_column("primary", justify="right", overflow="fold", style="dim")
        table.add_column(_plain(comparison.candidate), justify="right", overflow="fold")
    columns = [
        {name: (primary, candidate) for name, primary, candidate in _rows(comparison)}
        for comparison in candidates
    ]
    for name in _merged(columns):
        values = [column.get(name, ("", "")) for column in columns]
        table.add_row(name, *(_plain(value) for pair in values for value in pair))
    return table


def _merged(columns: Iterable[Iterable[str]]) -> list[str]:
    """Return all names once; one that only some columns have stays behind its neighbour."""
    merged: list[str] = []
    for names in columns:
        place = 0
        for name in names:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def _title(candidates: list[Comparison]) -> Text:
    first = min(comparison.first_ts_ms for comparison in candidates)
    last = max(comparison.last_ts_ms for comparison in candidates)
    return _plain(f"{candidates[0].route}  {_instant(first)} to {_instant(last)}")


def _rows(comparison: Comparison) -> Iterator[Row]:
    primary, candidate = comparison.primary_leg, comparison.candidate_leg
    served = comparison.served_by
    yield "pairs", "", f"{comparison.pairs:,}"
    yield "answered users", f"{served.get('primary', 0):,}", f"{served.get('candidate', 0):,}"
    if comparison.rescued:
        yield "rescued", f"{comparison.rescued:,}", ""
    yield "comparable", "", f"{comparison.agreement.total:,}"
    yield from _agreement(comparison)
    yield from _correctness(comparison)
    yield "errors", share(primary.errors), share(candidate.errors)
    yield from _statuses(primary, candidate)
    yield from _quantiles("latency", primary.latency_ms, candidate.latency_ms, milliseconds)
    yield from _differences(comparison)
    yield from _versions(primary, candidate)


def _agreement(comparison: Comparison) -> Iterator[Row]:
    noise = comparison.self_agreement
    itself = f"itself {share(noise)}" if noise.total else ""
    yield "agree with primary", itself, share(comparison.agreement)
    if comparison.agreement.total:
        yield "  95%, one look", interval(noise), interval(comparison.agreement)
    if noise.total:
        yield "  repeated calls", f"{noise.total:,}", ""


def _correctness(comparison: Comparison) -> Iterator[Row]:
    found = comparison.correctness
    if found is None or not found.labelled:
        return
    yield "labelled", "", f"{found.labelled:,}"
    yield "right", share(found.primary), share(found.candidate)
    # Rows are told apart by their names.
    yield "  right, 95%", interval(found.primary), interval(found.candidate)
    yield "  both, neither", f"{found.both:,}", f"{found.neither:,}"
    yield "  only this one", f"{found.only_primary:,}", f"{found.only_candidate:,}"
    if found.unanswered:
        yield "  no prediction", "", f"{found.unanswered:,}"


def _statuses(primary: Leg, candidate: Leg) -> Iterator[Row]:
    names = dict.fromkeys((*primary.statuses, *candidate.statuses))
    for name in names:
        if name != "ok":
            yield f"  {printable(name)}", *_counts(primary.statuses, candidate.statuses, name)


def _counts(primary: dict[str, int], candidate: dict[str, int], name: str) -> tuple[str, str]:
    return f"{primary.get(name, 0):,}", f"{candidate.get(name, 0):,}"


def _quantiles(
    name: str, primary: Quantiles, candidate: Quantiles, show: Callable[[float | None], str]
) -> Iterator[Row]:
    yield f"{name} p50", show(primary.p50), show(candidate.p50)
    yield f"{name} p90", show(primary.p90), show(candidate.p90)
    yield f"{name} p99", show(primary.p99), show(candidate.p99)


def _differences(comparison: Comparison) -> Iterator[Row]:
    paired = comparison.latency_difference_ms
    if paired.count:
        yield "paired, p50", "", milliseconds(paired.p50, is_signed=True)
        yield "paired, p99", "", milliseconds(paired.p99, is_signed=True)
    for name, values in (("abs diff", comparison.abs_diff), ("rel diff", comparison.rel_diff)):
        if values.count:
            yield f"{name} p50", "", number(values.p50)
            yield f"{name} p99", "", number(values.p99)
            yield f"{name} max", "", number(values.maximum)


def _versions(primary: Leg, candidate: Leg) -> Iterator[Row]:
    if primary.model_versions or candidate.model_versions:
        yield "model version", _version(primary), _version(candidate)


def _version(leg: Leg) -> str:
    return ", ".join(leg.model_versions) or "-"


def _details(comparison: Comparison) -> Iterator[RenderableType]:
    lists = (
        ("not comparable", comparison.not_comparable, comparison.pairs),
        ("primary's errors", comparison.primary_leg.top_errors, 0),
        ("candidate's errors", comparison.candidate_leg.top_errors, 0),
    )
    lines = [f"{title}: {_listed(counts, total)}" for title, counts, total in lists if counts]
    if comparison.confusion:
        found = "; ".join(
            f"{entry.primary} → {entry.candidate}: {entry.pairs:,}"
            for entry in comparison.confusion[:6]
        )
        lines.append(f"most frequent differences, primary → candidate: {found}")
    if lines or comparison.worst:
        yield _plain(f"{comparison.route}/{comparison.candidate}", "bold")
    yield from (_indented(line) for line in lines)
    if comparison.worst:
        yield _worst(comparison)
    elif lines:
        yield Text()


def _listed(counts: dict[str, int], total: int) -> str:
    return "; ".join(
        f"{key} {count:,}" + (f" ({percent(count, total)})" if total else "")
        for key, count in list(counts.items())[:5]
    )


def _worst(comparison: Comparison) -> RenderableType:
    is_ranked = comparison.worst[0].abs_diff is not None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{'largest' if is_ranked else 'first'} differences", overflow="fold")
    table.add_column("at", overflow="fold")
    table.add_column("primary", overflow="fold", style="dim")
    table.add_column("candidate", overflow="fold")
    if is_ranked:
        table.add_column("abs diff", justify="right", no_wrap=True)
    for pair in comparison.worst:
        cells = [*_cells(pair), number(pair.abs_diff)]
        table.add_row(*(_plain(cell) for cell in cells[: len(table.columns)]))
    return Padding(table, (0, 0, 0, 2))


def _cells(pair: Disagreement) -> tuple[str, ...]:
    return (
        pair.request_id,
        pair.first_diff_path or "",
        pair.primary_prediction,
        pair.candidate_prediction,
    )


def _health(summary: Summary) -> Iterator[RenderableType]:
    found = findings(summary)
    if not found and summary.comparisons:
        yield Text("Data health: no gaps, duplicates, damage or truncated answers.", style="dim")
    elif found:
        yield Text("Data health", style="bold")
    yield from (_indented(f"- {finding}") for finding in found)


def _plain(value: str, style: str = "") -> Text:
    return Text(printable(value), style=style)


def _indented(value: str) -> RenderableType:
    return Padding(_plain(value), (0, 0, 0, 2), expand=False)


def _instant(ts_ms: int) -> str:
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{ts_ms} ms"
