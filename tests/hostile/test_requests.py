"""Hostile requests through a listening worker: the verdict of each row, and what never may happen.

Whatever the verdict, what reaches the upstream is valid HTTP with one framing, without control
characters, trailers or hop-by-hop fields, and never more messages than there were good requests.
"""

from __future__ import annotations

import pytest

from tests.hostile.judge import faults
from tests.hostile.rows import REQUESTS, Row, extra_rows, require_shared, shared_rows
from tests.hostile.stage import Seen, Stage, play_all

pytestmark = pytest.mark.timeout(180)

SHARED_ROWS = shared_rows(*REQUESTS)
ROWS = [*SHARED_ROWS, *extra_rows("request")]


async def _play(stage: Stage, row: Row) -> Seen:
    return await stage.play([row.data])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Play all rows once."""
    return play_all(ROWS, _play, tmp_path_factory.mktemp("requests"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_gets_its_verdict(seen: dict[str, Seen], row: Row) -> None:
    """Refused, answered or timed out as the row says."""
    assert faults(row, seen[row.id]) == [], row.why


def test_the_corpora_of_others_were_played() -> None:
    """Their data is not in the repository; CI has it beside the checkout."""
    require_shared()
    assert len(SHARED_ROWS) == 448
