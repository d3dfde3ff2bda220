"""What of a recorded pair can be sent again: the request as it was, or why it cannot. Pure.

A record has the method, the path, the content type and, with `record.bodies: full`, the body. The
query and the other header fields were never written. A body that is not known to be whole and as the
user sent it is not sent: a model's answer to a masked question says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from proxy.analysis.source import Record
from proxy.config.resolved import Protocol, RedactAction, RedactRule
from proxy.pairs.protocols.binary_tensors import is_binary, request_header_bytes
from proxy.pairs.reading import decoded
from proxy.pairs.redact import Redactor, compile_rules

#: What stands for a secret in a recorded path (`proxy.wire.path_mask`).
_MASK: Final = "***"
_TEXTS: Final = ("method", "path", "trace_id", "unit_hash", "primary_status", "primary_body_state")


class Skip(StrEnum):
    """Why a record cannot be sent."""

    NO_BODY = "no_body"
    REDACTED = "redacted"
    TRUNCATED = "truncated"
    UNKNOWN_ROUTE = "unknown_route"
    DAMAGED = "damaged"
    REPEATED = "repeated"


#: The reasons in words, after a number.
WORDS: Final = {
    Skip.NO_BODY: "have no request body (record.bodies is not full, or it is over "
    "limits.record_body)",
    Skip.REDACTED: "are redacted, so they are not what the user sent",
    Skip.TRUNCATED: "have only a part of the request body",
    Skip.UNKNOWN_ROUTE: "are of a route that the config does not have",
    Skip.DAMAGED: "are no pair records that this version can send",
    Skip.REPEATED: "are of a request that another record has sent (several candidates, or delivered "
    "again)",
}


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """One request to be sent again; `record` is the pair that it is from.

    Attributes:
        path: as the proxy saw it, without a query.
        fields: header fields that go with the body.
    """

    record: Record
    request_id: str
    route: str
    method: str
    path: bytes
    fields: dict[str, str]
    body: bytes


def finder_of(rules: Sequence[RedactRule], protocol: Protocol, limit_bytes: int) -> Redactor | None:
    """Return what changes each body in which a rule finds something, masked or not; None: no rules."""
    if not rules:
        return None
    dropping = [replace(rule, action=RedactAction.DROP) for rule in rules]
    return compile_rules(dropping, "", protocol=protocol, limit_bytes=limit_bytes)


def request_of(pair: Record, finder: Redactor | None) -> ReplayRequest | Skip:
    """Return the request of a pair (for which `is_pair` holds), or why it cannot be sent.

    Args:
        pair: the record.
        finder: see `finder_of`; of the pair's route.
    """
    if not _is_readable(pair):
        return Skip.DAMAGED
    text, path = pair.get("request_body"), pair["path"]
    if _MASK in path:
        return Skip.REDACTED
    if text is None and pair["request_bytes"]:
        return Skip.NO_BODY
    try:
        body = decoded(text or "", pair.get("request_body_encoding"))
        target = path.encode("latin-1")
    except (ValueError, AttributeError):
        return Skip.DAMAGED
    fault = _fault(pair, body, finder)
    if fault is not None:
        return fault
    return ReplayRequest(
        record=pair,
        request_id=pair["request_id"],
        route=pair["route"],
        method=pair["method"],
        path=target,
        fields=_fields(pair, body),
        body=body,
    )


def _is_readable(pair: Record) -> bool:
    """Return whether what a request is made of is there, each of its type."""
    return type(pair.get("request_bytes")) is int and all(
        type(pair.get(name)) is str for name in _TEXTS
    )


def _fault(pair: Record, body: bytes, finder: Redactor | None) -> Skip | None:
    """Return what keeps `body` from being the one that the user sent.

    A route with redaction has no hash of its requests. Then a value that was dropped shows in the
    length, and one that was masked or hashed stands where a rule finds it.
    """
    digest = pair.get("request_sha256")
    if digest is not None:
        return None if hashlib.sha256(body).hexdigest() == digest else Skip.TRUNCATED
    if len(body) != pair["request_bytes"]:
        return Skip.REDACTED
    if finder is not None and finder.apply(body, pair.get("content_type")) is not body:
        return Skip.REDACTED
    return None


def _fields(pair: Record, body: bytes) -> dict[str, str]:
    """Return the header fields that tell how to read the body, as far as they are known."""
    kind = pair.get("content_type")
    if type(kind) is not str:
        return {}
    fields = {"content-type": kind}
    if pair.get("protocol") == Protocol.OPEN_INFERENCE and is_binary(kind):
        length = request_header_bytes(body)
        if length is not None:
            fields["inference-header-content-length"] = str(length)
    return fields
