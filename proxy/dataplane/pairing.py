"""From an ended exchange to journal lines: one per candidate, with both legs, whatever happened.

A line is the part of the pair record that only the worker knows, under the record's own names, with
times in whole microseconds. The recorder adds the rest (hashes, predictions, comparison): work that
has no place between two users' requests. Constant fields are encoded once per candidate.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import orjson
import pybase64

from proxy.config.resolved import Bodies, Config, HashPolicy, Route
from proxy.pairs.inflate import defused
from proxy.routing.decide import PRIMARY, Decision
from proxy.routing.segments import SegmentReader
from proxy.routing.split import recorded_hash
from proxy.state.stats_page import HTTP_ERROR, OK, Outcome
from proxy.wire.trace_context import TraceParent, is_sampled

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.leg import Leg
    from proxy.pairs.redact import Redactor
    from proxy.wire.path_mask import PathMask
    from proxy.wire.request_head import RequestHead
    from proxy.wire.response_head import ResponseHead
    from proxy.wire.stream_times import StreamTimes

#: Requests up to this size are hashed by the worker under `hash: auto`: 1.5 us, less than it would
#: cost to journal them for the recorder to hash.
HASHED_REQUEST_BYTES: Final = 4096

#: A line is one formatting of bytes: a third of the cost of building a dict and encoding it. Every
#: value is safe in a JSON string: checked by the head's patterns (ids, method), made here (numbers,
#: hex), or encoded by orjson. What repeats from one exchange to the next comes in ready pieces.
_LINE: Final = (
    b'%b"seq":%d,"ts_us":%d,"request_id":"%b","trace_id":"%b","span_id":"%016x",%b'
    b'"unit_hash":"%b",%b%b'
    b'"request_bytes":%d,"request_sha256":%b,"request_body":%b,"request_body_encoding":%b,'
    b'"segments":%b%b%b'
)
_DECIDED: Final = (
    b'"mode":"%b","served_by":"%b","rescued":%b,"ramp_step":%d,"ramp_weight_bp":%d,'
    b'"assign_prob":%.10g,"sample_prob":%.10g,'
)
#: A trace that was begun here, and one that the client began.
_OWN_TRACE: Final = b'"parent_span_id":null,"trace_sampled":false,'
_JOINED_TRACE: Final = b'"parent_span_id":"%b","trace_sampled":%b,'
_PLACE: Final = b'"method":"%b","path":%b,"content_type":%b,'
_ROLES: Final = ("primary", "candidate", "replicate")


def _for_roles(template: bytes) -> dict[str, bytes]:
    """Return a template of a leg's fields for each role; `@` stands for the role's name."""
    return {role: template.replace(b"@", role.encode()) for role in _ROLES}


_ENDED: Final = _for_roles(
    b',"@_status":"%b","@_http_status":%b,"@_content_type":%b,"@_content_encoding":%b'
)
#: A leg that answered whole, and one that did not: there, numbers may be null.
_WHOLE: Final = _for_roles(
    b'%b,"@_error":null,"@_dispatch_delay_us":%d,"@_ttfb_us":%d,"@_latency_us":%d,'
    b'"@_response_bytes":%d,"@_body":%b,"@_body_state":"%b","@_body_encoding":%b,'
    b'"@_chunks":%d,"@_stream_complete":true'
)
_BROKEN: Final = _for_roles(
    b'%b,"@_error":%b,"@_dispatch_delay_us":%b,"@_ttfb_us":%b,"@_latency_us":%b,'
    b'"@_response_bytes":%b,"@_body":%b,"@_body_state":"%b","@_body_encoding":%b,'
    b'"@_chunks":%d,"@_stream_complete":false'
)
_NO_LEG: Final = {
    role: _BROKEN[role]
    % (
        _ENDED[role] % (b"not_sent", b"null", b"null", b"null"),
        *(b"null",) * 6,
        b"omitted",
        b"null",
        0,
    )
    for role in _ROLES
}
#: Ready pieces; bounded in number and size, since clients and backends choose what is in them.
_PIECES: dict[Any, bytes] = {}
_MAX_PIECES: Final = 8192
_MAX_PIECE_BYTES: Final = 512


def _keep(key: Any, piece: bytes) -> bytes:
    if len(_PIECES) < _MAX_PIECES and len(piece) <= _MAX_PIECE_BYTES:
        _PIECES[key] = piece
    return piece


def _quoted(value: bytes | None) -> bytes:
    """Return `value` as JSON: null, or a string (bytes above 127 read as Latin-1)."""
    return b"null" if value is None else orjson.dumps(value.decode("latin-1"))


def _place(method: bytes, path: bytes, content_type: bytes | None, mask: PathMask) -> bytes:
    key = method, path, content_type, mask
    return _PIECES.get(key) or _keep(
        key, _PLACE % (method, _quoted(mask.apply(path)), _quoted(content_type))
    )


def _joined(trace: TraceParent) -> bytes:
    sampled = b"true" if is_sampled(trace.flags) else b"false"
    return _JOINED_TRACE % (trace.parent_id, sampled)


def _whole(role: str, status: Outcome, head: ResponseHead, coding: bytes | None) -> bytes:
    """Return status and types of an answer that is whole: its HTTP status says how it ended."""
    key = role, head.status, head.content_type, coding
    return _PIECES.get(key) or _keep(key, _ended(role, status, head, coding))


def _ended(role: str, status: Outcome, head: ResponseHead | None, coding: bytes | None) -> bytes:
    if head is None:
        return _ENDED[role] % (status.value.encode(), *(b"null",) * 3)
    return _ENDED[role] % (
        status.value.encode(),
        b"%d" % head.status,
        _quoted(head.content_type),
        _quoted(coding),
    )


_MAX_DECISIONS: Final = 64
#: States of bodies, as `proxy.pairs.record.BodyState` has them.
_FULL: Final = b"full"
_REDACTED: Final = b"redacted"
#: The end of a server-sent event; a tail begins in the middle of one.
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class Writer:
    """Who writes a route's lines: the worker's run, and what keeps secrets out of them.

    Attributes:
        hash_key: secret of `unit_hash`.
        mask: for paths.
        redactor: for bodies; None where nothing is redacted.
    """

    __slots__ = ("hash_key", "instance", "mask", "redactor")

    def __init__(
        self, instance: str, hash_key: str, mask: PathMask, redactor: Redactor | None
    ) -> None:
        self.instance = instance
        self.hash_key = hash_key
        self.mask = mask
        self.redactor = redactor


class LineMaker:
    """Makes the lines of one candidate of one route."""

    __slots__ = (
        "_constant", "_decisions", "_hash_all", "_hash_requests", "_mask", "_redactor", "_segments",
        "_unit", "_with_bodies", "_with_request", "number",
    )  # fmt: skip

    def __init__(self, config: Config, route: Route, number: int, writer: Writer) -> None:
        candidate = route.candidates[number]
        constant = {
            "instance": writer.instance,
            "config_version": config.version,
            "route": route.name,
            "candidate": candidate.name,
            "primary_backend": route.primary,
            "candidate_backend": candidate.backend,
        }
        self.number = number
        self._decisions: dict[int, tuple[Decision, bool, bytes]] = {}
        self._constant = orjson.dumps(constant)[:-1] + b","
        bodies = config.record.bodies_of(route)
        self._with_bodies = bodies is not Bodies.NONE
        self._with_request = bodies is Bodies.FULL
        self._segments = SegmentReader(route.segments) if route.segments else None
        self._mask = writer.mask
        self._unit = recorded_hash(writer.hash_key, route.name)
        self._redactor = redactor = writer.redactor
        # The hash of a short secret is as good as the secret: it can be guessed at leisure. So there
        # is none where something is redacted, and none of what an operator keeps nothing of.
        self._hash_all = redactor is None and config.record.hash is HashPolicy.ALWAYS
        self._hash_requests = redactor is None and self._with_bodies

    def line(self, exchange: Exchange, seq: int) -> bytes:
        """Return the journal line of this candidate for an ended exchange."""
        decision, head, legs = exchange.decision, exchange.head, exchange.legs
        trace, segments = head.trace, self._segments
        assert decision is not None
        made = _LINE % (
            self._constant,
            seq,
            exchange.wall_us,
            exchange.request_id,
            exchange.trace_id,
            exchange.span_id,
            _OWN_TRACE if trace is None else _joined(trace),
            self._unit_hash(exchange.key),
            self._decided(exchange, decision),
            _place(head.method, head.path, head.fields.get(b"content-type"), self._mask),
            exchange.received_bytes,
            *self._request_body(exchange),
            b"{}" if segments is None else segments.read(head.fields, exchange.captured),
            self._leg("primary", legs.get(PRIMARY), exchange),
            self._leg("candidate", legs.get(self.number), exchange),
        )
        replicate = exchange.replicate
        if replicate is not None:
            backend = orjson.dumps(replicate.pool.backend.name)
            made += b',"replicate_backend":%b' % backend
            made += self._leg("replicate", replicate, exchange)
        return made + b"}"

    def _unit_hash(self, key: bytes) -> bytes:
        hashed = self._unit.copy()
        hashed.update(key)
        return hashed.hexdigest().encode()

    def _decided(self, exchange: Exchange, decision: Decision) -> bytes:
        """Return what the decision says; there are few decisions, each shared by many exchanges."""
        number, is_rescued = self.number, exchange.is_rescued
        known = self._decisions.get(id(decision))
        if known is not None and known[0] is decision and known[1] is is_rescued:
            return known[2]
        is_serving = decision.serving == number
        step, weight_bp = exchange.plan.ramp[number]
        piece = _DECIDED % (
            b"canary" if weight_bp else b"shadow",
            b"candidate" if is_serving and not is_rescued else b"primary",
            b"true" if is_serving and is_rescued else b"false",
            step,
            weight_bp,
            decision.assign_prob,
            decision.sample_probs[number],
        )
        if len(self._decisions) >= _MAX_DECISIONS:
            self._decisions.clear()  # those of plans that are gone
        self._decisions[id(decision)] = decision, is_rescued, piece
        return piece

    def _request_body(self, exchange: Exchange) -> tuple[bytes, bytes, bytes]:
        """Return (hash, body, encoding) of the request as JSON values."""
        captured = exchange.captured
        if captured is None or not exchange.is_whole:
            return b"null", b"null", b"null"
        digest = body = encoding = b"null"
        if self._hash_all or (
            self._hash_requests and exchange.received_bytes <= HASHED_REQUEST_BYTES
        ):
            digest = b'"%b"' % _sha256(captured)
        if self._with_request and exchange.received_bytes <= exchange.keep_limit:
            whole, redactor = b"".join(captured), self._redactor
            kept = whole if redactor is None else _redacted_request(redactor, whole, exchange.head)
            if kept is not None:
                body, encoding = _text(kept)
        return digest, body, encoding

    def _leg(self, role: str, leg: Leg | None, exchange: Exchange) -> bytes:
        if leg is None:
            return _NO_LEG[role]
        body, state, encoding = self._body(leg)
        status, head, begun_s = leg.status, leg.head, leg.begun_s
        if head is None or not (status is OK or status is HTTP_ERROR):
            made = _BROKEN[role] % (
                _ended(role, status, head, _coding(head, body, state)),
                b"null" if leg.error is None else orjson.dumps(leg.error),
                _micros(exchange.ready_s, leg.sent_s),
                _micros(begun_s, leg.first_s),
                _micros(begun_s, leg.end_s),
                b"%d" % leg.response_bytes if head else b"null",
                *(body, state, encoding, leg.chunks),
            )
            return made if leg.times is None else made + self._stream(role, leg)
        coding = head.content_encoding
        if self._redactor is not None:
            coding = _coding(head, body, state)
        made = _WHOLE[role] % (
            _whole(role, status, head, coding),
            (leg.sent_s - exchange.ready_s) * 1e6,
            (leg.first_s - begun_s) * 1e6,
            (leg.end_s - begun_s) * 1e6,
            leg.response_bytes,
            body,
            state,
            encoding,
            leg.chunks,
        )
        if leg.times is not None:
            made += self._stream(role, leg)
        if self._hash_all and state == _FULL:
            made += b',"%b_response_sha256":"%b"' % (role.encode(), _sha256(leg.kept))
        return made

    def _stream(self, role: str, leg: Leg) -> bytes:
        """Return what is only said of an answer that came in pieces: its times, and its end."""
        assert leg.times is not None
        made = _stream_times(role, leg, leg.times)
        # What is cut cannot be redacted, nor inflated.
        if leg.tail and self._redactor is None:
            assert leg.head is not None
            begin = _EVENT_END.search(leg.tail)
            if begin is not None and leg.head.content_encoding is None:
                text = leg.tail[begin.end() :].decode(errors="replace")
                made += b',"%b_tail":%b' % (role.encode(), orjson.dumps(text))
        return made

    def _body(self, leg: Leg) -> tuple[bytes, bytes, bytes]:
        """Return (text, state, encoding) of an answer's body, text and encoding as JSON values."""
        if not self._with_bodies or leg.head is None:
            return b"null", b"omitted", b"null"
        body = leg.kept[0] if len(leg.kept) == 1 else b"".join(leg.kept)
        is_whole = leg.kept_bytes == leg.response_bytes
        if self._redactor is not None:
            return _redacted_answer(self._redactor, body, leg.head, is_whole=is_whole)
        coding = leg.head.content_encoding
        kept = body if coding is None else defused(body, coding.decode("latin-1"))
        text, encoding = _text(kept)
        return text, _FULL if is_whole and kept is body else b"truncated", encoding


def _redacted_request(redactor: Redactor, body: bytes, head: RequestHead) -> bytes | None:
    """Return a request's body as it may be written; None: not at all."""
    fields = head.fields
    return redactor.apply(
        body, _latin(fields.get(b"content-type")), _latin(fields.get(b"content-encoding"))
    )


def _redacted_answer(
    redactor: Redactor, body: bytes, head: ResponseHead, *, is_whole: bool
) -> tuple[bytes, bytes, bytes]:
    """Return (text, state, encoding) of an answer's body as it may be written."""
    redacted = None
    if is_whole:
        redacted = redactor.apply(body, _latin(head.content_type), _latin(head.content_encoding))
    if redacted is None:
        return b"null", _REDACTED, b"null"
    text, encoding = _text(redacted)
    return text, _FULL if redacted is body else _REDACTED, encoding


def _coding(head: ResponseHead | None, body: bytes, state: bytes) -> bytes | None:
    """Return the content coding of what is written: what was redacted has been inflated."""
    is_inflated = state == _REDACTED and body != b"null"
    return None if head is None or is_inflated else head.content_encoding


def _text(body: bytes) -> tuple[bytes, bytes]:
    """Return a body as a JSON string, and how it is encoded."""
    try:
        return orjson.dumps(body.decode()), b'"utf-8"'
    except UnicodeDecodeError:
        return b'"%b"' % pybase64.b64encode(body), b'"base64"'


def _latin(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _sha256(pieces: list[bytes]) -> bytes:
    digest = hashlib.sha256(pieces[0] if pieces else b"")
    for piece in pieces[1:]:
        digest.update(piece)
    return digest.hexdigest().encode()


def _stream_times(role: str, leg: Leg, times: StreamTimes) -> bytes:
    """Return the times of an answer that came in pieces; what did not happen is left out."""
    side, made = role.encode(), b""
    if times.content_s:
        made = b',"%b_ttft_us":%d' % (side, (times.content_s - leg.begun_s) * 1e6)
    if times.gaps:
        gaps_us = times.median_s() * 1e6, times.longest_s * 1e6
        made += b',"%b_itl_p50_us":%d,"%b_itl_max_us":%d' % (side, gaps_us[0], side, gaps_us[1])
    return made


def _micros(start_s: float, end_s: float) -> bytes:
    """Return a duration in microseconds as JSON, null when it did not happen."""
    return b"%d" % ((end_s - start_s) * 1e6) if end_s and start_s else b"null"
