"""The decisions log: numbered, bounded, whole, and kept in memory while the disk refuses."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import orjson
import pytest

from proxy.errors import StateError
from proxy.state import decision_files, decisions, refusals
from proxy.state.decision_files import FILE_NAME, last_seq, old_files
from proxy.state.decision_record import Decision
from proxy.state.syncing import PATIENCE_S, left_to_children
from proxy.telemetry import monotonic_s
from tests.support.deadline import wait_for
from tests.support.disks import hanging_disk, read_only, small_disk


def decision(number: int, size: int = 0) -> Decision:
    """Return a decision that is told from others by its weight."""
    return Decision(number, "weight", "ann", "test", "iris/v2", 0, number, "x" * size)


def weights(state_dir: Path, limit: int = 1_000) -> list[int]:
    """Return the new weights of the last decisions, the oldest first."""
    return [each["new"] for each in decisions.read_last(state_dir, limit)][::-1]


def test_decisions_are_numbered_without_a_gap_over_files_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest files go; what is left is the end of the log, in its order."""
    monkeypatch.setattr(decision_files, "FILE_BYTES", 4_000)
    monkeypatch.setattr(decision_files, "FILES_KEPT", 3)
    for number in range(1, 61):
        decisions.append(tmp_path, decision(number))
    assert len(old_files(tmp_path)) == 3
    assert sum(path.stat().st_size for path in tmp_path.glob("*.ndjson")) < 4 * 5_000
    found = decisions.read_last(tmp_path, 1_000)[::-1]
    assert [each["seq"] for each in found] == list(range(found[0]["seq"], 61))
    assert [each["new"] for each in found] == [each["seq"] for each in found]
    assert weights(tmp_path, 7) == [54, 55, 56, 57, 58, 59, 60]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.ndjson")} == {0o600}


def _append_many(state_dir: Path, first: int) -> None:
    for number in range(first, first + 50):
        decisions.append(state_dir, decision(number, size=500))


def test_processes_that_write_at_once_mix_no_lines_and_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are set aside under their feet meanwhile."""
    monkeypatch.setattr(decision_files, "FILE_BYTES", 10_000)
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_append_many, args=(tmp_path, 1_000 * n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    found = decisions.read_last(tmp_path, 1_000)[::-1]
    assert [each["seq"] for each in found] == list(range(1, 151))
    assert len({each["decision_id"] for each in found}) == 150


def test_a_line_that_a_dead_writer_left_half_hides_no_other(tmp_path: Path) -> None:
    """Nor does damage in the middle; no number is given twice."""
    decisions.append(tmp_path, decision(1))
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"seq": 2, "who')
    decisions.append(tmp_path, decision(2))
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b"\0\xff\n[]\n{}\n")
    decisions.append(tmp_path, decision(3))
    assert weights(tmp_path) == [1, 2, 3]
    assert last_seq(tmp_path) == 3


def test_what_was_shipped_is_never_numbered_again(tmp_path: Path) -> None:
    """Though somebody has removed the log: a reader would take new decisions for old ones."""
    (tmp_path / decision_files.SHIPPED_NAME).write_bytes(orjson.dumps({"seq": 41}))
    decisions.append(tmp_path, decision(1))
    assert last_seq(tmp_path) == 42


def test_a_full_disk_keeps_decisions_in_memory_and_leaves_no_half_line(tmp_path: Path) -> None:
    """They are written in their order as soon as there is room, before the next one."""
    with small_disk(tmp_path / "disk", size_kib=256) as disk:
        decisions.append(disk.path, decision(1))
        disk.fill()
        for number in (2, 3, 4):
            with pytest.raises(StateError, match="No space left on device"):
                decisions.append(disk.path, decision(number, size=5_000))
        assert decisions.waiting_count(disk.path) == 3
        assert weights(disk.path) == [1]
        assert (disk.path / FILE_NAME).read_bytes().endswith(b"\n")
        assert "No space left" in decisions.retry(disk.path)
        disk.make_room()
        decisions.append(disk.path, decision(5))
        assert weights(disk.path) == [1, 2, 3, 4, 5]
        assert decisions.waiting_count(disk.path) == 0


def test_a_disk_that_hangs_keeps_decisions_in_memory_and_nobody_waiting(tmp_path: Path) -> None:
    """The first waits for it a little, the others not at all; then all are written, in their order."""
    with hanging_disk(tmp_path / "disk") as disk:
        decisions.append(disk.path, decision(1))
        disk.hang_writes()
        with pytest.raises(StateError, match="the disk has not answered for"):
            decisions.append(disk.path, decision(2))
        began_s = monotonic_s()
        for number in (3, 4, 5):
            with pytest.raises(StateError, match="waits in memory, and is logged when it does"):
                decisions.append(disk.path, decision(number))
            assert decisions.retry(disk.path)
        assert monotonic_s() - began_s < PATIENCE_S
        assert decisions.waiting_count(disk.path) == 4
        disk.go_on()
        wait_for(lambda: not decisions.waiting_count(disk.path), "what waits")
        decisions.append(disk.path, decision(6))
        assert weights(disk.path) == [1, 2, 3, 4, 5, 6]
        assert last_seq(disk.path) == 6


def test_a_command_leaves_to_a_child_what_a_hanging_disk_does_not_take(tmp_path: Path) -> None:
    """The command must end; the child ends when the disk has answered."""
    with hanging_disk(tmp_path / "disk") as disk:
        with left_to_children():
            decisions.append(disk.path, decision(1))
            disk.hang_writes()
            with pytest.raises(StateError, match="the disk has not answered for"):
                decisions.append(disk.path, decision(2))
        disk.go_on()
        wait_for(lambda: weights(disk.path) == [1, 2], "the child")


def test_a_read_only_folder_keeps_decisions_in_memory(tmp_path: Path) -> None:
    """Until `retry` finds that it can be written; what waits is bounded."""
    decisions.append(tmp_path, decision(1))
    with read_only(tmp_path):
        with pytest.raises(StateError, match="cannot append"):
            decisions.append(tmp_path, decision(2))
        assert decisions.retry(tmp_path)
    assert decisions.retry(tmp_path) == ""
    assert weights(tmp_path) == [1, 2]


def test_what_waits_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are given up then, and whoever decides is told each time."""
    monkeypatch.setattr(decisions, "WAITING_MOST", 3)
    (tmp_path / FILE_NAME).mkdir()
    for number in range(5):
        with pytest.raises(StateError, match="cannot append"):
            decisions.append(tmp_path, decision(number))
    assert decisions.waiting_count(tmp_path) == 3
    (tmp_path / FILE_NAME).rmdir()
    decisions.append(tmp_path, decision(9))
    assert weights(tmp_path) == [0, 1, 2, 9]


def test_a_program_that_repeats_a_refused_order_fills_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many a minute are logged; the next one after that tells how many were not."""
    monkeypatch.setattr(refusals, "_allowance", refusals.Allowance())
    for number in range(refusals.MOST + 40):
        refusals.log_refusal(tmp_path, decision(number), "no such route")
    found = decisions.read_last(tmp_path, 1_000)
    assert len(found) == refusals.MOST
    assert {(each["outcome"], each["refusal"]) for each in found} == {("refused", "no such route")}
    monkeypatch.setattr(refusals._allowance, "until_s", 0.0)
    refusals.log_refusal(tmp_path, decision(1), "no such route")
    assert decisions.read_last(tmp_path, 1)[0]["note"] == (
        "40 refusals before this one are not in the log"
    )
