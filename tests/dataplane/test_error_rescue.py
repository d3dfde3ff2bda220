"""A canary that answers with an error (5xx): the user gets the primary's answer, the record both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.dataplane.rescue import WITHHELD_BYTES
from tests.support.dataplane import Options, dataplane, read_answer, request_bytes
from tests.support.ledgers import check_ledger
from tests.support.upstreams import Behaviour, Upstream, answer, raw_answer

CANARY = Options(weight_bp={"v2": 10_000})


async def _asked(
    folder: Path, candidate: Behaviour, *, method: bytes = b"POST"
) -> tuple[int, bytes, dict[str, Any], int]:
    """Ask twice on one connection; return the second answer, its pair, and how many were rescued."""
    async with (
        Upstream(answer(b"saved")) as primary,
        Upstream(candidate) as other,
        dataplane(
            folder, primary=primary.port, candidates={"v2": other.port}, options=CANARY
        ) as plane,
    ):
        reader, writer = await plane.connect()
        for _ in range(2):
            writer.write(request_bytes(method, b"/", b"x", b""))
        await read_answer(reader)
        status, _, body = await read_answer(reader)
        writer.close()
        pairs = await plane.pairs(2)
        check_ledger(plane)
        rescued = plane.count("rescued", "iris", "v2")
    return status, body, pairs[1], rescued


@pytest.mark.parametrize(
    "candidate",
    [
        answer(b"broken", status=500),
        answer(b"broken", status=503),
        raw_answer(
            b"HTTP/1.1 502 X\r\ntransfer-encoding: chunked\r\n\r\n",
            b"3\r\nbro\r\n",
            b"3\r\nken\r\n0\r\n\r\n",
            pause_s=0.01,
        ),
    ],
    ids=["500", "503", "in chunks"],
)
async def test_an_error_of_the_canary_is_replaced_and_recorded(
    tmp_path: Path, candidate: Behaviour
) -> None:
    """The user sees nothing of it; the pair has it, body and all."""
    status, body, line, rescued = await _asked(tmp_path, candidate)
    assert (status, body, rescued) == (200, b"saved", 2)
    assert (line["rescued"], line["candidate_status"]) == (True, "http_error")
    assert (line["candidate_http_status"], line["candidate_body"]) in (
        (500, "broken"),
        (502, "broken"),
        (503, "broken"),
    )
    assert (line["primary_status"], line["primary_body"]) == ("ok", "saved")


async def test_an_error_that_breaks_off_is_replaced(tmp_path: Path) -> None:
    """Its end never comes: the call is a reset, and the user waits no longer than that."""
    broken = raw_answer(b"HTTP/1.1 500 X\r\ncontent-length: 10\r\n\r\nbro", close=True)
    status, body, line, rescued = await _asked(tmp_path, broken)
    assert (status, body, rescued) == (200, b"saved", 2)
    assert (line["rescued"], line["candidate_status"]) == (True, "reset")


async def test_what_the_request_is_to_blame_for_reaches_the_user(tmp_path: Path) -> None:
    """A 4xx is the model's word on the request."""
    status, body, line, rescued = await _asked(tmp_path, answer(b"no such input", status=422))
    assert (status, body, rescued) == (422, b"no such input", 0)
    assert (line["rescued"], line["candidate_http_status"]) == (False, 422)


async def test_a_long_error_passes(tmp_path: Path) -> None:
    """No more of it is kept than memory is set aside for; the user gets all of it, in order."""
    long = bytes(range(256)) * (WITHHELD_BYTES // 128)
    status, body, line, rescued = await _asked(tmp_path, answer(long, status=500))
    assert (status, body == long, rescued) == (500, True, 0)
    assert line["candidate_status"] == "http_error"


async def test_nobody_to_rescue_it_means_the_error_is_the_answer(tmp_path: Path) -> None:
    """A request that may not be sent twice was sent: the candidate's word stands."""
    broken = answer(b"broken", status=500)
    status, body, line, rescued = await _asked(tmp_path, broken, method=b"DELETE")
    assert (status, body, rescued) == (500, b"broken", 0)
    assert (line["rescued"], line["primary_status"]) == (False, "not_sent")
