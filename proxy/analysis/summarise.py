"""From records to a summary: the whole of a comparison, but for how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from proxy.analysis.aggregate import BATCH_ROWS, Aggregate, Labels, Reading
from proxy.analysis.comparing import comparison_of
from proxy.analysis.finding import findings_of
from proxy.analysis.findings import CandidateFindings
from proxy.analysis.judged import JudgedTally
from proxy.analysis.judging import DEFAULTS, Judging
from proxy.analysis.parallel import aggregate_files, aggregate_topic
from proxy.analysis.sources import FileSource, Record, Source, SourceStatistics
from proxy.analysis.summary import (
    FORMAT,
    Comparison,
    Gaps,
    Health,
    LabelsRead,
    Selection,
    Summary,
)
from proxy.comparison.verdict import Verdict

if TYPE_CHECKING:
    from proxy.analysis.kafka_source import KafkaSource

#: Instances named in the report.
MAX_GAPS: Final = 5


def summarise(
    records: Iterable[Record],
    selection: Selection | None = None,
    *,
    labels: Labels | None = None,
    judging: Judging = DEFAULTS,
    on_batch: Callable[[], object] | None = None,
) -> Summary:
    """Return the comparison of all candidates in `records`.

    Args:
        records: pair records, such as `open_source` gives; read once.
        selection: which of them to take; all by default.
        labels: to hold predictions against; all have been read.
        judging: by which gates to judge.
        on_batch: called after every thousand records, to show progress.

    Raises:
        SourceError: the source cannot be read.
    """
    reading = Reading(selection or Selection(), judging, labels)
    aggregate = aggregate_of(records, reading, on_batch or _nothing)
    statistics = records.statistics() if isinstance(records, Source) else None
    return summary_of(aggregate, reading, statistics)


def aggregate_of(
    records: Iterable[Record], reading: Reading, on_batch: Callable[[], object]
) -> Aggregate:
    """Return the counts of `records`; files and topics are read by several processes.

    Raises:
        SourceError: the source cannot be read.
    """
    if isinstance(records, FileSource):
        return aggregate_files(records, reading, on_batch)
    if isinstance(records, Source) and records.statistics().kind == "kafka":
        return aggregate_topic(cast("KafkaSource", records), reading, on_batch)
    aggregate = Aggregate(reading)
    for count, record in enumerate(records, 1):
        aggregate.add(record)
        if count % BATCH_ROWS == 0:
            on_batch()
    aggregate.flush()
    return aggregate


def summary_of(
    aggregate: Aggregate, reading: Reading, source: SourceStatistics | None = None
) -> Summary:
    """Return what a flushed aggregate has counted; `source` says where it came from."""
    compared: list[tuple[Comparison, CandidateFindings]] = []
    for (route, candidate), group in sorted(aggregate.groups.items()):
        if not group.tally.pairs:
            continue
        correctness = None if reading.labels is None else group.labelled.correctness()
        comparison = comparison_of(group.tally, route, candidate, correctness)
        verdict = verdict_of(aggregate, reading, (route, candidate), source)
        found = findings_of(
            group.tally,
            comparison,
            verdict,
            reading.judging.source_of(route, candidate),
            group.labelled.calibration(),
        )
        compared.append((comparison, found))
    return Summary(
        format=FORMAT,
        sentence=" ".join(found.sentence for _, found in compared) or "There are no pairs.",
        source=source,
        selection=reading.selection,
        health=health_of(aggregate, source),
        candidates=tuple(found for _, found in compared),
        comparisons=tuple(comparison for comparison, _ in compared),
        labels=_labels_read(reading.labels),
    )


def _nothing() -> None:
    return


def verdict_of(
    aggregate: Aggregate,
    reading: Reading,
    name: tuple[str, str],
    source: SourceStatistics | None = None,
) -> Verdict:
    """Return the verdict on one candidate, given as route and name; `no_data` without pairs."""
    group = aggregate.groups.get(name)
    offsets = sorted(source.offsets.items()) if source else ()
    judged = JudgedTally() if group is None else group.tally.judged
    return reading.judging.verdict(*name, judged, offsets)


def health_of(aggregate: Aggregate, source: SourceStatistics | None = None) -> Health:
    """Return whether the data can be trusted."""
    seen = aggregate.seen
    gaps = seen.gaps()
    knows_gaps = seen.is_exact and not (source and source.is_window)
    return Health(
        records=aggregate.records,
        bad_records=aggregate.bad,
        bad_example=aggregate.bad_example,
        duplicates=seen.duplicates,
        selected=aggregate.selected,
        not_tabulated=aggregate.not_tabulated,
        instances=len(gaps),
        missing=sum(gap.missing for gap in gaps) if knows_gaps else None,
        gaps=tuple(
            Gaps(gap.instance, gap.pairs, gap.missing)
            for gap in gaps[:MAX_GAPS]
            if gap.missing and knows_gaps
        ),
        is_exact=seen.is_exact,
    )


def _labels_read(labels: Labels | None) -> LabelsRead | None:
    if labels is None:
        return None
    store = labels.store
    return LabelsRead(labels.source, store.read, store.requests(), store.bad, store.bad_example)
