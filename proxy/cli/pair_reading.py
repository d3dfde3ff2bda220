"""Opening what `compare` and `verdict` read, with a bar of progress on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.aggregate import Reading
from proxy.analysis.judging import Judging
from proxy.analysis.opening import Advance, Truth, opened
from proxy.analysis.source import Source
from proxy.analysis.summary import Selection
from proxy.analysis.window import parse_instant_ms
from proxy.cli.kafka_login import Login
from proxy.telemetry import wall_ns


def selection_of(
    route: str, candidate: str, since: str, until: str, *, worst: int = 0
) -> Selection:
    """Return which pairs the options ask for.

    Raises:
        SourceError: a time is none.
    """
    now_ms = wall_ns() // 1_000_000
    return Selection(
        route=route,
        candidate=candidate,
        since_ms=parse_instant_ms(since, now_ms=now_ms) if since else None,
        until_ms=parse_instant_ms(until, now_ms=now_ms) if until else None,
        worst=worst,
    )


def reading_of(
    source: str, selection: Selection, judging: Judging, truth: Truth, login: Login
) -> AbstractContextManager[tuple[Source, Reading, Advance]]:
    """Open pairs and read their labels; see `opened`."""
    return opened(source, selection, judging, truth, _progress, login.options_for)


@contextmanager
def _progress(what: str, source: Source) -> Iterator[Advance]:
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
