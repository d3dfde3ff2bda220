"""Hostile requests through a listening worker: the verdict of each row, and what never may happen.

Whatever the verdict, what reaches the upstream is valid HTTP with one framing, without control
characters, trailers or hop-by-hop fields, and never more messages than there were good requests.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.hostile.judge import faults
from tests.hostile.rows import REQUESTS, Row, extra_rows, require_shared, shared_rows
from tests.hostile.stage import Seen, Stage, play_all, raw_upstream
from tests.support.dataplane import Options, dataplane, read_answer

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


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 101\r\n\r\n" + b"x" * 101,
        b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 101,
    ],
    ids=["length", "chunks"],
)
async def test_a_body_over_the_limit_is_refused(tmp_path: Path, framing: bytes) -> None:
    """RFC 9110 section 15.5.14, whether its length is declared or counted."""
    options = Options(limits={"request_body_bytes": 100})
    async with (
        raw_upstream() as upstream,
        dataplane(tmp_path, primary=upstream.port, options=options) as plane,
    ):
        reader, writer = await plane.connect()
        with closing(writer):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\n" + framing)
            assert (await read_answer(reader))[0] == 413
        assert not any(upstream.seen)
        assert plane.count("rejected", "body_too_large") == 1
