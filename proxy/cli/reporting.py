"""Where the report of `understudy compare` goes: the terminal, files, or a program as JSON."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from proxy.analysis.one_look import add_one_look, require_statsmodels
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.html import html_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.reports.terminal import render
from proxy.analysis.shown import write_report
from proxy.errors import ReportError

Html = Annotated[
    Path | None,
    typer.Option(
        help="Also write the report as one HTML file with plots; it needs nothing else.",
        metavar="FILE",
    ),
]
Markdown = Annotated[
    Path | None, typer.Option(help="Also write the report as Markdown.", metavar="FILE")
]
OneLookTests = Annotated[
    bool,
    typer.Option(
        "--one-look",
        help="Add classical tests (McNemar, bootstrap, TOST). They hold for one look at a number of "
        "pairs that was fixed beforehand. Needs the extra `stats`.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reports:
    """Which reports were asked for."""

    html: Path | None
    markdown: Path | None
    with_one_look: bool

    def check(self) -> None:
        """Find out before minutes of reading that a report could not be made.

        Raises:
            ReportError: a folder is missing, or a package.
        """
        for path in (self.html, self.markdown):
            if path is not None and not path.absolute().parent.is_dir():
                raise ReportError(f"cannot write {path}: there is no folder {path.parent}")
            if path is not None and path.is_dir():
                raise ReportError(f"cannot write {path}: it is a folder; name a file in it")
        if self.with_one_look:
            require_statsmodels()


def tell(document: dict[str, Any], reports: Reports, *, as_json: bool) -> None:
    """Write the files that were asked for, then the report, or the document itself, to stdout.

    Raises:
        ReportError: a file cannot be written.
    """
    if reports.with_one_look:
        add_one_look(document)
    page = page_of(document)
    if reports.html is not None:
        write_report(reports.html, html_of(page))
    if reports.markdown is not None:
        write_report(reports.markdown, markdown_of(page))
    if as_json:
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        sys.stdout.buffer.write(orjson.dumps(document, option=options))
        sys.stdout.buffer.flush()
    else:
        render(page, Console())
    for path in (reports.html, reports.markdown):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)
