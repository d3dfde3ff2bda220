"""Work on a disk that may hang: bounded, in its order, and never waited for longer than told."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from proxy.state import syncing
from proxy.state.syncing import (
    PATIENCE_S,
    DiskThread,
    HangingDiskError,
    in_child,
    left_to_children,
    read_bytes,
    sync_soon,
    thread_of,
    touch_first,
)
from proxy.telemetry import monotonic_s
from tests.support.deadline import wait_for
from tests.support.disks import hanging_disk


def test_a_thread_lives_while_there_is_work_and_no_longer() -> None:
    """What was asked for is done when `do` returns."""
    thread, done = DiskThread("short-lived"), [0]
    thread.do("a", lambda: done.append(1))
    assert done == [0, 1]
    wait_for(lambda: "short-lived" not in {each.name for each in threading.enumerate()}, "its end")
    thread.do("a", lambda: done.append(2))
    assert done == [0, 1, 2]


def test_what_a_job_raises_is_raised_by_who_waits_and_the_thread_goes_on() -> None:
    """The next piece of work is done all the same."""

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    thread, done = DiskThread("refusing"), []
    with pytest.raises(OSError, match="No space left"):
        thread.do("a", refuse)
    thread.do("a", lambda: done.append(1))
    assert done == [1]


def test_only_the_first_waits_for_work_that_hangs() -> None:
    """All of it is done when it goes on, of each key the newest, in the order in which they were asked."""
    thread, goes_on, done = DiskThread("hanging"), threading.Event(), []
    began_s = monotonic_s()
    with pytest.raises(HangingDiskError, match=r"has not answered for \d+\.\d s"):
        thread.do("a", goes_on.wait)
    first_s = monotonic_s() - began_s
    began_s = monotonic_s()
    for number in range(100):
        with pytest.raises(HangingDiskError):
            thread.do("b", lambda number=number: done.append(number))  # type: ignore[misc]  # a default binds it
    with pytest.raises(HangingDiskError):
        thread.do("c", lambda: done.append("c"))
    assert first_s >= PATIENCE_S > monotonic_s() - began_s
    goes_on.set()
    wait_for(lambda: len(done) == 2, "what waited")
    assert done == [99, "c"]


def test_what_waits_is_bounded() -> None:
    """More is not taken, and whoever asks is told."""
    thread, goes_on, done = DiskThread("full"), threading.Event(), []
    thread.begin("first", goes_on.wait)
    wait_for(thread.busy_s, "the first")
    taken = [thread.begin(each, lambda: done.append(1)) for each in range(syncing.WAITING_MOST + 3)]
    assert [each is None for each in taken[-4:]] == [False, True, True, True]
    goes_on.set()
    wait_for(lambda: len(done) == syncing.WAITING_MOST, "what was taken")


def test_a_forked_process_has_threads_of_its_own() -> None:
    """Its parent's may have been in the middle of something."""
    goes_on = threading.Event()
    thread_of("forked").begin("a", goes_on.wait)

    def work() -> str:
        done: list[int] = []
        thread_of("forked").do("a", lambda: done.append(1))
        return str(done)

    assert in_child(work, 10.0) == "[1]"
    goes_on.set()


def test_a_child_is_waited_for_so_long_and_goes_on_without_its_parent(tmp_path: Path) -> None:
    """It ends by itself, when its work does."""
    os.mkfifo(tmp_path / "fifo")

    def work() -> str:
        (tmp_path / "done").write_bytes((tmp_path / "fifo").read_bytes())
        return "x"

    assert in_child(work, 0.05) is None
    (tmp_path / "fifo").write_bytes(b"on")
    wait_for(lambda: (tmp_path / "done").exists() and (tmp_path / "done").read_bytes(), "its end")
    assert in_child(lambda: "told", 10.0) == "told"


def test_a_file_is_read_whoever_owns_it(tmp_path: Path) -> None:
    """The time of the access is noted where nobody but the owner may leave it out."""
    (tmp_path / "a").write_bytes(b"content")
    assert read_bytes(tmp_path / "a") == b"content"
    assert read_bytes(Path("/proc/version"))


@pytest.mark.parametrize("by_child", [False, True])
def test_a_disk_that_hangs_is_found_out_and_holds_up_nobody(
    tmp_path: Path, *, by_child: bool
) -> None:
    """Neither the trial before a write nor the sync after it; then all goes on."""
    with hanging_disk(tmp_path / "disk") as disk:
        path = disk.path / "file"
        path.write_bytes(b"12345678")
        touch_first(path, [7])
        touch_first(path, [8])
        disk.hang_writes()
        began_s = monotonic_s()
        if by_child:
            with left_to_children():
                sync_soon(path)
                with pytest.raises(HangingDiskError):
                    touch_first(path, [6])
        else:
            sync_soon(path)
            with pytest.raises(HangingDiskError, match="has not answered"):
                touch_first(path, [6])
        assert monotonic_s() - began_s < 10
        disk.go_on()
        touch_first(path, [6])
        assert path.read_bytes() == b"12345678"
