"""An outage in virtual time: the disk holds what the arithmetic says, and each loss is counted.

This is the short form of `python -m benchmarks journal`, which takes 600,000 pairs.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.outage import Plan, bytes_per_pair, simulate
from proxy.config.resolved import DropPolicy

RATE_PER_S = 1_000
SECONDS = 30


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """Return lines of 300 bytes that compress to about half."""
    chance = random.Random(3)
    return [b'{"body":"%b"}' % chance.randbytes(150).hex().encode() for _ in range(500)]


@pytest.fixture(scope="module")
def pair_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> float:
    """Return what a pair takes on disk."""
    return bytes_per_pair(tmp_path_factory.mktemp("sample") / "worker-0", lines)


def test_within_the_budget_nothing_is_lost(
    tmp_path: Path, lines: list[bytes], pair_bytes: float
) -> None:
    """T seconds at R pairs a second take T times R times the bytes of a pair, within 2%."""
    predicted = RATE_PER_S * SECONDS * pair_bytes
    plan = Plan(round(predicted * 1.02), RATE_PER_S, SECONDS)
    outage = simulate(tmp_path / "worker-0", lines, plan)
    assert (outage.counted, outage.missing) == (0, 0)
    assert outage.is_in_order
    assert outage.most_bytes == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("drop", DropPolicy)
def test_a_budget_too_small_loses_exactly_what_is_counted(
    tmp_path: Path, lines: list[bytes], pair_bytes: float, drop: DropPolicy
) -> None:
    """Half the budget keeps the half that it should, and the disk never holds much more."""
    pairs = RATE_PER_S * SECONDS
    budget = round(pairs * pair_bytes / 2)
    outage = simulate(tmp_path / "worker-0", lines, Plan(budget, RATE_PER_S, SECONDS, drop))
    assert outage.counted == outage.missing
    assert outage.is_in_order
    # A segment is an eighth of the budget, and goes as a whole.
    assert pairs / 2 * 0.98 < outage.missing < pairs / 2 * (1 + 1 / 8 + 0.02)
    assert outage.most_bytes <= budget + 64 * 1024
