"""`POST /api/v1/labels`: lines of NDJSON in, counts out; what was taken is on the disk by then.

Each line is judged by itself: a bad one is named and left out, the others are taken. Lines are read
as they come, so that a large body neither fills the memory nor keeps a kill waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request

from proxy.control.bodies import ApiError
from proxy.errors import StateError
from proxy.journal.label_journal import LabelJournal, LabelsFullError
from proxy.pairs.label import MAX_LINE_BYTES, LabelError, read_line
from proxy.telemetry import wall_ns

#: Of one request; `understudy labels import` sends larger files in parts.
BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
#: Faults that an answer tells; the rest are counted.
MAX_FAULTS: Final = 20
#: Lines read before others get the event loop: about 1 ms.
_SLICE_LINES: Final = 200
_TYPES: Final = ("application/x-ndjson", "application/jsonl", "application/ndjson")

#: Names of the counters: what became of lines.
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"


@dataclass(slots=True)
class _Taken:
    """What became of the lines of one request so far."""

    lines: int = 0
    accepted: int = 0
    refused: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)
    segments: set[int] = field(default_factory=set)


async def take_labels(
    request: Request, journal: LabelJournal, counts: Counter[str]
) -> dict[str, Any]:
    """Take the labels of a request; return the counts and the first faults by line.

    Args:
        request: its body is not read yet.
        journal: where labels go.
        counts: `ACCEPTED` and `REFUSED` are added to.

    Raises:
        ApiError: it is not NDJSON by its type (415), too large (413; what came before the limit is
            taken), holds no good line (422), or labels cannot be taken now (503).
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _TYPES:
        raise ApiError(415, f"send labels as `Content-Type: {_TYPES[0]}`, one JSON object a line")
    taken = _Taken()
    try:
        journal.check_room()
        async for lines in _slices(request):
            _take(lines, journal, taken)
            await asyncio.sleep(0)
    except LabelsFullError as exc:
        raise ApiError(503, f"no label was taken: {exc}", {"retry-after": "30"}) from exc
    except StateError as exc:
        raise ApiError(503, f"not all labels were taken: {exc}; send them again") from exc
    finally:
        # Whatever ends the reading, what was appended is told as such.
        counts[ACCEPTED] += taken.accepted
        counts[REFUSED] += taken.refused
    try:
        await journal.sync(taken.segments)
    except StateError as exc:
        raise ApiError(503, f"{exc}; send them again") from exc
    if not taken.accepted:
        first = taken.faults[0] if taken.faults else {"line": 1, "error": "is empty"}
        raise ApiError(422, f"no line is a label; line {first['line']} {first['error']}")
    return {"accepted": taken.accepted, "refused": taken.refused, "errors": taken.faults}


def _take(lines: list[bytes], journal: LabelJournal, taken: _Taken) -> None:
    now_ms = wall_ns() // 1_000_000
    values = []
    for line in lines:
        taken.lines += 1
        if not line.strip():
            continue
        try:
            values.append(read_line(line, now_ms).value)
        except LabelError as exc:
            taken.refused += 1
            if len(taken.faults) < MAX_FAULTS:
                taken.faults.append({"line": taken.lines, "error": str(exc)})
    if values:
        taken.segments |= journal.append(values)
        taken.accepted += len(values)


async def _slices(request: Request) -> AsyncIterator[list[bytes]]:
    """Yield the body's lines, some at a time, without their newlines."""
    rest, size_bytes = b"", 0
    async for chunk in request.stream():
        size_bytes += len(chunk)
        if size_bytes > BODY_LIMIT_BYTES:
            raise ApiError(413, f"at most {BODY_LIMIT_BYTES} bytes of labels at once; send parts")
        *lines, rest = (rest + chunk).split(b"\n")
        # One that is too long is cut where that is certain, and refused by its length.
        if len(rest) > 2 * MAX_LINE_BYTES:
            rest = rest[: MAX_LINE_BYTES + 1]
        for start in range(0, len(lines), _SLICE_LINES):
            yield lines[start : start + _SLICE_LINES]
    if rest:
        yield [rest]
