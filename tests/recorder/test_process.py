"""The recorder as a process, on the local log: what was journaled is logged, once, and counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from proxy.config.resolved import Config, Kafka, digest
from proxy.journal.segments import Position, load_shipped, segment_path
from proxy.telemetry import wall_ns
from tests.recorder.support import (
    config_for,
    journal,
    journal_lines,
    logged,
    recorder,
    statistics,
    stop,
    wait_for_acknowledged,
)
from tests.support.deadline import PATIENCE_S, wait_for


def seqs(records: list[dict[str, object]]) -> list[object]:
    """Return the sequence numbers of records."""
    return [record["seq"] for record in records]


def kill_after_progress(config: Config) -> None:
    """Run a recorder until it has committed something more, and kill it."""
    worker = Path(config.state_dir) / "journal" / "worker-0"
    before = load_shipped(worker)
    with recorder(config) as process:
        wait_for(lambda: load_shipped(worker) != before or process.poll(), "some progress")
        process.kill()


def test_what_is_journaled_is_logged_and_the_segments_go(tmp_path: Path) -> None:
    """Also what is journaled while it runs, by workers that came later."""
    config = config_for(tmp_path)
    journal(config, range(100))
    with recorder(config) as process:
        wait_for_acknowledged(config, 100)
        journal(config, range(100, 150))
        journal(config, range(50), worker=1)
        found = wait_for_acknowledged(config, 200)
        assert "understudy: recorder 0" in psutil.Process(process.pid).cmdline()[0]
        assert stop(process) == (0, b"")

    records = logged(config)
    assert seqs([r for r in records if r["instance"] == "test-w0"]) == list(range(150))
    assert seqs([r for r in records if r["instance"] == "test-w1"]) == list(range(50))
    assert len({record["pair_id"] for record in records}) == 200
    assert found["journaled_read"] == 200
    assert found["dropped"] == {}
    assert found["state"] == "ok"
    assert wall_ns() // 1_000_000 - found["updated_ms"] < 60_000
    assert statistics(config)["state"] == "closed"
    assert not segment_path(tmp_path / "journal" / "worker-0", 1).exists()


def test_a_comparator_that_cannot_be_loaded_is_told_and_stops_no_pair(tmp_path: Path) -> None:
    """One line in the log names the route and why; pairs are shipped as not comparable."""
    config = config_for(tmp_path)
    route = config.routes[0]
    route = replace(route, compare=replace(route.compare, comparator="nowhere:same"))
    config = replace(config, routes=(route,))
    config = replace(config, version=digest(config))
    journal(config, range(20))
    with recorder(config) as process:
        wait_for(lambda: seqs(logged(config)) == list(range(20)), "all pairs")
        code, told = stop(process)
    assert code == 0
    assert json.loads(told)["event"] == "cannot compare"
    assert "cannot import nowhere" in json.loads(told)["why"]
    assert {pair["not_comparable_reason"] for pair in logged(config)} == {"comparator_not_loaded"}


def test_sigterm_ships_what_was_flushed_first(tmp_path: Path) -> None:
    """A stop right after a flush loses nothing, on a busy machine neither."""
    config = config_for(tmp_path)
    config = replace(config, limits=replace(config.limits, shutdown_s=100))
    with recorder(config) as process:
        wait_for(lambda: statistics(config), "the first statistics")
        journal(config, range(1_500))
        assert stop(process) == (0, b"")
    assert seqs(logged(config)) == list(range(1_500))


def test_told_to_leave_it_ends_and_the_next_one_ships_the_rest(tmp_path: Path) -> None:
    """Each pair once, wherever the first one was when its time was over."""
    config = config_for(tmp_path)
    config = replace(config, limits=replace(config.limits, shutdown_s=600))
    journal(config, range(20_000))
    worker = Path(config.state_dir) / "journal" / "worker-0"
    with recorder(config) as process:
        wait_for(
            lambda: load_shipped(worker).position != Position() or process.poll(), "some progress"
        )
        process.send_signal(signal.SIGALRM)
        assert stop(process) == (0, b"")
    with recorder(config) as process:
        wait_for_acknowledged(config, 20_000)
        assert stop(process)[0] == 0
    assert sorted(record["seq"] for record in logged(config)) == list(range(20_000))


def test_a_killed_recorder_loses_nothing_and_counts_once(tmp_path: Path) -> None:
    """It may log pairs twice, under the same id; the accounts are exact."""
    config = config_for(tmp_path)
    journal(config, range(20_000))
    for _ in range(3):
        kill_after_progress(config)
    with recorder(config) as process:
        found = wait_for_acknowledged(config, 20_000)
        assert stop(process)[0] == 0
    assert {record["seq"] for record in logged(config)} == set(range(20_000))
    assert found["acknowledged"] == found["journaled_read"] == 20_000


def test_damage_and_bad_lines_are_counted_and_passed(tmp_path: Path) -> None:
    """The pairs around them arrive."""
    config = config_for(tmp_path)
    journal(config, range(30))
    segment = segment_path(tmp_path / "journal" / "worker-0", 1)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 0xFF
    segment.write_bytes(content)
    with recorder(config) as process:
        found = wait_for_acknowledged(config, 20)
        assert stop(process)[0] == 0
    assert seqs(logged(config)) == [*range(10), *range(20, 30)]
    assert found["skipped_bytes"] > 0


def test_rejected_lines_are_in_the_accounts(tmp_path: Path) -> None:
    """By reason, with the latest one told in words."""
    config = config_for(tmp_path)
    journal(config, range(10))
    journal_lines(config, [b"{half", b'{"config_version":"x","route":"gone"}'])
    with recorder(config) as process:
        found = wait_for_acknowledged(config, 10)
        wait_for(lambda: statistics(config)["journaled_read"] == 12, "all lines read")
        found = statistics(config)
        assert stop(process)[0] == 0
    assert found["dropped"] == {"rejected_not_json": 1, "rejected_unknown_route": 1}
    assert found["journaled_read"] == found["acknowledged"] + 2
    assert found["message"]


def test_recorders_share_the_workers(tmp_path: Path) -> None:
    """Worker w belongs to recorder w % R."""
    config = config_for(tmp_path, recorders=2)
    for worker in range(3):
        journal(config, range(10), worker=worker)
    with recorder(config, 1) as process:
        wait_for(lambda: statistics(config, 1).get("acknowledged") == 10, "its own share")
        assert stop(process)[0] == 0
    assert {record["instance"] for record in logged(config)} == {"test-w1"}
    assert load_shipped(tmp_path / "journal" / "worker-0").position == Position()


def test_options_that_make_no_sense_are_told_and_exit_1(tmp_path: Path) -> None:
    """On stderr, and in the statistics for `status`."""
    config = config_for(tmp_path, kafka=Kafka(("127.0.0.1:1",), "shadow", {"acks": "0"}))
    with recorder(config) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
    told = json.loads(errors)  # one line, no traceback
    assert (told["process"], told["level"], told["event"]) == (
        "recorder 0",
        "error",
        "cannot start",
    )
    assert "acks" in told["why"]
    assert statistics(config)["state"] == "misconfigured"
    assert "acks" in statistics(config)["message"]


@pytest.mark.parametrize("module", ["aiokafka", "numpy", "pydantic", "starlette", "httpx"])
def test_the_local_log_does_not_load(module: str) -> None:
    """What a sidecar does not use it does not carry."""
    code = (
        "import sys, proxy.recorder.__main__, proxy.recorder.local_log; "
        f"sys.exit({module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
