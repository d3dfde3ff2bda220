"""W3C Trace Context: which trace a request belongs to, and the ids of the spans we add to it. Pure.

An exchange is one span, each of its legs another below it. Only the exchange's id is random: a
leg's follows from it, so that whoever knows the exchange's id (the recorder, from the journal)
knows what every backend was told, and nothing about legs need be written down.
"""

from __future__ import annotations

import re
from typing import Final

#: Section 3.2: version 00, or a later one, which may say more behind another dash. The comma is left
#: out of that, because it shows that the field was sent twice.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(?:-[^,]*+)?"
)
_VERSION_00: Final = b"00"
_VERSION_00_BYTES: Final = 55
#: Sampled, and the random-trace-id of level 2. Flags that nobody has defined are sent as zero.
_KNOWN_FLAGS: Final = 0x03
_SAMPLED: Final = 0x01
_FLAGS: Final = {b"%02x" % bits: b"%02x" % (bits & _KNOWN_FLAGS) for bits in range(256)}

#: Section 3.3.1.3: a key, by itself or of a tenant, and a value that does not end with a space. A key
#: may begin with a digit, which level 2 allows.
_MEMBER: Final = re.compile(
    rb"([a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
MAX_MEMBERS: Final = 32

#: What is added to an exchange's id for each kind of leg; a candidate adds `CANDIDATE` and its number.
PRIMARY: Final = 1
REPLICATE: Final = 2
CANDIDATE: Final = 3
#: Low bits of an exchange's id that are zero: room for every leg (a route has 16 candidates at most).
LEG_BITS: Final = 6


class TraceParent:
    """What a valid `traceparent` says: hex digits as sent, but for flags that nobody knows."""

    __slots__ = ("flags", "parent_id", "trace_id")

    def __init__(self, trace_id: bytes, parent_id: bytes, flags: bytes) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.flags = flags


def read_traceparent(value: bytes) -> TraceParent | None:
    """Return what a `traceparent` says; None where a new trace must be started (section 3.2)."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None or (found[1] == _VERSION_00 and len(value) != _VERSION_00_BYTES):
        return None
    return TraceParent(found[2], found[3], _FLAGS[found[4]])


def is_tracestate(value: bytes) -> bool:
    """Tell whether a `tracestate` (several lines joined by commas) may be passed on.

    One that cannot be read, has more than 32 members or a key twice, is dropped whole; one that can is passed
    on unchanged, however long (section 3.3.1.5 asks for 512 characters at least).
    """
    keys: set[bytes] = set()
    for each in value.split(b","):
        member = each.strip(b" \t")
        if not member:  # section 3.3.1.2: empty members are allowed
            continue
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in keys or len(keys) >= MAX_MEMBERS:
            return False
        keys.add(found[1])
    return bool(keys)


def exchange_span_id(bits: int) -> int:
    """Return the id of an exchange's span, made of 58 random bits and never zero."""
    return (bits or 1) << LEG_BITS


def leg_span_id(exchange_id: int, leg: int) -> int:
    """Return the id of a leg's span: the exchange's and `PRIMARY`, `REPLICATE` or a candidate's.

    A rescue and the primary's copy that it replaces are both the primary's, and have one id.
    """
    return exchange_id + leg


def is_sampled(flags: bytes) -> bool:
    """Tell whether whoever started the trace may have recorded it (section 3.2.2.5.1)."""
    return bool(int(flags, 16) & _SAMPLED)
