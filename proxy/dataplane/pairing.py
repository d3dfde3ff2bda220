"""From an ended exchange to journal lines: one per candidate, with both legs, whatever happened.

A line is the part of the pair record that only the worker knows, under the record's own names, with
times in whole microseconds. The recorder adds the rest (hashes, predictions, comparison): work that
has no place between two users' requests. Constant fields are encoded once per candidate.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

import orjson

from proxy.config.resolved import Bodies, Config, HashPolicy, Route
from proxy.routing.decide import PRIMARY
from proxy.state.stats_page import Outcome

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.leg import Leg

#: Requests up to this size are hashed by the worker under `hash: auto`: 1.5 us, less than it would
#: cost to journal them for the recorder to hash.
HASHED_REQUEST_BYTES: Final = 4096

#: The fields of a line in the order of `LineMaker.line`. Formatting bytes costs a third of building
#: a dict and encoding it, and every value below is safe in a JSON string: checked by the head's
#: patterns (ids), made here (numbers, hex) or encoded by orjson (`_quoted`).
_REQUEST: Final = (
    b'"seq":%d,"ts_us":%d,"request_id":"%b","trace_id":"%b","mode":"%b","served_by":"%b",'
    b'"rescued":%b,"ramp_step":%d,"ramp_weight_bp":%d,"assign_prob":%.10g,"sample_prob":%.10g,'
    b'"unit_hash":"%b","segments":{},"method":"%b","path":%b,"content_type":%b,'
    b'"request_bytes":%d,"request_sha256":%b,"request_body":%b,"request_body_encoding":%b'
)
_LEG: Final = (
    b',"%(p)b_status":"%%b","%(p)b_http_status":%%b,"%(p)b_error":%%b,'
    b'"%(p)b_dispatch_delay_us":%%b,"%(p)b_ttfb_us":%%b,"%(p)b_latency_us":%%b,'
    b'"%(p)b_response_bytes":%%b,"%(p)b_content_type":%%b,"%(p)b_content_encoding":%%b,'
    b'"%(p)b_body":%%b,"%(p)b_body_state":"%%b","%(p)b_body_encoding":%%b,"%(p)b_chunks":%%d,'
    b'"%(p)b_stream_complete":%%b'
)
_ROLES: Final = ("primary", "candidate", "replicate")
_LEGS: Final = {role: _LEG % {b"p": role.encode()} for role in _ROLES}
#: The same for a leg that answered whole: numbers are numbers, there is no error.
_WHOLE_LEGS: Final = {
    role: template.replace(b'_http_status":%b', b'_http_status":%d')
    .replace(b'_error":%b', b'_error":null')
    .replace(b'_us":%b', b'_us":%d')
    .replace(b'_bytes":%b', b'_bytes":%d')
    .replace(b'_complete":%b', b'_complete":true')
    for role, template in _LEGS.items()
}
_NO_LEG: Final = (b"not_sent", *(b"null",) * 9, b"omitted", b"null", 0, b"false")
_STATUS: Final = {outcome: outcome.value.encode() for outcome in Outcome}

#: JSON strings of values that repeat (paths, content types); bounded, since clients choose them.
_QUOTED: dict[bytes, bytes] = {}
_MAX_QUOTED: Final = 4096


def _quoted(value: bytes | None) -> bytes:
    """Return `value` as JSON: null, or a string (bytes above 127 read as Latin-1)."""
    if value is None:
        return b"null"
    found = _QUOTED.get(value)
    if found is None:
        found = orjson.dumps(value.decode("latin-1"))
        if len(_QUOTED) < _MAX_QUOTED:
            _QUOTED[value] = found
    return found


class LineMaker:
    """Makes the lines of one candidate of one route."""

    __slots__ = ("_constant", "_hash_all", "_with_bodies", "_with_request", "number")

    def __init__(self, config: Config, route: Route, number: int, instance: str) -> None:
        candidate = route.candidates[number]
        constant = {
            "instance": instance,
            "config_version": config.version,
            "route": route.name,
            "candidate": candidate.name,
            "primary_backend": route.primary,
            "candidate_backend": candidate.backend,
        }
        self.number = number
        self._constant = orjson.dumps(constant)[:-1] + b","
        self._with_bodies = config.record.bodies is not Bodies.NONE
        self._with_request = config.record.bodies is Bodies.FULL
        self._hash_all = config.record.hash is HashPolicy.ALWAYS

    def line(self, exchange: Exchange, seq: int) -> bytes:
        """Return the journal line of this candidate for an ended exchange."""
        number, decision = self.number, exchange.decision
        assert decision is not None
        is_rescued = exchange.is_rescued and decision.serving == number
        by_candidate = decision.serving == number and not is_rescued
        head, legs = exchange.head, exchange.legs
        step, weight_bp = exchange.plan.ramp[number]
        pieces = [
            self._constant,
            _REQUEST
            % (
                seq,
                exchange.wall_us,
                exchange.request_id,
                exchange.trace_id,
                b"canary" if weight_bp else b"shadow",
                b"candidate" if by_candidate else b"primary",
                b"true" if is_rescued else b"false",
                step,
                weight_bp,
                decision.assign_prob,
                decision.sample_probs[number],
                exchange.unit[:8].hex().encode(),
                head.method,
                _quoted(head.path),
                _quoted(head.fields.get(b"content-type")),
                exchange.received_bytes,
                *self._request_body(exchange),
            ),
            self._leg("primary", legs.get(PRIMARY), exchange),
            self._leg("candidate", legs.get(number), exchange),
        ]
        replicate = exchange.replicate
        if replicate is not None:
            backend = orjson.dumps(replicate.pool.backend.name)
            pieces.append(b',"replicate_backend":%b' % backend)
            pieces.append(self._leg("replicate", replicate, exchange))
        pieces.append(b"}")
        return b"".join(pieces)

    def _request_body(self, exchange: Exchange) -> tuple[bytes, bytes, bytes]:
        """Return (hash, body, encoding) of the request as JSON values."""
        captured = exchange.captured
        if captured is None:
            return b"null", b"null", b"null"
        digest = body = encoding = b"null"
        redactor = exchange.worker.redactor
        if redactor is None and (
            self._hash_all or exchange.received_bytes <= HASHED_REQUEST_BYTES
        ):  # with redaction no hash: that of a short secret can be guessed
            digest = b'"%b"' % _sha256(captured)
        if self._with_request and exchange.received_bytes <= exchange.keep_limit:
            kept: bytes | None = b"".join(captured)
            if redactor is not None:
                kept = redactor.apply(kept, _latin(exchange.head.fields.get(b"content-type")))
            if kept is not None:
                body, encoding = _text(kept)
        return digest, body, encoding

    def _leg(self, role: str, leg: Leg | None, exchange: Exchange) -> bytes:
        if leg is None:
            return _LEGS[role] % _NO_LEG
        body, state, encoding = self._body(leg, exchange)
        status, head, begun_s = leg.status, leg.head, leg.begun_s
        is_whole = status is Outcome.OK or status is Outcome.HTTP_ERROR
        if head is None or not is_whole:
            return _LEGS[role] % (
                _STATUS[status],
                b"%d" % head.status if head else b"null",
                b"null" if leg.error is None else orjson.dumps(leg.error),
                _micros(exchange.ready_s, leg.sent_s),
                _micros(begun_s, leg.first_s),
                _micros(begun_s, leg.end_s),
                b"%d" % leg.response_bytes if head else b"null",
                _quoted(head.content_type) if head else b"null",
                _quoted(head.content_encoding) if head else b"null",
                *(body, state, encoding, leg.chunks, b"false"),
            )
        content_type, coding = head.content_type, head.content_encoding
        made = _WHOLE_LEGS[role] % (
            _STATUS[status],
            head.status,
            (leg.sent_s - exchange.ready_s) * 1e6,
            (leg.first_s - begun_s) * 1e6,
            (leg.end_s - begun_s) * 1e6,
            leg.response_bytes,
            b"null" if content_type is None else _QUOTED.get(content_type) or _quoted(content_type),
            b"null" if coding is None else _quoted(coding),
            body,
            state,
            encoding,
            leg.chunks,
        )
        if self._hash_all and state == b"full" and exchange.worker.redactor is None:
            made += b',"%b_response_sha256":"%b"' % (role.encode(), _sha256(leg.kept))
        return made

    def _body(self, leg: Leg, exchange: Exchange) -> tuple[bytes, bytes, bytes]:
        """Return (text, state, encoding) of an answer's body, text and encoding as JSON values."""
        if not self._with_bodies or leg.head is None:
            return b"null", b"omitted", b"null"
        body = leg.kept[0] if len(leg.kept) == 1 else b"".join(leg.kept)
        is_whole = leg.kept_bytes == leg.response_bytes
        redactor = exchange.worker.redactor
        if redactor is None:
            text, encoding = _text(body)
            return text, b"full" if is_whole else b"truncated", encoding
        redacted = redactor.apply(body, _latin(leg.head.content_type)) if is_whole else None
        if redacted is None:
            return b"null", b"omitted", b"null"
        text, encoding = _text(redacted)
        return text, b"full" if redacted is body else b"redacted", encoding


def _text(body: bytes) -> tuple[bytes, bytes]:
    """Return a body as a JSON string, and how it is encoded."""
    try:
        return orjson.dumps(body.decode()), b'"utf-8"'
    except UnicodeDecodeError:
        return b'"%b"' % base64.b64encode(body), b'"base64"'


def _latin(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _sha256(pieces: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest().encode()


def _micros(start_s: float, end_s: float) -> bytes:
    """Return a duration in microseconds as JSON, null when it did not happen."""
    return b"%d" % ((end_s - start_s) * 1e6) if end_s and start_s else b"null"
