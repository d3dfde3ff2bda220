"""`understudy compare`: what differs between candidates and their primary, from recorded pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.aggregate import Labels
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import labels_beside
from proxy.analysis.source import MissingTopicError, Source
from proxy.analysis.sources import open_source
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import Selection, as_dict
from proxy.analysis.window import parse_instant_ms
from proxy.cli import options
from proxy.cli.reporting import Html, Markdown, OneLookTests, Reports, tell
from proxy.comparison.correctness import TOLERANCE
from proxy.errors import SourceError
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
    labels: Annotated[
        str,
        typer.Option(
            help="Where labels are, written as for --from; by default beside the pairs. none: "
            "without.",
            metavar="SOURCE",
        ),
    ] = "",
    tolerance: Annotated[
        float,
        typer.Option(
            "--label-tolerance",
            help="How far off a number may be, relatively, and still be right.",
            min=0,
            max=1,
            metavar="R",
        ),
    ] = TOLERANCE,
    html: Html = None,
    markdown: Markdown = None,
    one_look: OneLookTests = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare candidates with their primary: the verdict, and all that it rests on.

    The verdict may be looked at all the time. Where labels say what the right answer was, it is
    about how often each is right. The report goes to the terminal, and to files where asked.
    """
    reports = Reports(html, markdown, with_one_look=one_look)
    reports.check()
    now_ms = wall_ns() // 1_000_000
    selection = Selection(
        route=route,
        candidate=candidate,
        since_ms=parse_instant_ms(since, now_ms=now_ms) if since else None,
        until_ms=parse_instant_ms(until, now_ms=now_ms) if until else None,
        worst=worst,
    )
    # aiokafka logs each failed connection; the error that follows says it once, and better.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    pairs = open_source(source, since_ms=selection.since_ms)
    truth = _read_labels(source, labels, tolerance)
    try:
        with _progress("reading", pairs) as advance:
            summary = summarise(pairs, selection, labels=truth, on_batch=advance)
    finally:
        if truth is not None:
            truth.store.close()
    tell(as_dict(summary), reports, as_json=as_json)


def _read_labels(pairs: str, given: str, tolerance: float) -> Labels | None:
    """Return the labels to hold predictions against; None without any.

    Raises:
        SourceError: those that were asked for by name cannot be read.
    """
    name = given or labels_beside(pairs)
    if not name or name == "none":
        return None
    source, store = open_source(name), LabelStore()
    try:
        with _progress("reading labels", source) as advance:
            store.load(source, advance)
    except SourceError as exc:
        store.close()
        # Most topics of pairs have none of labels beside them.
        if isinstance(exc, MissingTopicError) and not given:
            return None
        raise
    return Labels(store, name, tolerance)


@contextmanager
def _progress(what: str, source: Source) -> Iterator[Callable[[], None]]:
    """Show on stderr how far a source is read, where that is a terminal; give what moves it."""
    statistics = source.statistics()
    console = Console(stderr=True)
    with Progress(
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda: bar.update(task, completed=statistics.done, total=statistics.total or None)
