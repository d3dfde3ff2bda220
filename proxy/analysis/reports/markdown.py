"""The report as GitHub-flavoured Markdown, for a pull request, a ticket or a wiki.

Values from outside are escaped: they become neither markup, links, mentions, formulas nor HTML.
Plots are left out; their figures stand in the tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from proxy.analysis.reports import page as pages
from proxy.analysis.wording import printable

_ESCAPED = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "\\`*_[]{}|~$"},
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "@": "&#64;",
    }
)
#: What would become a link by itself, and what a line must not begin with.
_LINK = re.compile(r"(?i)(https?|ftp):(?=//)|\bwww\.")
_LINE_START = re.compile(r"^(\s*)([#+-]|\d+[.)])(?=\s|$)")


def markdown_of(page: pages.Page) -> str:
    """Return the report as Markdown, with a final newline."""
    return "\n\n".join(_blocks(page)) + "\n"


def escaped(value: str) -> str:
    """Return `value` as text of one line that Markdown shows as it is."""
    text = printable(" ".join(value.split())).translate(_ESCAPED)
    text = _LINK.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text)
    return _LINE_START.sub(lambda found: f"{found[1]}{found[2][:-1]}&#{ord(found[2][-1])};", text)


def _blocks(page: pages.Page) -> Iterator[str]:
    yield f"# {escaped(page.title)}"
    if page.sentence:
        yield escaped(page.sentence)
    if page.source:
        yield f"Pairs from {escaped(page.source)}"
    for candidate in page.candidates:
        yield f"## {escaped(candidate.name)}: {escaped(candidate.verdict)}"
        if candidate.sentence:
            yield escaped(candidate.sentence)
        for section in candidate.sections:
            yield from _section(section, "###")
    if page.health is not None:
        yield from _section(page.health, "##")


def _section(section: pages.Section, level: str) -> Iterator[str]:
    yield f"{level} {escaped(section.title)}"
    for block in section.blocks:
        yield from _shown(block)


def _shown(block: pages.Block) -> Iterator[str]:
    match block:
        case str():
            yield escaped(block)
        case pages.Note():
            yield escaped(block.text)
        case pages.Table():
            table = _table(block)
            yield _folded(block.caption, table) if block.is_detail else table
        case pages.HeatMap():
            rows = zip(block.labels, block.counts, strict=True)
            yield _table(
                pages.Table(
                    caption=block.title,
                    head=("primary ↓ candidate →", *block.labels),
                    rows=tuple((label, *(f"{n:,}" for n in counts)) for label, counts in rows),
                )
            )
        case pages.Disagreement():
            yield f"**{escaped(block.title)}**, {escaped(block.facts)}"
            predictions = _difference(block.primary, block.candidate)
            yield _folded("Both predictions", predictions) if block.is_long else predictions
            if block.answers is not None:
                yield _folded("Whole answers", _difference(*block.answers))
        case _:
            return


def _table(block: pages.Table) -> str:
    sides = ("---" if place in block.texts else "---:" for place in range(len(block.head)))
    lines = [_row(block.head), f"| {' | '.join(sides)} |"]
    for place, row in enumerate(block.rows):
        cells = [escaped(cell) for cell in row]
        if place in block.flagged:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escaped(title)}</summary>\n\n{content}\n\n</details>"


def _difference(primary: Iterable[pages.Part], candidate: Iterable[pages.Part]) -> str:
    """Return both texts as a fenced block, whose fence no text in it can end."""
    lines = [
        f"{sign} {printable(line)}"
        for sign, parts in (("-", primary), ("+", candidate))
        for line in "".join(part.text for part in parts).split("\n")
    ]
    content = "\n".join(lines)
    longest = max(map(len, re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}diff\n{content}\n{fence}"
