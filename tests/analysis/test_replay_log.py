"""What a replay has written survives being stopped at any byte."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.analysis import replay_log
from proxy.analysis.replay_log import Purpose, ReplayLog
from proxy.analysis.sources import FileSource
from proxy.errors import ReplayError
from tests.support.records import pair

PURPOSE = Purpose("state", "http://127.0.0.1:9", "replay", "", "0123456789abcdef")


def opened(out: Path) -> tuple[ReplayLog, list[dict[str, Any]]]:
    """Return the log and the pairs of earlier runs."""
    log = ReplayLog(out, PURPOSE)
    return log, list(log.open())


def abandon(log: ReplayLog) -> None:
    """Leave the files as a process that was killed leaves them."""
    for descriptor in (log._state, log._lock):
        os.close(descriptor)
    assert log._file is not None
    log._file.close()


def send(log: ReplayLog, seq: int) -> None:
    """Begin a request and keep its pair."""
    log.begin("iris", f"r-{seq}")
    log.end(orjson.dumps(pair(seq)), "iris", f"r-{seq}")


def written(out: Path) -> list[str]:
    """Return the ids of the requests in the output."""
    return [one["request_id"] for one in FileSource(str(out), [out])]


def test_a_state_cut_at_any_byte_loses_and_doubles_nothing_that_was_whole(tmp_path: Path) -> None:
    """What was begun and has no whole pair is under way; everything else is kept, once."""
    out = tmp_path / "out.zst"
    log, _ = opened(out)
    instance = log.instance
    for seq in range(3):
        send(log, seq)
    log.begin("iris", "r-9")
    abandon(log)
    whole = log.state_path.read_bytes()
    head = whole.index(b"\n") + 1
    for cut in range(head, len(whole) + 1, 97):
        log.state_path.write_bytes(whole[:cut])
        out.write_bytes(b"")
        lines = [orjson.loads(line) for line in whole[:cut].split(b"\n")[1:-1]]
        pairs = [line["request_id"] for line in lines if "begun" not in line]
        begun = [line["begun"][1] for line in lines if "begun" in line]
        again, earlier = opened(out)
        assert again.instance == instance
        assert [one["request_id"] for one in earlier] == pairs
        assert again.again == len(set(begun) - set(pairs))
        assert all(again.has("iris", name) for name in pairs)
        assert not any(again.has("iris", name) for name in set(begun) - set(pairs))
        send(again, 50)
        again.close(is_complete=True)
        assert written(out) == [*pairs, "r-50"]
        assert not log.state_path.exists()
    assert whole.count(b"begun") == 4


def test_pairs_that_are_in_both_files_are_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the frame and the new state; and half a frame is cut off."""
    monkeypatch.setattr(replay_log, "FRAME_BYTES", 10_000)
    out = tmp_path / "out.zst"
    log, _ = opened(out)
    send(log, 0)
    before = log.state_path.read_bytes()
    for seq in range(1, 20):
        send(log, seq)
        if out.stat().st_size:
            break
    packed = len(written(out))
    assert packed > 1
    abandon(log)
    log.state_path.write_bytes(before)
    with out.open("ab") as file:
        file.write(out.read_bytes()[:100])
    again, earlier = opened(out)
    assert [one["request_id"] for one in earlier] == [f"r-{seq}" for seq in range(packed)]
    assert (again.resumed, again.again, again.pairs) == (packed, 0, packed)
    send(again, 50)
    again.close(is_complete=True)
    source = FileSource(str(out), [out])
    assert len(list(source)) == packed + 1
    assert (source.statistics().corrupt, source.statistics().torn) == (0, 0)


def test_two_replays_do_not_write_one_file(tmp_path: Path) -> None:
    """The second says so, and harms nothing."""
    out = tmp_path / "out.zst"
    log, _ = opened(out)
    send(log, 1)
    with pytest.raises(ReplayError, match="another replay is writing"):
        opened(out)
    send(log, 2)
    log.close(is_complete=True)
    assert written(out) == ["r-1", "r-2"]
    assert out.stat().st_mode & 0o777 == 0o600


def test_another_replay_is_not_mixed_in(tmp_path: Path) -> None:
    """Neither with a finished one, nor with one that was stopped and did something else."""
    out = tmp_path / "out.zst"
    log, _ = opened(out)
    send(log, 1)
    log.close(is_complete=False)
    for name in ("source", "target", "candidate", "route", "config_version"):
        other = ReplayLog(out, replace(PURPOSE, **{name: "another"}))
        with pytest.raises(ReplayError, match=f"another {name.replace('_', ' ')} "):
            list(other.open())
        other.close(is_complete=False)
    log, earlier = opened(out)
    assert len(earlier) == 1
    log.close(is_complete=True)
    with pytest.raises(ReplayError, match="is there already"):
        opened(out)
    assert written(out) == ["r-1"]


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    """Rather than sending everything again."""
    (tmp_path / "out.zst.state").write_bytes(b"\x00\x00")
    with pytest.raises(ReplayError, match="no state of a replay"):
        opened(tmp_path / "out.zst")


def test_a_disk_that_refuses_stops_the_replay(tmp_path: Path) -> None:
    """With the name of what cannot be written."""
    with pytest.raises(ReplayError, match=r"cannot write .*out\.zst"):
        opened(tmp_path / "missing" / "out.zst")
