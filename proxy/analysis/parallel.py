"""A source read by as many processes as there are processors, to the same result as by one.

Parts of files or of a topic are counted apart and merged in their order. A pair that was delivered twice may lie in
two parts: what an earlier part has seen is the later one's duplicate, so a part that shares pairs with
those before it is counted again without them. That is exact, and costs something only where there are
such duplicates. At most a few parts are under way, so memory does not grow with their number.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.analysis.aggregate import Aggregate, Reading
from proxy.analysis.lines import count_blocks
from proxy.analysis.parts import Part, PartSource, parts_of
from proxy.analysis.seen import SeenPairs
from proxy.analysis.source import Source, SourceStatistics
from proxy.analysis.sources import FileSource
from proxy.analysis.topic import Span, TopicPart
from proxy.errors import SourceError
from proxy.heap import keep_freed_memory, leave_garbage

if TYPE_CHECKING:
    from proxy.analysis.kafka_source import KafkaSource

#: Less than this is read sooner than another process starts.
MIN_BYTES: Final = 24 * 1024 * 1024
#: Of a topic: so many records are read sooner than another process starts.
MIN_RECORDS: Final = 60_000
#: Processes at most: each takes up to 150 MB.
MAX_PROCESSES: Final = 16
#: Containers that come to be before Python looks for cycles: more than a batch has.
_GARBAGE_OBJECTS: Final = 50_000
#: Parts that wait to be merged, beyond those that are being read.
_AHEAD: Final = 2

Counted = tuple[Aggregate, SourceStatistics]
_AnyPart = Part | TopicPart
_Nothing = Callable[[], object]


def aggregate_files(
    source: FileSource, reading: Reading, on_part: _Nothing, processes: int | None = None
) -> Aggregate:
    """Return the counts of all files of `source`, whose statistics grow meanwhile.

    Args:
        source: files.
        reading: what to take and how to judge.
        on_part: called whenever more has been read.
        processes: to read with; None: as many as there are processors, if there is enough to read.

    Raises:
        SourceError: a file cannot be read.
    """
    count = processes or (_processors() if source.statistics().total >= MIN_BYTES else 1)
    return _merged(source, parts_of(source.paths), _How(reading, on_part, count))


def aggregate_topic(
    source: KafkaSource, reading: Reading, on_part: _Nothing, processes: int | None = None
) -> Aggregate:
    """Return the counts of what a topic holds now, as `aggregate_files` does.

    Raises:
        SourceError: the topic cannot be read.
    """
    count = processes or _processors()
    parts = source.parts(count) if count > 1 else []
    if count == 1 or (processes is None and source.statistics().total < MIN_RECORDS):
        aggregate = Aggregate(reading)
        count_blocks(aggregate, source.blocks(), on_part)
        return aggregate
    return _merged(source, parts, _How(reading, on_part, count))


@dataclass(frozen=True, slots=True)
class _How:
    """How parts are counted: with what in mind, whom to tell after each, by how many processes."""

    reading: Reading
    on_part: _Nothing
    processes: int


def _merged(source: Source, parts: Iterable[_AnyPart], how: _How) -> Aggregate:
    total, statistics = Aggregate(how.reading), source.statistics()
    counted = (_one_by_one if how.processes == 1 else _at_once)(parts, total, how)
    for part, read in counted:
        total.merge(part)
        statistics.add(read)
        how.on_part()
    return total


def count_part(part: _AnyPart, reading: Reading, known: SeenPairs | None = None) -> Counted:
    """Return the counts of one part, without the pairs that are `known`, and what became of it."""
    aggregate = Aggregate(reading, known)
    if isinstance(part, Part) and part.row_groups is not None:
        # pyarrow is an extra, and takes a tenth of a second to import.
        from proxy.analysis.columnar import count_row_groups  # noqa: PLC0415

        return aggregate, count_row_groups(part, aggregate)
    source = _source_of(part)
    count_blocks(aggregate, source.blocks())
    return aggregate, source.statistics()


def _source_of(part: _AnyPart) -> PartSource | KafkaSource:
    if isinstance(part, Part):
        return PartSource(part)
    # aiokafka takes a third of a second to import, which readers of files need not wait for.
    from proxy.analysis.kafka_source import KafkaSource  # noqa: PLC0415

    return KafkaSource(part.topic, Span(ranges=part.ranges))


def _one_by_one(parts: Iterable[_AnyPart], total: Aggregate, how: _How) -> Iterator[Counted]:
    """Yield what this process counts; `total` holds the parts before."""
    for part in parts:
        found = count_part(part, how.reading)
        if total.seen.overlap(found[0].seen):
            found = count_part(part, how.reading, total.seen)
        yield found


def _at_once(parts: Iterable[_AnyPart], total: Aggregate, how: _How) -> Iterator[Counted]:
    """Yield what processes count, in the order of the parts; `total` holds those before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(how.processes, mp_context=spawn, initializer=_settle) as pool:
        try:
            for part, future in _submitted(pool, parts, how):
                found = future.result()
                if total.seen.overlap(found[0].seen):
                    known = total.seen.among(found[0].seen)
                    found = pool.submit(count_part, part, how.reading, known).result()
                yield found
        except BrokenProcessPool as exc:
            raise SourceError("a process that read a part was killed (out of memory?)") from exc
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, parts: Iterable[_AnyPart], how: _How
) -> Iterator[tuple[_AnyPart, Future[Counted]]]:
    waiting: deque[tuple[_AnyPart, Future[Counted]]] = deque()
    for part in parts:
        waiting.append((part, pool.submit(count_part, part, how.reading)))
        if len(waiting) >= how.processes + _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _processors() -> int:
    """Return how many processes may read at once."""
    is_linux = hasattr(os, "sched_getaffinity")  # which knows of containers' processors
    available = len(os.sched_getaffinity(0)) if is_linux else os.cpu_count() or 1
    return min(available, MAX_PROCESSES)


def _settle() -> None:
    """Prepare a process that reads: freed memory is kept for the next batch, cycles there are none.

    Keeping it takes 3.5 us off each pair, rare looks for cycles another half.
    """
    keep_freed_memory()
    leave_garbage()
    gc.set_threshold(_GARBAGE_OBJECTS)
