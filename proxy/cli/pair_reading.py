"""Opening what `compare` and `verdict` read: pairs, labels beside them, the config they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.aggregate import Labels, Reading
from proxy.analysis.judging import Judging
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import labels_beside
from proxy.analysis.source import MissingTopicError, Source
from proxy.analysis.sources import open_source
from proxy.analysis.summary import Selection
from proxy.analysis.window import parse_instant_ms
from proxy.cli.instance import CONFIG_NAMES, config_of
from proxy.cli.kafka_login import Login
from proxy.comparison.correctness import TOLERANCE
from proxy.config.load import load_config
from proxy.config.resolved import Config
from proxy.errors import ConfigError, SourceError
from proxy.telemetry import wall_ns

Advance = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Truth:
    """Which labels predictions are held against.

    Attributes:
        name: a source; empty: what lies beside the pairs, if there is any; `none`: no labels.
        tolerance: how far off a number may be, relatively, and still be right.
    """

    name: str = ""
    tolerance: float = TOLERANCE


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


@contextmanager
def reading_of(
    source: str, selection: Selection, judging: Judging, truth: Truth, login: Login
) -> Iterator[tuple[Source, Reading, Advance]]:
    """Open pairs and read their labels; give both, and what moves the bar of progress.

    Raises:
        SourceError: they cannot be read.
    """
    options = login.options_for(source)
    pairs = open_source(source, since_ms=selection.since_ms, options=options)
    labels = _labels_of(source, truth, login)
    try:
        with _progress("reading", pairs) as advance:
            yield pairs, Reading(selection, judging, labels), advance
    finally:
        if labels is not None:
            labels.store.close()


def config_beside(source: str, given: Path | None) -> Config | None:
    """Return the config that says by which gates to judge; None where none is known.

    That is the one given, else that of the state directory which is read, else the one in this
    folder if it ships to the topic which is read.

    Raises:
        ConfigError: the one given is broken.
    """
    if given is not None:
        return load_config(given)
    if source.startswith("kafka://"):
        return _config_of_topic(source.rpartition("/")[2])
    path = Path(source)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "config").is_dir() and (
            folder == path or path.parent.name == "pairs" or path.name == "pairs"
        ):
            return config_of(folder)
    return None


def _config_of_topic(topic: str) -> Config | None:
    for path in map(Path, CONFIG_NAMES):
        try:
            config = load_config(path) if path.is_file() else None
        except ConfigError:
            continue  # edited just now; the defaults, which the verdict names, judge then
        kafka = config.record.kafka if config else None
        if kafka is not None and f"{kafka.topic_prefix}.pairs.v1" == topic:
            return config
    return None


def _labels_of(pairs: str, truth: Truth, login: Login) -> Labels | None:
    """Return the labels to hold predictions against; None without any.

    Raises:
        SourceError: those that were asked for by name cannot be read.
    """
    name = truth.name or labels_beside(pairs)
    if not name or name == "none":
        return None
    source, store = open_source(name, options=login.options_for(name)), LabelStore()
    try:
        with _progress("reading labels", source) as advance:
            store.load(source, advance)
    except SourceError as exc:
        store.close()
        # Most topics of pairs have none of labels beside them.
        if isinstance(exc, MissingTopicError) and not truth.name:
            return None
        raise
    return Labels(store, name, truth.tolerance)


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
