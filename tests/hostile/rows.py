"""The corpora: raw byte streams with verdicts, ours (`extra.jsonl`) and those beside the checkout."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

#: `../shared/corpora` as seen from the repository: the data of other projects, not kept in it.
SHARED = Path(__file__).parents[3] / "shared" / "corpora"
REQUESTS = ("gunicorn_treq.jsonl", "llhttp_request.jsonl")
ANSWERS = "llhttp_response.jsonl"


class Expect(StrEnum):
    """What must become of the bytes of one connection."""

    REJECT = "reject"
    ACCEPT = "accept"
    EITHER = "either"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Row:
    """One byte stream.

    Attributes:
        data: all bytes that one connection brings.
        why: what is odd about it, with the RFC section where the row is ours.
        may_wait: a row to reject may also run into the deadline.
        is_certain: a strict validator calls it invalid already, although it is not whole.
    """

    id: str
    data: bytes
    expect: Expect
    why: str
    may_wait: bool = False
    is_certain: bool = False


def shared_rows(*names: str) -> list[Row]:
    """Return the rows of corpora beside the checkout; none where there are none."""
    return [
        Row(
            row["id"],
            base64.b64decode(row["bytes_b64"]),
            Expect(row["expect"]),
            row["why"],
            row.get("may_wait", False),
            row.get("oracle") == "reject",
        )
        for name in names
        if (SHARED / name).exists()
        for row in map(json.loads, (SHARED / name).read_text().splitlines())
    ]


def extra_rows(side: str) -> list[Row]:
    """Return our own rows for `side`, "request" or "answer"; text is Latin-1, `times` repeats it."""
    return [
        Row(
            row["id"],
            "".join(
                part if isinstance(part, str) else part[0] * part[1] for part in row["bytes"]
            ).encode("latin-1"),
            Expect(row["expect"]),
            f"{row['why']} ({row['section']})",
            row.get("may_wait", False),
        )
        for row in map(json.loads, (Path(__file__).parent / "extra.jsonl").read_text().splitlines())
        if row["side"] == side
    ]


def require_shared() -> None:
    """Skip where the corpora are not beside the checkout; in CI they must be."""
    if SHARED.is_dir():
        return
    message = "the corpora are data of other projects: put them into ../shared/corpora"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
