"""The newest pairs of a source, and those that come after them: `tail`, and `tail -f`.

Decides how far back one must look for the newest pairs that a filter takes, and where to go on, so
that between the last of these and the first that follows none is left out. Pairs come in the order
of their requests at first, then as they are recorded.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.reading import LineReading, open_reading
from proxy.analysis.select import Select
from proxy.analysis.source import Record, SourceStatistics
from proxy.analysis.sources import KAFKA_SCHEME, FileSource, files_of
from proxy.analysis.topic import NO_OPTIONS, ClientOptions
from proxy.errors import SourceError

#: How often files are looked at: a recorder writes several times a second.
POLL_S: Final = 0.2
#: Later than any pair.
_END_OF_TIME_MS: Final = 2**63


class Tail(Protocol):
    """The end of a source."""

    def last(self, count: int) -> list[Record]:
        """Return the newest `count` pairs that are asked for, oldest first. Raises SourceError."""
        ...

    def following(self) -> Iterator[Record]:
        """Yield what comes after `last`, for ever. Raises SourceError."""
        ...

    def statistics(self) -> SourceStatistics:
        """Return the live counts of the reading."""
        ...


def open_tail(name: str, wanted: PairFilter, options: ClientOptions = NO_OPTIONS) -> Tail:
    """Return the end of the source that `name` means, as `proxy.analysis.sources` reads names.

    Args:
        name: a path or a topic.
        wanted: which pairs.
        options: of a topic's client.

    Raises:
        SourceError: the name makes no sense, or there is nothing at the path.
    """
    if name.startswith(KAFKA_SCHEME):
        # aiokafka takes a third of a second to import, which readers of files need not wait for.
        from proxy.analysis.kafka_tail import KafkaTail  # noqa: PLC0415

        return KafkaTail(name, wanted, options)
    return FileTail(name, wanted)


class FileTail:
    """The end of files that grow and rotate."""

    def __init__(self, name: str, wanted: PairFilter) -> None:
        self._name = name
        self._wanted = wanted
        self._select = Select(wanted)
        self._paths = files_of(name)
        self._source = FileSource(name, self._paths)
        self._readings: dict[Path, LineReading] = {}

    def statistics(self) -> SourceStatistics:
        """Return the live counts of the reading."""
        return self._source.statistics()

    def last(self, count: int) -> list[Record]:
        """Return the newest `count` pairs that are asked for, oldest first.

        Raises:
            SourceError: a file cannot be read.
        """
        newest = Newest(count)
        for path in reversed(self._paths):
            if self._is_older(path, newest):
                self._skip(path)
            else:
                newest.add(self._records(path))
        return newest.pairs()

    def following(self) -> Iterator[Record]:
        """Yield the pairs that are appended, or that new files hold, for ever.

        Raises:
            SourceError: a file cannot be read.
        """
        while True:
            for path in files_of(self._name):
                reading = self._readings.get(path)
                if reading is None and path not in self._paths:
                    self._paths.append(path)
                    yield from self._records(path)
                elif reading is not None and reading.has_more:
                    yield from self._read(path, reading.records())
            time.sleep(POLL_S)

    def _is_older(self, path: Path, newest: Newest) -> bool:
        """Return whether no pair in a file can be asked for: it was written to before they came."""
        try:
            written_ms = path.stat().st_mtime_ns // 1_000_000
        except OSError:
            return False
        since_ms = self._wanted.since_ms
        return written_ms < newest.from_ms or (since_ms is not None and written_ms < since_ms)

    def _skip(self, path: Path) -> None:
        size = path.stat().st_size
        self._source.statistics().done += size
        self._readings[path] = LineReading(path, self._source, size)

    def _records(self, path: Path) -> Iterator[Record]:
        """Yield the pairs of a whole file, which may go on growing."""
        try:
            reading = open_reading(path, self._source)
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
        if isinstance(reading, LineReading):
            self._readings[path] = reading
        yield from self._read(path, reading.records())

    def _read(self, path: Path, records: Iterator[Record]) -> Iterator[Record]:
        try:
            yield from self._select.pairs(records)
        except FileNotFoundError:
            self._readings.pop(path, None)  # the local log expired it
        except OSError as exc:
            raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc


class Newest:
    """Keeps the newest few of all pairs that it is given.

    Attributes:
        from_ms: a pair before it would not be kept; 0 while any would.
    """

    def __init__(self, count: int) -> None:
        self.from_ms = 0 if count else _END_OF_TIME_MS
        self._count = count
        self._heap: list[tuple[int, str, Record]] = []

    def add(self, pairs: Iterable[Record]) -> None:
        """Take what is new enough."""
        for pair in pairs:
            # The id makes the order total, so that records themselves are never compared.
            entry = (pair["ts_ms"], pair["pair_id"], pair)
            if len(self._heap) < self._count:
                heapq.heappush(self._heap, entry)
            elif self._heap:
                heapq.heappushpop(self._heap, entry)
            if self._heap and len(self._heap) == self._count:
                self.from_ms = self._heap[0][0]

    def pairs(self) -> list[Record]:
        """Return them, oldest first."""
        return [pair for _, _, pair in sorted(self._heap, key=lambda entry: entry[:2])]

    def __len__(self) -> int:
        return len(self._heap)
