"""Which pairs a command is asked for. Pure.

Also decides what is a pair record that this version can show or export: `proxy.analysis.rows` asks
more of those that are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.analysis.source import Record
from proxy.pairs.record import SCHEMA_VERSION

#: How a leg ends that was asked and gave no good answer. What was never asked has not failed.
FAILED: Final = frozenset({"http_error", "timeout", "connect_error", "reset"})

_TEXTS: Final = ("pair_id", "request_id", "instance", "candidate", "route", "ts")
#: Fields without which a record is no pair.
IDENTITY: Final = ("schema_version", *_TEXTS, "ts_ms", "seq")
_MAX_SEQ: Final = 2**63


def is_pair(record: Record) -> bool:
    """Return whether `record` is a pair of a version that is known, with its identity in it."""
    seq = record.get("seq")
    return (
        record.get("schema_version") == SCHEMA_VERSION
        and all(type(record.get(name)) is str for name in _TEXTS)
        and type(record.get("ts_ms")) is int
        and type(seq) is int
        and 0 <= seq < _MAX_SEQ
    )


@dataclass(frozen=True, slots=True)
class PairFilter:
    """Which pairs to take; all by default.

    Attributes:
        since_ms, until_ms: by the time of the request; the first instant is in, the last is not.
        is_different: only those whose answers were compared and differ.
        is_failed: only those in which the primary or the candidate failed.
    """

    route: str = ""
    candidate: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    is_different: bool = False
    is_failed: bool = False

    def takes(self, pair: Record) -> bool:
        """Return whether `pair` (for which `is_pair` holds) is asked for."""
        return (
            (not self.route or pair["route"] == self.route)
            and (not self.candidate or pair["candidate"] == self.candidate)
            and (self.since_ms is None or pair["ts_ms"] >= self.since_ms)
            and (self.until_ms is None or pair["ts_ms"] < self.until_ms)
            and (not self.is_different or pair.get("equal") is False)
            and (not self.is_failed or has_failed(pair))
        )


def has_failed(pair: Record) -> bool:
    """Return whether the primary or the candidate was asked and gave no good answer."""
    return pair.get("primary_status") in FAILED or pair.get("candidate_status") in FAILED
