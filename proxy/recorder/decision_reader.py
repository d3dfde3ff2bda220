"""The decisions log as the recorder reads it: whole records after a number, and what is missing of them.

Its place is the number of a record (`seq`). A number that does not come is a record that is lost: with
the oldest file, when more waited than the log keeps, or by damage.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from proxy.recorder.sink import Drop
from proxy.state.decision_files import FILE_NAME, LOCK_NAME, old_files, parsed
from proxy.state.decision_record import EVERYTHING
from proxy.state.page_file import locked


class DecisionMessage(NamedTuple):
    """One decision, ready to be shipped.

    Attributes:
        request_id: the key of its topic, which is the experiment.
        value: the record as it is in the log.
    """

    request_id: str
    ts_ms: int
    value: bytes
    decision_id: str
    ts: str
    instance: str


@dataclass(slots=True)
class DecisionBatch:
    """What one `read` found: the records up to `seq`, and those before it that are lost."""

    seq: int
    messages: list[DecisionMessage] = field(default_factory=list)
    lost: Counter[Drop] = field(default_factory=Counter)


class DecisionReader:
    """Reads the decisions of a `state_dir` in their order.

    Args:
        state_dir: of the instance.
        seq: of the last record that needs not be read.
    """

    def __init__(self, state_dir: Path, seq: int) -> None:
        self._state_dir = state_dir
        self._seq = seq
        # Of the file that was read last, up to where: only to save time.
        self._inode = self._offset = 0
        self._seen = (0, 0)

    def read(self, max_bytes: int) -> DecisionBatch:
        """Return the next records, about `max_bytes` of them; none when there are no more.

        Raises:
            OSError, StateError: the log cannot be read now.
        """
        batch = DecisionBatch(self._seq)
        live = self._identity()
        if live == self._seen:
            return batch
        size = 0
        with ExitStack() as files:
            for number, file in enumerate(self._open(files)):
                is_oldest = number == 0
                for line, record in self._records(file):
                    if record["seq"] <= batch.seq:
                        continue
                    if gap := record["seq"] - batch.seq - 1:
                        batch.lost[Drop.JOURNAL_FULL if is_oldest else Drop.DAMAGED] += gap
                    is_oldest = False
                    batch.messages.append(_message(record, line))
                    batch.seq = record["seq"]
                    size += len(line)
                    if size >= max_bytes:
                        self._seq = batch.seq
                        return batch
        self._seq, self._seen = batch.seq, live
        return batch

    def _open(self, files: ExitStack) -> list[BinaryIO]:
        """Open what may hold further records, the oldest first; under the lock, as nobody sets one aside."""
        with locked(self._state_dir, LOCK_NAME):
            paths = [path for last, path in old_files(self._state_dir) if last > self._seq]
            found: list[BinaryIO] = []
            for path in (*paths, self._state_dir / FILE_NAME):
                with suppress(FileNotFoundError):
                    found.append(files.enter_context(path.open("rb")))
            return found

    def _records(self, file: BinaryIO) -> Iterator[tuple[bytes, dict[str, Any]]]:
        found = os.fstat(file.fileno())
        at = self._offset if found.st_ino == self._inode and found.st_size >= self._offset else 0
        file.seek(at)
        for line in file:
            if not line.endswith(b"\n"):
                return
            record = parsed(line)
            if record is not None:
                yield line[:-1], record
            at += len(line)
            self._inode, self._offset = found.st_ino, at

    def _identity(self) -> tuple[int, int]:
        """Return what changes when a record comes."""
        try:
            found = (self._state_dir / FILE_NAME).stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


def _message(record: dict[str, Any], line: bytes) -> DecisionMessage:
    ts_ms = record.get("ts_ms")
    return DecisionMessage(
        str(record.get("experiment_id") or EVERYTHING),
        ts_ms if isinstance(ts_ms, int) else 0,
        line,
        str(record.get("decision_id")),
        str(record.get("ts")),
        str(record.get("instance")),
    )
