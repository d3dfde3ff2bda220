"""What a row's bytes may have done: the verdict it must get, and what holds whatever the verdict."""

from __future__ import annotations

from tests.hostile.grammar import (
    GrammarError,
    IncompleteError,
    Message,
    check_forwarded,
    read_answers,
    read_requests,
)
from tests.hostile.rows import Expect, Row
from tests.hostile.stage import Seen

REQUEST_TIMEOUT = 408


def methods_of(data: bytes, parsed: list[Message]) -> list[bytes]:
    """Return the methods that the answers belong to; what follows the valid requests may have one."""
    end = parsed[-1].end if parsed else 0
    return [*(message.method for message in parsed), data[end:].lstrip(b"\r\n").partition(b" ")[0]]


def faults(row: Row, seen: Seen) -> list[str]:
    """Return what is wrong; an empty list is a pass."""
    try:
        forwarded = [m for data in seen.upstream for m in check_forwarded(data)]
    except GrammarError as exc:
        return [f"invalid HTTP went upstream: {exc}"]
    parsed = read_requests(row.data)
    found = []
    if len(forwarded) > len(parsed):
        found.append(f"{len(forwarded)} messages went upstream, of {len(parsed)} valid ones")
    for sent, given in zip(forwarded, parsed, strict=False):
        if (sent.method, sent.body) != (given.method, given.body):
            found.append(f"{given} went upstream as {sent}")
    try:
        answers = read_answers(seen.client, methods_of(row.data, parsed))
    except (GrammarError, IncompleteError) as exc:
        return [*found, f"invalid HTTP went to the client: {exc}"]
    return found + _verdict(row, seen, [answer.status for answer in answers], len(forwarded))


def _verdict(row: Row, seen: Seen, statuses: list[int], forwarded: int) -> list[str]:
    found = []
    is_refused = not statuses or statuses[0] >= 400
    if not seen.is_closed:
        found.append("never ended")
    if row.expect is Expect.ACCEPT and (is_refused or not forwarded):
        found.append(f"a good request was refused: {statuses} {seen.client[-120:]!r}")
    elif row.expect is Expect.REJECT:
        found += _bad_accepts(row, seen, statuses)
    elif row.expect is Expect.INCOMPLETE:
        if not is_refused:
            found.append(f"half a request was answered: {statuses}")
        elif statuses and statuses[0] != REQUEST_TIMEOUT and not row.is_certain:
            found.append(f"refused before its deadline: {statuses}")
    return found


def _bad_accepts(row: Row, seen: Seen, statuses: list[int]) -> list[str]:
    found = []
    if statuses and statuses[0] < 400:
        found.append(f"a bad request was accepted: {statuses}")
    if row.may_wait:  # its start is good, and is passed on as it arrives; no whole message follows
        return found
    if any(seen.upstream):
        found.append(f"the upstream saw bytes of a bad request: {seen.upstream}")
    if statuses == [REQUEST_TIMEOUT]:
        found.append("refused at the deadline only")
    return found
