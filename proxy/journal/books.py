"""What a journal directory says of its pairs: what has become of them, and what is retained.

Read by who is neither its writer nor its reader: control, and a command beside a stopped instance. It
only looks; the reader may commit and the writer may drop meanwhile, which is noticed and looked at
again, a few times.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proxy.journal.scan import count_lines
from proxy.journal.segments import (
    Dropped,
    Shipped,
    doomed_segments,
    load_dropped,
    load_shipped,
    segment_numbers,
    segment_path,
)

#: Retained pairs are counted up to this many compressed bytes: about 10 ms.
COUNTED_BYTES = 8 * 1024 * 1024
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class JournalBooks:
    """The books of one journal at one moment.

    Attributes:
        accounts: the reader's totals, exact at its committed position.
        journal_full: pairs that the writer dropped unshipped for its disk budget.
        backlog_bytes: compressed bytes behind the committed position.
        retained: pairs in them; None when they are too many to be counted by the way.
    """

    accounts: Mapping[str, int] = field(default_factory=dict)
    journal_full: int = 0
    backlog_bytes: int = 0
    retained: int | None = 0


def read_books(directory: Path, *, counted_bytes: int = COUNTED_BYTES) -> JournalBooks:
    """Return the books of a journal; those of a new one when there is nothing yet.

    A directory that cannot be read says nothing of what is retained: that is told elsewhere, and a
    status must not fail for it.
    """
    books = JournalBooks()
    for _ in range(_LOOKS):
        shipped, dropped = load_shipped(directory), _dropped(directory)
        try:
            backlog = _backlog(directory, shipped)
        except OSError:
            return JournalBooks(shipped.accounts, dropped.pairs, 0, None)
        size = sum(size for size, _ in backlog.values())
        retained = None
        if size <= counted_bytes:
            retained = sum(_pairs(directory, number, at) for number, (_, at) in backlog.items())
        books = JournalBooks(shipped.accounts, dropped.pairs, size, retained)
        if shipped == load_shipped(directory) and dropped == _dropped(directory):
            break
    return books


def _dropped(directory: Path) -> Dropped:
    """Return what the writer has dropped, with the segment that it is about to count."""
    doomed = []
    with suppress(OSError):  # there is no directory yet, or one that nobody can read
        doomed = doomed_segments(directory)
    dropped = load_dropped(directory)
    for number, pairs in doomed:
        if pairs and number != dropped.last_segment:
            dropped = dropped.plus(number, pairs)
    return dropped


def _backlog(directory: Path, shipped: Shipped) -> dict[int, tuple[int, int]]:
    """Return, by segment, the bytes that are not shipped and where they begin."""
    found = {}
    for number in segment_numbers(directory):
        at = shipped.offset_in(number)
        if at is not None:
            with suppress(FileNotFoundError):
                size = segment_path(directory, number).stat().st_size
                found[number] = (max(0, size - at), at)
    return found


def _pairs(directory: Path, number: int, offset: int) -> int:
    try:
        return count_lines(segment_path(directory, number), offset)
    except (OSError, ValueError):
        return 0  # gone since, or cut
