"""The clocks that are not just the system's."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.telemetry import queued_s


def test_what_a_thread_has_waited_for_a_processor_is_the_second_number(tmp_path: Path) -> None:
    """In nanoseconds, as the kernel counts it."""
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "schedstat").write_bytes(b"900 2500000000 31\n")
    assert queued_s("17", tmp_path) == 2.5


@pytest.mark.parametrize("said", [None, b"", b"17", b"17 x 3"])
def test_where_nobody_tells_nothing_is_known(said: bytes | None, tmp_path: Path) -> None:
    """Such as on another system than Linux, or of a process that is gone."""
    if said is not None:
        (tmp_path / "schedstat").write_bytes(said)
    assert queued_s(".", tmp_path) is None
