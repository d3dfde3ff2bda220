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
        samples: every round as it was measured, for programs.
        summary: the figures that the tables show, for programs.
        faults: what went wrong; a report with faults fails the run.
    """

    name: str
    conditions: tuple[str, ...]
    tables: tuple[Table, ...]
    samples: tuple[Any, ...]
    summary: dict[str, Any]
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
    for table in report.tables:
        shown = rich.table.Table(title=table.title, title_justify="left", title_style="bold")
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if index else "left", no_wrap=index == 0)
        for row in table.rows:
            shown.add_row(*row, style="bold" if row[0].startswith("Understudy") else None)
        console.print(shown)
    for fault in report.faults:
        console.print(f"[red]fault: {fault}[/red]")


def markdown(run: Run) -> str:
    """Return the run as Markdown, for a README: machine, command, tables."""
    parts = [", ".join(f"{key} {value}" for key, value in run.machine.items()) + "."]
    parts.append(f"Made with `{run.command}` on {run.started}.")
    for report in run.reports:
        parts.append("\n".join(f"- {line}" for line in report.conditions))
        parts += [_markdown_table(table) for table in report.tables]
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
    path.write_bytes(orjson.dumps(dataclasses.asdict(run), option=orjson.OPT_INDENT_2))
    return path
