"""The heap keeps what one window frees for the next."""

from __future__ import annotations

import platform
import subprocess
import sys

from proxy.recorder.memory import KEPT_BYTES


def test_glibc_is_told_to_keep_freed_memory() -> None:
    """In a process of its own, because it is for good; elsewhere nothing happens."""
    code = "from proxy.recorder.memory import keep_freed_memory as keep; print(keep())"
    said = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    assert said == str(platform.libc_ver()[0] == "glibc")


def test_what_is_kept_is_bounded() -> None:
    """An idle recorder is small."""
    assert KEPT_BYTES <= 16 * 1024 * 1024


def test_what_the_start_has_made_is_no_garbage() -> None:
    """It is not looked at again; what comes later is, as often as ever."""
    code = (
        "import gc; from proxy.recorder.memory import leave_garbage; was = gc.get_threshold(); "
        "leave_garbage(); print(gc.get_threshold() == was, gc.get_freeze_count() > 1_000)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True True\n"
