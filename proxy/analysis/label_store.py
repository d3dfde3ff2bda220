"""Labels by request, the latest of each, in memory that does not grow with their number.

Labels come before or after their pairs, days apart, so all are read first and pairs look theirs up.
They lie in a temporary SQLite database without a name, which keeps some megabytes in memory and the
rest on the disk: a million labels take 8 s to read and 30 to 80 MB of disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

import orjson

from proxy.analysis.sources import Record
from proxy.errors import SourceError
from proxy.pairs.label import LabelError, make

#: Pages in memory.
CACHE_KIB: Final = 32 * 1024
_BATCH: Final = 1_000

_CREATE: Final = """
    CREATE TABLE labels (request_id TEXT PRIMARY KEY, ts_ms INTEGER NOT NULL, label BLOB NOT NULL)
    WITHOUT ROWID
"""
#: Of the same time, the one that is read later: in a topic that is the one sent later.
_PUT: Final = """
    INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT (request_id) DO UPDATE
    SET ts_ms = excluded.ts_ms, label = excluded.label WHERE excluded.ts_ms >= labels.ts_ms
"""


class LabelStore:
    """The labels of one reading.

    Attributes:
        read: labels read, those that were replaced included.
        bad: records that are no labels.
        bad_example: why the first of them is none.
    """

    def __init__(self) -> None:
        self.read = 0
        self.bad = 0
        self.bad_example: str | None = None
        # No name: private to this connection, on the disk, and gone with it.
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(_CREATE)

    def load(self, records: Iterable[Record], on_batch: Callable[[], object] | None = None) -> None:
        """Take every label in `records`.

        Raises:
            SourceError: they cannot be read, or the temporary disk is full.
        """
        stream = iter(records)
        try:
            while batch := list(islice(stream, _BATCH)):
                rows = [row for row in map(self._row, batch) if row is not None]
                self._database.execute("BEGIN")
                self._database.executemany(_PUT, rows)
                self._database.execute("COMMIT")
                self.read += len(rows)
                if on_batch is not None:
                    on_batch()
        except sqlite3.Error as exc:
            raise SourceError(f"cannot keep the labels on the temporary disk: {exc}") from exc

    def requests(self) -> int:
        """Return how many requests have a label."""
        (count,) = self._database.execute("SELECT count(*) FROM labels").fetchone()
        return int(count)

    def find(self, request_ids: Sequence[str]) -> dict[str, Any]:
        """Return the labels of those of `request_ids` that have one; a few hundred at once."""
        marks = ",".join("?" * len(request_ids))
        query = f"SELECT request_id, label FROM labels WHERE request_id IN ({marks})"  # noqa: S608 - marks only
        found = self._database.execute(query, request_ids)
        return {request_id: orjson.loads(label) for request_id, label in found}

    def close(self) -> None:
        """Let the database and its disk go."""
        self._database.close()

    def _row(self, record: Record) -> tuple[str, int, bytes] | None:
        try:
            label = make(record, 0)
        except LabelError as exc:
            self.bad += 1
            if self.bad_example is None:
                self.bad_example = str(exc)
            return None
        return label.request_id, label.ts_ms, orjson.dumps(record["label"])
