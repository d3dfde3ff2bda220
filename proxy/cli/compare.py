"""`understudy compare`: what differs between candidates and their primary, from recorded pairs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.aggregate import summarise
from proxy.analysis.report import render
from proxy.analysis.sources import Source, open_source
from proxy.analysis.summary import Selection, Summary, as_json as summary_json
from proxy.analysis.window import parse_instant_ms
from proxy.cli import options
from proxy.telemetry import wall_ns


def compare(  # noqa: PLR0913 - one argument for each option of the command
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="A state directory, a folder or file of pairs, or kafka://HOST:PORT/TOPIC.",
            metavar="SOURCE",
        ),
    ],
    route: options.Route = "",
    candidate: options.Candidate = "",
    worst: Annotated[
        int, typer.Option(help="How many differing pairs to show.", min=0, max=1000, metavar="N")
    ] = 5,
    since: Annotated[
        str, typer.Option(help="Only from then on: 15m, 2h, 7d ago, or an ISO time.", metavar="T")
    ] = "",
    until: Annotated[
        str, typer.Option(help="Only before then, written likewise.", metavar="T")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Compare candidates with their primary: agreement, errors, latency, and the worst differences.

    Counts of one look, without a verdict: who is right needs labels, and whether a difference is
    noise needs evidence.
    """
    now_ms = wall_ns() // 1_000_000
    selection = Selection(
        route=route,
        candidate=candidate,
        since_ms=parse_instant_ms(since, now_ms=now_ms) if since else None,
        until_ms=parse_instant_ms(until, now_ms=now_ms) if until else None,
        worst=worst,
    )
    summary = _read(open_source(source, since_ms=selection.since_ms), selection)
    if as_json:
        sys.stdout.buffer.write(summary_json(summary))
        sys.stdout.buffer.flush()
    else:
        render(summary, Console())


def _read(source: Source, selection: Selection) -> Summary:
    # aiokafka logs each failed connection; the error that follows says it once, and better.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    statistics = source.statistics()
    console = Console(stderr=True)
    with Progress(
        TextColumn("reading"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("reading", total=None)
        return summarise(
            source,
            selection,
            on_batch=lambda: progress.update(
                task, completed=statistics.done, total=statistics.total or None
            ),
        )
