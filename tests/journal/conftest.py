"""Journals are closed without haste: what their threads do is to be counted, however busy the machine is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def patient_close() -> Iterator[None]:
    """Let a writer that closes wait for its janitor for longer than a stall; a worker waits a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.journal.writer.CLOSE_S", 20.0)
        yield
