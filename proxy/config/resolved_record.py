"""The part of the configuration about what records may hold; import it from `proxy.config.resolved`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Bodies(StrEnum):
    """Which bodies a pair record keeps (DESIGN section 5)."""

    RESPONSES = "responses"
    PREDICTIONS = "predictions"
    FULL = "full"
    NONE = "none"


class RedactAction(StrEnum):
    """What becomes of a value that a path names, from the strictest to the mildest."""

    DROP = "drop"
    MASK = "mask"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class RedactRule:
    """A path in JSON bodies, such as `a[*].b`, and what happens to the values there."""

    path: str
    action: RedactAction = RedactAction.DROP


@dataclass(frozen=True, slots=True)
class Redact:
    """What never reaches a disk: header names (lower case) and values in JSON bodies.

    Attributes:
        query: names of parameters, should a path hold any; the query itself is never recorded.
        key: secret of the rules that hash; empty where none does.
    """

    headers: tuple[str, ...]
    json: tuple[RedactRule, ...]
    query: tuple[str, ...] = ()
    key: str = field(default="", repr=False)
