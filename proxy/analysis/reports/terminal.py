"""The report on a terminal: what a person needs to see first comes first.

The verdict on every candidate, then what each rests on, then whether the data can be trusted.
Everything that came from requests and models is printed as text, never as markup, and cannot move
the cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from proxy.analysis.reports import page as pages
from proxy.analysis.reports.page import Tone
from proxy.analysis.wording import printable

#: Columns of the bar of an interval.
_BAR = 41
#: Labels that a matrix of counts may have, and characters of an answer that are shown.
_MAX_LABELS = 8
_MAX_CHARACTERS = 400

_SPACE = re.compile(r"\s+")
_STYLES = {Tone.GOOD: "bold green", Tone.BAD: "bold red", Tone.OPEN: "bold yellow"}


def render(page: pages.Page, console: Console, sections: int | None = None) -> None:
    """Print the report on `console`, in its width; of each candidate the first `sections`."""
    for block in blocks(page, sections):
        console.print(block)


def blocks(page: pages.Page, sections: int | None = None) -> Iterator[RenderableType]:
    """Yield the parts of the report."""
    if page.sentence:
        yield _plain(page.sentence)
        yield Text()
    for candidate in page.candidates:
        yield from _verdict(candidate)
    for candidate in page.candidates:
        for section in candidate.sections[:sections]:
            name = candidate.name if len(page.candidates) > 1 else ""
            yield from _section(section, name)
    if page.health is not None:
        yield from _section(page.health, "")


def _verdict(candidate: pages.CandidatePage) -> Iterator[RenderableType]:
    line = _plain(f"{candidate.name}: ", "bold")
    line.append(candidate.verdict, _STYLES[candidate.tone])
    if candidate.sentence:
        line.append(printable(f". {candidate.sentence}"))
    yield line
    yield Text()


def _section(section: pages.Section, name: str) -> Iterator[RenderableType]:
    title = _plain(section.title, "bold underline")
    if name:
        title.append(printable(f"  {name}"), "dim")
    yield title
    for block in section.blocks:
        shown = _shown(block)
        if shown is not None:
            yield _indented(shown)
    yield Text()


def _shown(block: pages.Block) -> RenderableType | None:
    """Return a block for a terminal; plots whose figures stand in a table beside them are not."""
    match block:
        case str():
            return _plain(block)
        case pages.Table(is_detail=False):
            return _table(block)
        case pages.Forest():
            return _forest(block)
        case pages.HeatMap() if len(block.labels) <= _MAX_LABELS:
            return _matrix(block)
        case pages.Disagreement():
            return _disagreement(block)
        case _:
            return None


def _table(block: pages.Table) -> Table:
    """Return a table whose caption stands, where there is room, at the head of the first column."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    places = [place for place in range(len(block.head)) if place not in block.extra]
    for place in places:
        table.add_column(
            _plain(block.head[place] if block.head[place] or place else block.caption),
            justify="left" if place in block.texts else "right",
            overflow="fold",
        )
    for number, row in enumerate(block.rows):
        cells = [_plain(row[place]) for place in places]
        table.add_row(*cells, style="bold red" if number in block.flagged else "")
    return table


def _forest(block: pages.Forest) -> Table:
    """Draw each interval as a bar; `|` is no difference, `!` the margin."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    ends = [0.0]
    for each in block.intervals:
        ends += [each.low, each.high, each.margin or 0.0]
    low, high = min(ends), max(ends)
    for each in block.intervals:
        style = "red" if each.is_flagged else ""
        table.add_row(_plain(each.name, style), Text(bar(each, low, high), style=style))
    table.add_row("", Text("| no difference  ! margin", style="dim"))
    return table


def bar(each: pages.Interval, low: float, high: float) -> str:
    """Return an interval as text in `_BAR` columns that reach from `low` to `high`."""
    cells = [" "] * _BAR

    def place(value: float) -> int:
        return round((value - low) / ((high - low) or 1.0) * (_BAR - 1))

    first, last = place(each.low), place(each.high)
    cells[first : last + 1] = "─" * (last - first + 1)
    cells[place(0.0)] = "|"
    cells[first], cells[last] = "├", "┤"
    if each.mean is not None:
        cells[place(each.mean)] = "●"
    if each.margin is not None:
        cells[place(each.margin)] = "!"
    return "".join(cells).rstrip()


def _matrix(block: pages.HeatMap) -> Table:
    rows = zip(block.labels, block.counts, strict=True)
    return _table(
        pages.Table(
            caption="primary ↓ candidate →",
            head=("", *block.labels),
            rows=tuple((label, *(f"{n:,}" for n in counts)) for label, counts in rows),
        )
    )


def _disagreement(block: pages.Disagreement) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row("primary", _parts(block.primary, "red"))
    table.add_row("candidate", _parts(block.candidate, "green"))
    return Group(_plain(f"{block.title}, {block.facts}"), _indented(table))


def _parts(parts: Iterable[pages.Part], style: str) -> Text:
    """Return an answer in one line, the parts that differ in bold colour, cut where it is long."""
    text = Text()
    for part in parts:
        words = printable(_SPACE.sub(" ", part.text))
        text.append(words, f"bold {style}" if part.is_different else "")
        if len(text) > _MAX_CHARACTERS:
            text.truncate(_MAX_CHARACTERS)
            text.append(" …", "dim")
            break
    return text


def _plain(value: str, style: str = "") -> Text:
    return Text(printable(value), style=style)


def _indented(value: RenderableType) -> RenderableType:
    return Padding(value, (0, 0, 0, 2), expand=False)
