"""Opening what comparisons and verdicts read: pairs, labels beside them, the config they came from.

Decides where labels and the config are looked for when nobody names them. Commands and notebooks open
them here alike; how far a reading is, `Watch` shows whoever wants to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from proxy.analysis.aggregate import Labels, Reading
from proxy.analysis.judging import Judging
from proxy.analysis.label_store import LabelStore
from proxy.analysis.labelled import labels_beside
from proxy.analysis.source import MissingTopicError, Source
from proxy.analysis.sources import open_source
from proxy.analysis.summary import Selection
from proxy.analysis.topic import NO_OPTIONS, ClientOptions
from proxy.comparison.correctness import TOLERANCE
from proxy.config.load import load_config
from proxy.config.resolved import Config
from proxy.errors import ConfigError, SourceError
from proxy.state.instance_config import CONFIG_NAMES, config_of

#: Called now and then while a source is read.
Advance = Callable[[], object]
#: Shows how far the reading of a source is, under a word for it, and gives what moves the bar.
Watch = Callable[[str, Source], AbstractContextManager[Advance]]

#: Returns the settings of the Kafka client for a source; none for what is no topic.
OptionsFor = Callable[[str], ClientOptions]


def no_options(_source: str) -> ClientOptions:
    """Return no settings: a broker that asks nobody who they are."""
    return NO_OPTIONS


def unwatched(_what: str, _source: Source) -> AbstractContextManager[Advance]:
    """Show nothing."""
    return nullcontext(lambda: None)


@dataclass(frozen=True, slots=True)
class Truth:
    """Which labels predictions are held against.

    Attributes:
        name: a source; empty: what lies beside the pairs, if there is any; `none`: no labels.
        tolerance: how far off a number may be, relatively, and still be right.
    """

    name: str = ""
    tolerance: float = TOLERANCE


@contextmanager
def opened(
    source: str,
    selection: Selection,
    judging: Judging,
    truth: Truth,
    watch: Watch = unwatched,
    options_for: OptionsFor = no_options,
) -> Iterator[tuple[Source, Reading, Advance]]:
    """Open pairs and read their labels; give both, and what moves the bar of progress.

    Args:
        source: as `open_source` takes it.
        selection: what is wanted of it.
        judging: how to judge.
        truth: which labels to hold predictions against.
        watch: shows how far it is.
        options_for: returns the Kafka client's settings for a source.

    Raises:
        SourceError: they cannot be read.
    """
    pairs = open_source(source, since_ms=selection.since_ms, options=options_for(source))
    labels = _labels_of(source, truth, watch, options_for)
    try:
        with watch("reading", pairs) as advance:
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


def _labels_of(pairs: str, truth: Truth, watch: Watch, options_for: OptionsFor) -> Labels | None:
    """Return the labels to hold predictions against; None without any.

    Raises:
        SourceError: those that were asked for by name cannot be read.
    """
    name = truth.name or labels_beside(pairs)
    if not name or name == "none":
        return None
    source, store = open_source(name, options=options_for(name)), LabelStore()
    try:
        with watch("reading labels", source) as advance:
            store.load(source, advance)
    except SourceError as exc:
        store.close()
        # Most topics of pairs have none of labels beside them.
        if isinstance(exc, MissingTopicError) and not truth.name:
            return None
        raise
    return Labels(store, name, truth.tolerance)
