"""Options that several commands share, and how they print the answer to an order."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer

from proxy.cli.ordering import Done

Admin = Annotated[
    str,
    typer.Option(
        help="The admin URL; else UNDERSTUDY_ADMIN, else what the current folder says.",
        metavar="URL",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(help="Use this state directory itself, without the admin API.", metavar="FOLDER"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the decisions log.", metavar="TEXT")]
Route = Annotated[str, typer.Option(help="Only this route.", metavar="ROUTE")]
Candidate = Annotated[
    str, typer.Option(help="Only this candidate of the route.", metavar="CANDIDATE")
]
Only = Annotated[Literal["mirror", "canary", "record"] | None, typer.Option(help="Only this part.")]


def print_done(done: Done, sentence: str, *, as_json: bool) -> None:
    """Print the answer to an order: the sentence, every latch, and warnings on stderr."""
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(orjson.dumps(dataclasses.asdict(done)).decode())
        return
    print(f"{sentence} in {done.took_ms:g} ms ({done.via})")
    for scope, parts in done.killed.items():
        print(f"  killed: {scope}: {', '.join(parts)}")
    if not done.killed:
        print("  nothing is killed")
