"""Pairs that wait: what goes into a frame, and what stays."""

from __future__ import annotations

import pytest

from proxy.journal import buffer
from proxy.journal.buffer import PairBuffer


def test_all_that_waits_is_one_batch() -> None:
    """Its size counts the ends of lines."""
    found = PairBuffer()
    assert found.take() is None
    for line in (b"one", b"three"):
        found.append(line)
    assert (found.buffered_pairs, found.buffered_bytes) == (2, 8)
    batch = found.take()
    assert batch is not None
    assert (batch.lines, batch.pairs, batch.size_bytes) == ([b"one", b"three"], 2, 10)
    assert (found.buffered_pairs, found.buffered_bytes) == (0, 0)
    assert found.take() is None


def test_what_is_more_than_a_frame_is_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pair is lost, none comes twice, and one that is too large alone still goes."""
    if not buffer.__file__.endswith(".py"):
        pytest.skip("a compiled module keeps its constants")
    monkeypatch.setattr(buffer, "FRAME_BYTES", 10)
    found = PairBuffer()
    lines = [b"a" * 6, b"b" * 4, b"c" * 30, b"d" * 7, b"e" * 4]
    for line in lines:
        found.append(line)
    taken = []
    while (batch := found.take()) is not None:
        assert batch.pairs == len(batch.lines)
        assert batch.size_bytes == sum(map(len, batch.lines)) + batch.pairs
        taken.append(batch.lines)
        assert found.buffered_bytes == sum(map(len, lines[sum(map(len, taken)) :]))
    assert taken == [lines[:2], lines[2:3], lines[3:4], lines[4:]]
    assert (found.buffered_pairs, found.buffered_bytes) == (0, 0)
