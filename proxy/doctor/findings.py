"""What a check says: one frozen value a finding, the same for the table and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


#: From good to bad.
_ORDER = {level: number for number, level in enumerate(Level)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: the kind, such as `backend`.
        subject: what was looked at, such as `iris-v1 http://127.0.0.1:9001`.
        what: what was found.
        why: what it leads to; empty when all is well.
        mend: what to do; empty when all is well.
    """

    check: str
    subject: str
    level: Level
    what: str
    why: str = ""
    mend: str = ""


def ok(check: str, subject: str, what: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, subject, Level.OK, what)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level there is; ok without any."""
    return max((finding.level for finding in findings), key=_ORDER.__getitem__, default=Level.OK)
