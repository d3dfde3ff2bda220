"""From a journal line to the pair record: hashes, predictions and the comparison. Pure.

The worker journals what it knows; everything that costs more than a few microseconds is done here,
in the recorder. The same line gives the same record, byte for byte, so reading a journal again
after a crash makes no new pairs.

Whether a pair may be compared at all is decided here, and why not is named for the side at fault
(`candidate_failed`, `primary_truncated`, `candidate_no_prediction`, ...): a candidate that answers
200 without a prediction must not vanish from the evidence unseen.

The hot path of the recorder: 20 us for a pair with equal JSON answers of 1 KB, 22 to 40 us where
they differ (Python 3.11). What depends on the route alone is prepared once, equal bodies are read
once, and the record is a merge of two dicts.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple

from proxy.comparison import comparators
from proxy.comparison.result import Comparison, against_noise, not_comparable
from proxy.config.resolved import Bodies, Record, Route
from proxy.errors import UnderstudyError
from proxy.pairs import sse
from proxy.pairs.protocols.answer import Answer, Extract
from proxy.pairs.protocols.extract import Extractor
from proxy.pairs.protocols.openai import INCOMPLETE
from proxy.pairs.record import FIELDS, SCHEMA_VERSION, BodyState

_TS_US_LIMIT: Final = 253_402_300_800_000_000  # year 10000, beyond RFC 3339

_LEG_TIMES: Final = ("dispatch_delay", "ttfb", "latency", "itl_p50", "itl_max")
#: The fields of `_Body`, in its order.
_BODY_NAMES: Final = (
    "body", "body_encoding", "content_type", "content_encoding", "body_state", "status",
    "stream_complete",
)  # fmt: skip
#: Statuses of legs that nobody's backend failed: named as they are in the reason.
_UNASKED: Final = frozenset({"cancelled", "shed", "not_sent"})


class LineError(UnderstudyError):
    """A journal line is not what a worker writes; its text says what is wrong with it."""


class _Body(NamedTuple):
    """A leg's body in the record: equal ones are read once."""

    text: str | None
    encoding: str | None
    content_type: str | None
    content_encoding: str | None
    state: str
    status: str
    stream_complete: bool | None


class _Read(NamedTuple):
    """What reading a leg's body gave."""

    sha256: str | None
    extract: Extract


class _Side:
    """The names of one leg's fields, put together once."""

    def __init__(self, side: str) -> None:
        def named(*words: str) -> list[str]:
            return [f"{side}_{word}" for word in words]

        times_us = named(*(f"{name}_us" for name in _LEG_TIMES))
        times_ms = named(*(f"{name}_ms" for name in _LEG_TIMES))
        self.times = tuple(zip(times_us, times_ms, strict=True))
        self.body_values = itemgetter(*named(*_BODY_NAMES))
        self.backend, self.body, self.body_encoding, self.body_state, self.content_type = named(
            "backend", "body", "body_encoding", "body_state", "content_type"
        )
        self.sha256, self.ttfb_ms, self.ttft_ms = named("response_sha256", "ttfb_ms", "ttft_ms")
        self.prediction, self.model_version, self.finish_reason = named(
            "prediction", "model_version", "finish_reason"
        )
        self.input_tokens, self.output_tokens = named("input_tokens", "output_tokens")


_PRIMARY: Final = _Side("primary")
_CANDIDATE: Final = _Side("candidate")
_REPLICATE: Final = _Side("replicate")

_SIDES: Final = (_PRIMARY, _CANDIDATE, _REPLICATE)

#: A worker may leave out what is null. What may never be null must be there.
_REQUIRED_VALUES: Final = itemgetter(
    "ts_us", "seq", "instance", "config_version", "route", "candidate", "request_id", "trace_id",
    "mode", "served_by", "rescued", "ramp_step", "ramp_weight_bp", "assign_prob", "sample_prob",
    "unit_hash", "segments", "method", "path", "request_bytes",
    "primary_backend", "primary_status", "primary_body_state",
    "candidate_backend", "candidate_status", "candidate_body_state",
)  # fmt: skip


class Expander:
    """Makes the records of one route under one config revision."""

    def __init__(self, route: Route, record: Record, proxy_version: str) -> None:
        """Prepare what depends on the config alone.

        Raises:
            ValueError: no such comparator, or a prediction path that is not JMESPath.
        """
        self._route = route.name
        self._bodies = record.bodies
        self._redacts = bool(record.redact.json)
        self._extract = Extractor(route.protocol, route.compare.prediction)
        self._compare = comparators.build(route.compare)
        self._template: dict[str, Any] = dict.fromkeys(field.name for field in FIELDS)
        self._template |= {
            "schema_version": SCHEMA_VERSION,
            "experiment_id": route.experiment_id,
            "proxy_version": proxy_version,
            "protocol": str(route.protocol),
            "comparator": route.compare.comparator,
        }
        self._second_s = -1
        self._second_text = ""

    def expand(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the whole record of a journal line, every field of `FIELDS` in order.

        Raises:
            LineError: a field is missing or of the wrong type; what upstreams answer never raises.
        """
        try:
            return self._record(line)
        except (LookupError, TypeError, ValueError, ArithmeticError) as exc:
            raise LineError(
                f"a journal line of route {self._route!r} is not valid: {type(exc).__name__}: {exc}"
            ) from exc

    def _record(self, line: dict[str, Any]) -> dict[str, Any]:
        _REQUIRED_VALUES(line)
        # Most names are the same in both; the few that are not (times) are taken out again.
        record = self._template | line
        ts_us = record.pop("ts_us")
        record["ts"] = self._timestamp(ts_us)
        record["ts_ms"] = ts_us // 1000
        record["pair_id"] = pair_id(ts_us, line["instance"], line["seq"], line["candidate"])
        record["sample_weight"] = 1.0 / line["sample_prob"]
        for side in _SIDES:
            _fill_times(record, side)
        if len(record) != len(FIELDS):
            record = {name: record[name] for name in self._template}

        primary_body = _Body(*_PRIMARY.body_values(record))
        primary = self._read(primary_body)
        _fill_read(record, _PRIMARY, primary)
        candidate = self._other(record, _CANDIDATE, primary_body, primary)
        comparison = self._judge(primary.extract, candidate.extract, "candidate")
        if record["replicate_status"] is not None:
            replicate = self._other(record, _REPLICATE, primary_body, primary)
            noise = self._judge(primary.extract, replicate.extract, "replicate")
            record["replicate_equal"] = noise.equal
            comparison = against_noise(comparison, noise)
        _fill_comparison(record, comparison)
        self._cut(record)
        return record

    def _other(
        self, record: dict[str, Any], side: _Side, primary_body: _Body, primary: _Read
    ) -> _Read:
        """Read the body of another leg and fill its fields; one like the primary's is read."""
        body = _Body(*side.body_values(record))
        read = primary if body == primary_body else self._read(body)
        _fill_read(record, side, read)
        return read

    def _timestamp(self, ts_us: int) -> str:
        if not 0 <= ts_us < _TS_US_LIMIT:
            raise ValueError(f"ts_us {ts_us} is no time")
        second_s, micros = divmod(ts_us, 1_000_000)
        # Lines come nearly in order, so the second is mostly the one before.
        if second_s != self._second_s:
            self._second_text = datetime.fromtimestamp(second_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second_s = second_s
        return f"{self._second_text}.{micros:06d}Z"

    def _read(self, body: _Body) -> _Read:
        """Return the hash of a body and what it says, as far as it is there."""
        # A leg that broke off kept all that came, which is not the whole body.
        is_whole = body.state == BodyState.FULL and body.status in ("ok", "http_error")
        text = "" if body.text is None and is_whole else body.text
        data = None if text is None else _decoded(text, body.encoding)
        sha256 = hashlib.sha256(data).hexdigest() if data is not None and is_whole else None
        if body.status != "ok":
            reason = body.status if body.status in _UNASKED else "failed"
            return _Read(sha256, Extract(reason=reason))
        if data is None or body.state == BodyState.TRUNCATED:
            return _Read(sha256, Extract(reason=str(body.state)))
        extract = self._extract(Answer(body.content_type, body.content_encoding, data))
        if body.stream_complete is False:
            extract = extract._replace(reason=INCOMPLETE)
        if extract.reason is not None and body.state == BodyState.REDACTED:
            extract = extract._replace(reason="redacted")
        return _Read(sha256, extract)

    def _judge(self, primary: Extract, other: Extract, side: str) -> Comparison:
        if primary.reason is not None:
            return not_comparable(f"primary_{primary.reason}")
        if other.reason is not None:
            return not_comparable(f"{side}_{other.reason}")
        return self._compare(primary.prediction, other.prediction, primary.path)

    def _cut(self, record: dict[str, Any]) -> None:
        """Leave out the bodies that `record.bodies` does not keep, and hash the request's."""
        body = record["request_body"]
        if body is not None:
            if record["request_sha256"] is None and not self._redacts:
                data = _decoded(body, record["request_body_encoding"])
                # The line says no state for the request: one that was cut is shorter.
                if len(data) == record["request_bytes"]:
                    record["request_sha256"] = hashlib.sha256(data).hexdigest()
            if self._bodies is not Bodies.FULL:
                record["request_body"] = record["request_body_encoding"] = None
        if self._bodies in (Bodies.RESPONSES, Bodies.FULL):
            return
        for side in (_PRIMARY, _CANDIDATE, _REPLICATE):
            if record[side.backend] is not None:
                record[side.body] = record[side.body_encoding] = None
                record[side.body_state] = str(BodyState.OMITTED)
                if self._bodies is Bodies.NONE:
                    record[side.prediction] = None


def pair_id(ts_us: int, instance: str, seq: int, candidate: str) -> str:
    """Return the UUIDv7 of a pair: RFC 9562 section 5.7, with a hash in place of random bits.

    48 bits of milliseconds, then 74 bits of BLAKE2b over what names the pair, so it sorts by time
    and is the same however often the journal is read.
    """
    name = f"{instance}|{seq}|{candidate}".encode()
    digest = hashlib.blake2b(name, digest_size=10).hexdigest()
    time = f"{ts_us // 1000:012x}"
    variant = "89ab"[int(digest[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"


def _fill_times(record: dict[str, Any], side: _Side) -> None:
    for name_us, name_ms in side.times:
        value_us = record.pop(name_us, None)
        if value_us is not None:
            record[name_ms] = value_us / 1000
    if sse.is_stream(record[side.content_type]):
        record[side.ttft_ms] = record[side.ttfb_ms]


def _fill_read(record: dict[str, Any], side: _Side, read: _Read) -> None:
    extract = read.extract
    record[side.prediction] = extract.prediction
    record[side.model_version] = extract.model_version
    record[side.input_tokens] = extract.input_tokens
    record[side.output_tokens] = extract.output_tokens
    record[side.finish_reason] = extract.finish_reason
    if record[side.sha256] is None:
        record[side.sha256] = read.sha256


def _fill_comparison(record: dict[str, Any], comparison: Comparison) -> None:
    record["comparable"] = comparison.comparable
    record["not_comparable_reason"] = comparison.reason
    record["equal"] = comparison.equal
    record["loss_diff"] = comparison.loss_diff
    record["abs_diff"] = comparison.abs_diff
    record["rel_diff"] = comparison.rel_diff
    record["first_diff_path"] = comparison.first_diff_path


def _decoded(text: str, encoding: str | None) -> bytes:
    return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
