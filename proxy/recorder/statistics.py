"""What a recorder tells the world: `state_dir/recorder-<i>.json`, replaced each second.

The file is the recorder's only way to be asked anything: control reads it for `status` and
`/metrics`, and a recorder that hangs shows as an `updated_ms` that stands still.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from proxy.recorder.sink import Drop, SinkState, SinkStatus
from proxy.telemetry import wall_ns

#: Keys of the accounts that are committed with each position; drops are `dropped.<reason>`.
READ = "journaled_read"
ACKNOWLEDGED = "acknowledged"
UNKNOWN_CONFIG = "unknown_config"
SKIPPED_BYTES = "skipped_bytes"
DROPPED = "dropped."


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A snapshot of one recorder.

    Attributes:
        recorder: its index.
        sink: the kind of sink, and where.
        status: how the sink is doing.
        accounts: totals over all starts, exact at the committed positions: `journaled_read` =
            `acknowledged` + every `dropped.<reason>` but `damaged`, which could not be read.
        journal_full: pairs that the writers dropped for their disk budget.
        lag_s: how long ago all that is delivered by now was journaled, seconds; None: not known yet.
        backlog_bytes: compressed bytes that are journaled and not yet acknowledged.
        journals: journals tailed.
        journal_errors: failures to read or commit a journal since the start.
        message: the latest trouble that is not the sink's, empty when there was none.
        sink_counters: the sink's own.
        exported_spans: since the start, that the collector took.
        dropped_spans: since the start, by reason.
    """

    recorder: int
    sink: str
    status: SinkStatus
    accounts: Mapping[str, int]
    journal_full: int
    lag_s: float | None
    backlog_bytes: int
    journals: int
    journal_errors: int
    message: str
    sink_counters: Mapping[str, int] = field(default_factory=dict)
    exported_spans: int = 0
    dropped_spans: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """Return the file's content."""
        dropped = {
            key.removeprefix(DROPPED): count
            for key, count in self.accounts.items()
            if key.startswith(DROPPED)
        }
        if self.journal_full:
            dropped[Drop.JOURNAL_FULL] = self.journal_full
        content = {
            "recorder": self.recorder,
            "pid": os.getpid(),
            "updated_ms": wall_ns() // 1_000_000,
            "sink": self.sink,
            "state": self.status.state,
            "message": self.status.message or self.message,
            "remedy": self.status.remedy,
            "journaled_read": self.accounts.get(READ, 0),
            "acknowledged": self.accounts.get(ACKNOWLEDGED, 0),
            "dropped": dropped,
            "unknown_config": self.accounts.get(UNKNOWN_CONFIG, 0),
            "skipped_bytes": self.accounts.get(SKIPPED_BYTES, 0),
            "lag_s": None if self.lag_s is None else round(self.lag_s, 1),
            "backlog_bytes": self.backlog_bytes,
            "journals": self.journals,
            "journal_errors": self.journal_errors,
            "sink_counters": dict(self.sink_counters),
            "exported_spans": self.exported_spans,
            "dropped_spans": dict(self.dropped_spans),
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def unusable(index: int, message: str) -> RecorderStatistics:
    """Return what a recorder says that cannot start."""
    status = SinkStatus(SinkState.MISCONFIGURED, message)
    return RecorderStatistics(index, "", status, {}, 0, None, 0, 0, 0, "")


def statistics_path(state_dir: Path, index: int) -> Path:
    """Return where recorder `index` writes its statistics."""
    return state_dir / f"recorder-{index}.json"


def store(state_dir: Path, statistics: RecorderStatistics) -> None:
    """Replace the statistics file; not synced, because it is stale after a second anyway.

    Raises:
        OSError: the disk refuses.
    """
    path = statistics_path(state_dir, statistics.recorder)
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(statistics.as_json())
    fresh.replace(path)


def total(accounts: list[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of several accounts, key by key."""
    summed: Counter[str] = Counter()
    for each in accounts:
        summed.update(each)
    return dict(summed)
