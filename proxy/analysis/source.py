"""What every source of pairs is: a bounded stream of records, and counts of what became of it.

A bad line or a torn end is counted and told, never fatal: logs are read while they are written,
and after crashes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from proxy.errors import SourceError

Record = dict[str, Any]

#: Examples of bad lines that are kept for the report.
MAX_EXAMPLES: Final = 3


class MissingTopicError(SourceError):
    """There is no such topic, or we may not describe it."""


@dataclass(slots=True)
class SourceStatistics:
    """What became of a source so far.

    Attributes:
        name: as the operator gave it.
        kind: `files` or `kafka`.
        parts: files or partitions.
        done, total: bytes of files, or records of a topic: how far the reading is.
        bad_lines: lines, or messages, that were no JSON object.
        torn: files that ended in the middle of a frame or line, as after a crash or while written.
        corrupt: damaged regions that were skipped.
        examples: where the first bad things are and what they are.
        offsets: where the reading has ended: bytes of files, by name; of a topic the offset after the
            last record read, by partition.
        is_window: only a part of a longer stream was read, so gaps at its edges mean nothing.
    """

    name: str
    kind: str
    parts: int = 0
    done: int = 0
    total: int = 0
    bad_lines: int = 0
    torn: int = 0
    corrupt: int = 0
    examples: list[str] = field(default_factory=list)
    is_window: bool = False
    offsets: dict[str, int] = field(default_factory=dict)

    def note(self, example: str) -> None:
        """Keep `example` if there is room."""
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)

    def add(self, part: SourceStatistics) -> None:
        """Add what became of a part of the source; parts and total are known already."""
        self.done += part.done
        self.bad_lines += part.bad_lines
        self.torn += part.torn
        self.corrupt += part.corrupt
        for example in part.examples:
            self.note(example)
        for name, end in part.offsets.items():
            self.offsets[name] = max(end, self.offsets.get(name, 0))


class Block(NamedTuple):
    """Some lines in a row, to be counted at once, or else one by one.

    Attributes:
        content: whole lines; empty where they are not to be had as such.
        records: of the same lines.
    """

    content: bytes
    records: Iterable[Record]


class Source(ABC):
    """A bounded stream of records; iterate it once.

    Iterating raises `SourceError` when the source cannot be read (any more).
    """

    def __init__(self, statistics: SourceStatistics) -> None:
        self._statistics = statistics

    @abstractmethod
    def __iter__(self) -> Iterator[Record]: ...

    def statistics(self) -> SourceStatistics:
        """Return the live counts; they are final once iteration has ended."""
        return self._statistics

    def parse(self, lines: Iterable[bytes], place: str, number: int = 1) -> Iterator[Record]:
        """Yield the JSON objects in `lines`; what is none is counted as bad.

        Args:
            lines: without their newlines; blank ones are passed over.
            place: what the lines belong to, for the report.
            number: number of the first one there.
        """
        for count, line in enumerate(lines, number):
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError as exc:
                if line.strip():
                    self.note_bad(f"{place}:{count}: {exc}")
                continue
            if type(record) is dict:
                yield record
            else:
                self.note_bad(f"{place}:{count}: not a JSON object")

    def note_bad(self, example: str) -> None:
        """Count a line, message or row that is no record."""
        self._statistics.bad_lines += 1
        self._statistics.note(example)
