"""The pairs that an id names: one by its `pair_id`, or those of an exchange by its `request_id`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.select import Select
from proxy.analysis.source import Record, SourceStatistics
from proxy.analysis.sources import open_source
from proxy.analysis.topic import NO_OPTIONS, ClientOptions

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def find_pairs(name: str, identity: str, options: ClientOptions = NO_OPTIONS) -> Search:
    """Return the search for what `identity` names in the source `name`; iterate it once.

    Args:
        name: a path or a topic.
        identity: a `pair_id` or a `request_id`.
        options: of a topic's client.

    Raises:
        SourceError: the name makes no sense, or there is nothing at the path.
    """
    return Search(name, identity, options)


class Search:
    """Yields the pairs that an id names.

    A topic is looked at from the time that a `pair_id` holds; if that finds nothing, as a whole,
    because a `request_id` may look like one and be of a clock that is not ours.
    """

    def __init__(self, name: str, identity: str, options: ClientOptions = NO_OPTIONS) -> None:
        self._name = name
        self._options = options
        self._identity = identity.strip()
        instant_ms = time_of(self._identity)
        until_ms = None if instant_ms is None else instant_ms + 1
        self._source = open_source(name, since_ms=instant_ms, until_ms=until_ms, options=options)

    def statistics(self) -> SourceStatistics:
        """Return the live counts of the reading."""
        return self._source.statistics()

    def __iter__(self) -> Iterator[Record]:
        is_found = False
        for pair in self._pairs():
            is_found = True
            yield pair
        if not is_found and self._source.statistics().is_window:
            self._source = open_source(self._name, options=self._options)
            yield from self._pairs()

    def _pairs(self) -> Iterator[Record]:
        named = (
            record
            for record in self._source
            if self._identity in (record.get("pair_id"), record.get("request_id"))
        )
        for pair in Select(PairFilter()).pairs(named):
            yield pair
            if pair["pair_id"] == self._identity:
                return


def time_of(identity: str) -> int | None:
    """Return the milliseconds that a UUIDv7 begins with (RFC 9562 section 5.7), or None."""
    if not _UUID7.fullmatch(identity):
        return None
    return int(identity[:8] + identity[9:13], 16)
