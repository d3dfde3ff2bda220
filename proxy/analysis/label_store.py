"""Labels by request, the latest of each, in memory that does not grow with their number.

Labels come before or after their pairs, days apart, so all are read first and pairs look theirs up.
They lie in a temporary SQLite database, private to its owner, which keeps some megabytes in memory
and the rest on the disk; a store that is pickled reads the same file in another process. They are appended as they come and put in order once, when the first is looked for:
a million take 5 s of CPU and 21 MB of disk; inserted one by one at random places they took 40 s.

A request is known by 64 bits of a hash of its id: with ten million labels and ten million pairs the
chance that any pair at all meets a wrong label is one in 100,000.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from proxy.analysis.sources import Record
from proxy.errors import SourceError
from proxy.pairs.label import LABEL_VERSION, LabelError, make

#: Pages in memory, while labels are put in order and looked up.
CACHE_KIB: Final = 32 * 1024
_BATCH: Final = 5_000
#: Labels that are asked for at once; SQLite takes no more than 32,766 values in a statement.
_ASKED: Final = 4_096

_CREATE: Final = """
    CREATE TABLE arrived (key INTEGER NOT NULL, ts_ms INTEGER NOT NULL, label BLOB NOT NULL);
    CREATE TABLE labels (key INTEGER PRIMARY KEY, label BLOB NOT NULL);
"""
#: Of the same time, the one that was read later: in a topic that is the one sent later.
_ORDER: Final = """
    INSERT OR REPLACE INTO labels
    SELECT key, label FROM arrived ORDER BY key, ts_ms, arrived.rowid
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
        folder = tempfile.mkdtemp(prefix="understudy-labels-")
        self._remove: Callable[[], object] = weakref.finalize(
            self, shutil.rmtree, folder, ignore_errors=True
        )
        self._path = str(Path(folder) / "labels.sqlite")
        self._database = sqlite3.connect(self._path, isolation_level=None)
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.executescript(_CREATE)
        self._is_ordered = True

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to look labels up, all of which have been loaded."""
        self._put_in_order()
        left_out = ("_database", "_remove")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        name = f"file:{quote(self._path)}?mode=ro&immutable=1"
        self._database = sqlite3.connect(name, uri=True, isolation_level=None)
        self._remove = weakref.finalize(self, self._database.close)

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
                self._database.executemany("INSERT INTO arrived VALUES (?, ?, ?)", rows)
                self._database.execute("COMMIT")
                self._is_ordered = False
                self.read += len(rows)
                if on_batch is not None:
                    on_batch()
        except sqlite3.Error as exc:
            raise SourceError(f"cannot keep the labels on the temporary disk: {exc}") from exc

    def requests(self) -> int:
        """Return how many requests have a label."""
        self._put_in_order()
        (count,) = self._database.execute("SELECT count(*) FROM labels").fetchone()
        return int(count)

    def find(self, request_ids: Sequence[str]) -> dict[str, Any]:
        """Return the labels of those of `request_ids` that have one."""
        return {each: orjson.loads(text) for each, text in self.texts(request_ids).items()}

    def texts(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the JSON of the labels of those of `request_ids` that have one."""
        found: dict[str, bytes] = {}
        for start in range(0, len(request_ids), _ASKED):
            found |= self._texts(request_ids[start : start + _ASKED])
        return found

    def _texts(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        self._put_in_order()
        by_key = {_key(request_id): request_id for request_id in request_ids}
        marks = ",".join("?" * len(by_key))
        query = f"SELECT key, label FROM labels WHERE key IN ({marks})"  # noqa: S608 - marks only
        found = self._database.execute(query, sorted(by_key))
        return {by_key[key]: label for key, label in found}

    def close(self) -> None:
        """Let the database and its disk go."""
        self._database.close()
        self._remove()

    def _put_in_order(self) -> None:
        if self._is_ordered:
            return
        try:
            self._database.execute("BEGIN")
            self._database.execute(_ORDER)
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            raise SourceError(f"cannot keep the labels on the temporary disk: {exc}") from exc
        self._is_ordered = True

    def _row(self, record: Record) -> tuple[int, int, bytes] | None:
        """Return a row; a record as it was shipped takes a short way, since it was checked then."""
        request_id: Any = record.get("request_id")
        ts_ms: Any = record.get("ts_ms")
        label = record.get("label")
        is_shipped = record.get("schema_version") == LABEL_VERSION and type(ts_ms) is int
        if not is_shipped or type(request_id) is not str or label is None:
            try:
                request_id, ts_ms, _ = make(record, 0)
            except LabelError as exc:
                self.bad += 1
                if self.bad_example is None:
                    self.bad_example = str(exc)
                return None
        return _key(request_id), ts_ms, orjson.dumps(label)


def _key(request_id: str) -> int:
    digest = hashlib.blake2b(request_id.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
