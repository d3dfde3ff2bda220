"""A state directory with its pages and files, as a launcher, a worker and a recorder leave it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from proxy.config.resolved import Config
from proxy.control.snapshot import Observer
from proxy.journal.segments import Dropped, Position, Shipped, store_dropped, store_shipped
from proxy.state.control_page import ControlPage
from proxy.state.stats_file import StatsPage
from proxy.telemetry import wall_ns

TOKEN = "s3cret-tøken"


@dataclass
class Instance:
    """A state directory with its pages, as a launcher and a worker leave it."""

    config: Config
    state_dir: Path
    page: ControlPage
    stats: StatsPage
    observer: Observer

    def write_runtime(self, worker_pid: int) -> None:
        """Say that the worker runs as `worker_pid`; 0 means that it is down."""
        process = {
            "name": "worker 0", "pid": worker_pid, "started_ms": wall_ns() // 1_000_000 - 5_000,
            "restarts": 2, "last_end": "SIGKILL",
        }  # fmt: skip
        runtime = {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "processes": [process]}
        (self.state_dir / "runtime.json").write_text(json.dumps(runtime))

    def write_recorder(self, **changes: object) -> None:
        """Leave a recorder's statistics, a healthy one's but for `changes`."""
        statistics = {
            "recorder": 0, "updated_ms": wall_ns() // 1_000_000, "state": "ok", "message": "",
            "sink": "local log", "journaled_read": 7, "acknowledged": 4,
            "dropped": {"rejected": 2, "journal_full": 9}, "lag_s": 0.3, "backlog_bytes": 11,
        }  # fmt: skip
        (self.state_dir / "recorder-0.json").write_text(json.dumps({**statistics, **changes}))

    def write_journal(self, **accounts: int) -> None:
        """Leave a journal of worker 0 that was read to its end, with these accounts."""
        directory = self.state_dir / "journal" / "worker-0"
        directory.mkdir(parents=True, exist_ok=True)
        store_shipped(directory, Shipped(Position(1, 0), accounts))

    def write_dropped(self, pairs: int) -> None:
        """Say that the writer of worker 0 dropped pairs for its disk budget."""
        store_dropped(self.state_dir / "journal" / "worker-0", Dropped(pairs, 1))
