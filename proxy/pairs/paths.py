"""The paths of operators, `a.b[*].c` or `outputs[0].data`, as steps.

One small grammar, used whole by redaction and, without wildcards, as the short way for prediction
paths (a subset of JMESPath). It says nothing about values: see `redact` and `predictions`.
"""

from __future__ import annotations

import re
from enum import Enum, auto

_STEP = re.compile(
    r"""(?P<dot>\.)?(?P<key>[A-Za-z_][A-Za-z0-9_]*|(?P<quoted>"(?:[^"\\]|\\["\\])+")|\*)
        |\[(?P<index>0|[1-9][0-9]{0,8})\]
        |\[(?P<every>\*)\]""",
    re.VERBOSE,
)


class Wildcard(Enum):
    """Steps that match many: `a.*` every member of an object, `a[*]` every element of an array."""

    MEMBERS = auto()
    ELEMENTS = auto()


def parse(path: str) -> tuple[str | int | Wildcard, ...]:
    """Return the steps of `path`; keys with other characters are quoted: `a."x-y"[0]`.

    Raises:
        ValueError: it is not a path; says where it stops being one.
    """
    steps: list[str | int | Wildcard] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None or (match["key"] is not None and bool(match["dot"]) != bool(steps)):
            raise ValueError(
                f"{path!r} is not a path at {path[position:]!r}; write keys as a.b, array "
                'elements as a[0] or a[*], and other keys in quotes as a."x-y"'
            )
        steps.append(_step(match))
        position = match.end()
    if not steps:
        raise ValueError("an empty path")
    return tuple(steps)


def _step(match: re.Match[str]) -> str | int | Wildcard:
    if match["every"]:
        return Wildcard.ELEMENTS
    if match["index"]:
        return int(match["index"])
    if match["quoted"]:
        return re.sub(r"\\(.)", r"\1", match["quoted"][1:-1])
    return Wildcard.MEMBERS if match["key"] == "*" else match["key"]
