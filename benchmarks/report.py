"""A benchmark's result: rows for the terminal, for Markdown and as JSON, all from one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import rich.table
from rich.console import Console

from benchmarks.charts import Chart
from benchmarks.claims import Claim

_JSON = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as shown; the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What one benchmark found.

    Attributes:
        name: its name in the catalogue.
        conditions: what was done, each in a line.
        tables: for people.
        claims: what the design promises, with the figures of this run.
        charts: what is drawn.
        samples: every round as it was measured, for programs.
        summary: the figures that the tables show, for programs.
        faults: what went wrong; a report with faults fails the run.
    """

    name: str
    conditions: tuple[str, ...]
    tables: tuple[Table, ...]
    samples: tuple[Any, ...]
    summary: dict[str, Any]
    claims: tuple[Claim, ...] = ()
    charts: tuple[Chart, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class Run:
    """One run of the benchmarks."""

    started: str
    machine: dict[str, str]
    command: str
    notes: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


def show(console: Console, report: Report) -> None:
    """Print a report to a terminal."""
    for line in report.conditions:
        console.print(f"[dim]{line}[/dim]")
    for table in (*report.tables, *claims_table(report.claims)):
        show_table(console, table)
    for fault in report.faults:
        console.print(f"[red]fault: {fault}[/red]")


def show_table(console: Console, table: Table) -> None:
    """Print a table to a terminal, Understudy's rows in bold."""
    shown = rich.table.Table(title=table.title, title_justify="left", title_style="bold")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left", no_wrap=index == 0)
    for row in table.rows:
        shown.add_row(*row, style="bold" if row[0].startswith("Understudy") else None)
    console.print(shown)


def claims_table(claims: Sequence[Claim]) -> list[Table]:
    """Return the claims as a table; none when there are none."""
    rows = tuple((one.what, one.bar, one.figure, one.verdict) for one in claims)
    return [Table("Claims", ("", "bar", "measured", "met"), rows)] if rows else []


def markdown(run: Run, plots: str) -> str:
    """Return the run as Markdown, for a README: machine, command, claims, plots and tables.

    The details of each benchmark are folded; `plots` is where a README finds the plots.
    """
    parts = [", ".join(f"{key} {value}" for key, value in run.machine.items()) + "."]
    parts.append(f"Made with `{run.command}` on {run.started}.")
    parts += [f"Note: {note}." for note in run.notes]
    parts += [
        _markdown_table(one) for one in claims_table([c for r in run.reports for c in r.claims])
    ]
    for report in run.reports:
        parts.append(f"### {report.name}")
        parts += [f"![{chart.title}]({plots}/{chart.name}.svg)" for chart in report.charts]
        parts.append("<details><summary>conditions and tables</summary>")
        parts.append("\n".join(f"- {line}" for line in report.conditions))
        parts += [_markdown_table(table) for table in report.tables]
        parts.append("</details>")
        parts += [f"**fault:** {fault}" for fault in report.faults]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    """Return one table with its title."""
    lines = [f"**{table.title}**", "", _row(table.columns)]
    lines.append(_row(["---", *["---:"] * (len(table.columns) - 1)]))
    return "\n".join(lines + [_row(row) for row in table.rows])


def _row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def write_json(run: Run, folder: Path) -> Path:
    """Write the whole run to a file named by its start and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.started.replace(':', '')}.json"
    path.write_bytes(orjson.dumps(dataclasses.asdict(run), option=_JSON))
    return path
