"""The end of a topic: its newest pairs, and those that come after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.analysis.kafka_source import KafkaSource
from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.select import Select
from proxy.analysis.source import Record, SourceStatistics
from proxy.analysis.tail import Newest
from proxy.analysis.topic import NO_OPTIONS, ClientOptions, Span, parse_topic

#: How many records of each partition are looked at first, and how many times as many the next
#: time, when the filter took too few of them.
_LEAST_RECORDS: Final = 100
_GROWTH: Final = 10


class KafkaTail:
    """Reads backwards from the ends of all partitions, in growing steps, then onwards."""

    def __init__(self, name: str, wanted: PairFilter, options: ClientOptions = NO_OPTIONS) -> None:
        self._topic = parse_topic(name, options)
        self._wanted = wanted
        self._select = Select(wanted)
        self._source = KafkaSource(self._topic)

    def statistics(self) -> SourceStatistics:
        """Return the live counts of the reading."""
        return self._source.statistics()

    def last(self, count: int) -> list[Record]:
        """Return the newest `count` pairs that are asked for, oldest first.

        Raises:
            SourceError: the topic cannot be read.
        """
        wanted, last = self._wanted, max(count, _LEAST_RECORDS) if count else 0
        while True:
            span = Span(since_ms=wanted.since_ms, until_ms=wanted.until_ms, last=last)
            self._source = KafkaSource(self._topic, span)
            self._select = Select(wanted)
            newest = Newest(count)
            newest.add(self._select.pairs(self._source))
            if len(newest) >= count or not self._source.is_cut:
                return newest.pairs()
            last *= _GROWTH

    def following(self) -> Iterator[Record]:
        """Yield the pairs that come after those that `last` has read, for ever.

        Raises:
            SourceError: the broker does not answer any more.
        """
        self._source = KafkaSource(self._topic, Span(after=self._source.ends, is_endless=True))
        yield from self._select.pairs(self._source)
