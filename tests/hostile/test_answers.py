"""Hostile answers: from the primary, where users must be told, and from a candidate, where not.

An answer is passed on only if its framing is beyond doubt; else the user gets 502, or sees a cut
connection when the doubt comes after the head. The next user is never given a piece of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.hostile.grammar import GrammarError, IncompleteError, Message, read_answers
from tests.hostile.rows import ANSWERS, Expect, Row, extra_rows, require_shared, shared_rows
from tests.hostile.stage import Seen, Stage, play_all, raw_upstream, usual_reply
from tests.support.dataplane import dataplane
from tests.support.ledgers import check_ledger

SHARED_ROWS = shared_rows(ANSWERS)
ROWS = [*SHARED_ROWS, *extra_rows("answer")]

_HEAD_CUT = (
    "the bytes end inside the head, before the empty line. RFC 9112 section 8: the client cannot"
    " assume that the meaning of the answer has been conveyed; so the user gets 502"
)
_BODY_CUT = (
    "fewer bytes than Content-Length says. RFC 9112 section 8: the message is incomplete; so the"
    " user, who has the head already, sees the connection cut"
)
#: Rows whose verdict we do not follow, and the sentence for it.
CONTESTED: Mapping[str, str] = {
    f"llhttp/response/{name}": why
    for why, names in (
        (_HEAD_CUT, ("sample#001", "sample#013", "sample#014", "sample#017", "sample#020")),
        (_BODY_CUT, ("connection#018", "content-length#003")),
    )
    for name in names
}
REQUEST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"


async def _ask(stage: Stage, row: Row) -> tuple[Seen, Seen]:
    """Ask a primary that answers with the row and closes; then ask a good one."""

    def reply(request: Message) -> bytes:
        del request
        return row.data

    stage.primary.reply, stage.primary.closes = reply, True
    first = await stage.play([REQUEST])
    stage.primary.reply, stage.primary.closes = usual_reply, False
    return first, await stage.play([REQUEST])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Seen, Seen]]:
    """Play all rows once."""
    return play_all(ROWS, _ask, tmp_path_factory.mktemp("answers"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_answer_gets_its_verdict(seen: dict[str, tuple[Seen, Seen]], row: Row) -> None:
    """Passed on whole, or replaced by 502, or cut."""
    first, second = seen[row.id]
    expect = Expect.REJECT if row.id in CONTESTED else row.expect
    cut = False
    try:
        answers = read_answers(first.client, [b"POST"])
    except IncompleteError:
        answers, cut = [], True
    assert cut or len(answers) == 1, row.why
    assert first.is_closed
    status = 0 if cut else answers[0].status
    if expect is Expect.ACCEPT:
        assert status not in (0, 502, 504), row.why
    elif expect is Expect.REJECT:
        assert status in (0, 502, 504), row.why
    if status not in (0, 502, 504):
        assert answers[0].body in _possible_bodies(row)
    (after,) = read_answers(second.client, [b"POST"])
    assert (after.status, after.body) == (200, b"ok")


def _possible_bodies(row: Row) -> list[bytes]:
    """Return the body of the row's first final answer; where it is no strict HTTP, all its ends."""
    for data in (row.data, row.data + b"\r\n"):  # the last CRLF of the chunks may be missing
        try:
            # What follows the first answer was never asked for, and need not be valid.
            return [read_answers(data, [b"POST"], limit=1)[0].body]
        except (GrammarError, IncompleteError):
            continue
    return [row.data[at:] for at in range(len(row.data) + 1)]


async def _mirror(stage: Stage, row: Row) -> Seen:
    """Ask a good primary, while a candidate answers with the row and keeps the connection open."""

    def reply(request: Message) -> bytes:
        del request
        return row.data

    stage.candidate.reply = reply
    before = len(stage.plane.lines())
    seen = await stage.play([REQUEST])
    await stage.plane.pairs(before + 1)
    check_ledger(stage.plane)
    return seen


def test_no_answer_of_a_candidate_is_felt(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user gets the primary's answer, and the pair is recorded, whatever the candidate says."""
    folder = tmp_path_factory.mktemp("mirrored")
    for row_id, seen in play_all(ROWS, _mirror, folder, has_candidate=True).items():
        (answer,) = read_answers(seen.client, [b"POST"])
        assert (answer.status, answer.body) == (200, b"ok"), row_id


def test_the_corpus_of_others_was_played() -> None:
    """Its data is not in the repository; CI has it beside the checkout."""
    require_shared()
    assert len(SHARED_ROWS) == 85


@pytest.mark.parametrize(
    ("extra", "connections"), [(b"", 1), (b"\r\n", 3), (b"HTTP/1.1 200 OK\r\n", 3)]
)
async def test_a_backend_that_says_too_much_is_not_asked_again_on_that_connection(
    tmp_path: Path, extra: bytes, connections: int
) -> None:
    """What follows a whole answer belongs to nobody; only a clean connection is used again."""
    async with raw_upstream() as primary, dataplane(tmp_path, primary=primary.port) as plane:
        primary.reply = lambda request: usual_reply(request) + extra
        for _ in range(3):
            assert (await plane.request(b"POST", b"/", body=b"x"))[0] == 200
        assert len(primary.seen) == connections
