"""From a journal line to the pair record: hashes, predictions and the comparison. Pure.

The worker journals what it knows; everything that costs more than a few microseconds is done here,
in the recorder. The same line gives the same record, byte for byte, so reading a journal again
after a crash makes no new pairs. What answers say and how they compare is `reading`'s.

The hot path of the recorder, measured (Python 3.11, answers of 200 bytes): orjson reads a line's 66
fields in 3 us and writes the record's 113 in 3 us, so all that counts is how little is done in
between. One merge of two dicts and stores in place are as cheap as it gets. Cutting the line by
patterns and formatting the record from slices, without a parse, was tried and took longer: the
patterns alone cost more than the parse.
"""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import Any, Final

import orjson

from proxy.config.resolved import Bodies, Record, Route
from proxy.errors import UnderstudyError
from proxy.pairs import sse
from proxy.pairs.identity import Identities
from proxy.pairs.inflate import Between, at_once
from proxy.pairs.protocols.answer import Extract
from proxy.pairs.protocols.stream import ENDED_EARLY
from proxy.pairs.reading import BODY_FIELDS, Reader, decoded
from proxy.pairs.record import FIELDS, SCHEMA_VERSION, SIDES, BodyState

#: What a damaged line may raise, orjson's refusal to write it included.
_LINE_ERRORS: Final = (LookupError, TypeError, ValueError, ArithmeticError)

_MISSING: Final = object()


class LineError(UnderstudyError):
    """A journal line is not what a worker writes; its text says what is wrong with it."""


class _Side:
    """The names of one leg's fields, put together once."""

    def __init__(self, side: str) -> None:
        def named(*words: str) -> list[str]:
            return [f"{side}_{word}" for word in words]

        self.body_values = itemgetter(*named(*BODY_FIELDS))
        self.backend, self.body, self.body_encoding, self.body_state = named(
            "backend", "body", "body_encoding", "body_state"
        )
        self.content_type, self.sha256 = named("content_type", "response_sha256")
        self.ttfb_us, self.ttfb_ms, self.ttft_ms = named("ttfb_us", "ttfb_ms", "ttft_ms")
        self.prediction, self.model_version, self.finish_reason = named(
            "prediction", "model_version", "finish_reason"
        )
        self.stream_complete = f"{side}_stream_complete"
        self.input_tokens, self.output_tokens = named("input_tokens", "output_tokens")
        self.tail = f"{side}_tail"


_PRIMARY: Final = _Side("primary")
_CANDIDATE: Final = _Side("candidate")
_REPLICATE: Final = _Side("replicate")
_ALL_SIDES: Final = (_PRIMARY, _CANDIDATE, _REPLICATE)

#: Names of a line's times in microseconds, and of the record's in milliseconds; those that every
#: line has come first.
_TIMES: Final = tuple(
    (f"{side}_{name}_us", f"{side}_{name}_ms")
    for side in ("primary", "candidate")
    for name in ("dispatch_delay", "ttfb", "latency")
)
_RARE_TIMES: Final = tuple(
    (f"{side}_{name}_us", f"{side}_{name}_ms")
    for side in SIDES
    for name in ("dispatch_delay", "ttfb", "latency", "ttft", "itl_p50", "itl_max")
)
#: A worker may leave out what is null. What may never be null must be there.
_REQUIRED: Final = itemgetter(
    "ts_us", "seq", "instance", "candidate", "config_version", "route", "request_id", "trace_id",
    "mode", "served_by", "rescued", "ramp_step", "ramp_weight_bp", "assign_prob", "sample_prob",
    "unit_hash", "segments", "method", "path", "request_bytes",
    "primary_backend", "primary_status", "primary_body_state",
    "candidate_backend", "candidate_status", "candidate_body_state",
)  # fmt: skip
#: A prediction of so many elements that both legs share is written once and copied.
_LONG_PREDICTION: Final = 16


class Expander:
    """Makes the records of one route under one config revision.

    Attributes:
        numbers: the places of the route's candidates, by name.
    """

    def __init__(
        self, route: Route, record: Record, proxy_version: str, between: Between = at_once
    ) -> None:
        """Prepare what depends on the config alone; `between` is called between steps of long work.

        Raises:
            ValueError: no such comparator, or a prediction path that is not JMESPath.
        """
        self._route = route.name
        self.numbers = {each.name: number for number, each in enumerate(route.candidates)}
        self._bodies = record.bodies_of(route)
        self._keeps_bodies = self._bodies in (Bodies.RESPONSES, Bodies.FULL)
        self._redacts = bool(record.rules_of(route))
        self._reader = Reader(route, between)
        self._identities = Identities()
        # A field that may not be null and is not replaced makes the record unwritable.
        self._template: dict[str, Any] = {
            field.name: _MISSING if field.is_required else None for field in FIELDS
        }
        self._template |= {
            "schema_version": SCHEMA_VERSION,
            "experiment_id": route.experiment_id,
            "proxy_version": proxy_version,
            "protocol": str(route.protocol),
            "comparator": route.compare.comparator,
        }

    def expand(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the whole record of a journal line, every field of `FIELDS` in order.

        Raises:
            LineError: a field is missing or of the wrong type; what upstreams answer never raises.
        """
        try:
            _REQUIRED(line)
            return self._record(line)
        except _LINE_ERRORS as exc:
            raise self._line_error(exc) from exc

    def expand_json(self, line: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Return the record as JSON, and as a dict whose predictions may be JSON, too.

        Raises:
            LineError: as `expand`.
        """
        try:
            record = self._record(line)
            prediction = record["primary_prediction"]
            if (
                type(prediction) is list
                and len(prediction) >= _LONG_PREDICTION
                and record["candidate_prediction"] is prediction
            ):
                written = orjson.Fragment(orjson.dumps(prediction))
                record["primary_prediction"] = record["candidate_prediction"] = written
            # orjson returns its buffer, up to four times as large as what is in it; a slice is
            # only as large as it has to be, and the buffer is at once written again.
            return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)[:-1], record
        except _LINE_ERRORS as exc:
            self.expand(line)  # says which field is missing
            raise self._line_error(exc) from exc

    def _line_error(self, exc: Exception) -> LineError:
        return LineError(
            f"a journal line of route {self._route!r} is not valid: {type(exc).__name__}: {exc}"
        )

    def _record(self, line: dict[str, Any]) -> dict[str, Any]:
        # Most names are the same in both; the few that are not (times) are taken out again.
        record = self._template | line
        ts_us = record.pop("ts_us")
        record["ts_ms"] = ts_us // 1000
        record["pair_id"], record["ts"] = self._identities.of(
            ts_us, record["instance"], record["seq"], record["candidate"]
        )
        record["sample_weight"] = 1.0 / record["sample_prob"]
        for name_us, name_ms in _TIMES:
            value_us = record.pop(name_us, None)
            if value_us is not None:
                record[name_ms] = value_us / 1000
        tails = None
        if len(record) != len(FIELDS):
            tails = [(side, record.pop(side.tail, None)) for side in _ALL_SIDES]
            record = self._without_others(record)
        self._compare(record)
        if tails is not None:
            self._read_tails(record, tails)
        if record["request_body"] is not None:
            self._cut_request(record)
        if not self._keeps_bodies:
            self._cut_bodies(record)
        return record

    def _without_others(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record without names that are not its own; rarer times are taken over."""
        for name_us, name_ms in _RARE_TIMES:
            value_us = record.pop(name_us, None)
            if value_us is not None:
                record[name_ms] = value_us / 1000
        return {name: record[name] for name in self._template}

    def _compare(self, record: dict[str, Any]) -> None:
        """Fill what the answers say, and how they compare."""
        body, candidate_body = _PRIMARY.body_values(record), _CANDIDATE.body_values(record)
        read = self._reader.read(body)
        candidate_read = read if candidate_body == body else self._reader.read(candidate_body)
        _fill(record, _PRIMARY, read)
        _fill(record, _CANDIDATE, candidate_read)
        if record["replicate_status"] is None:
            comparison = self._reader.judge(read[1], candidate_read[1])
        else:
            replicate_read = self._reader.read(_REPLICATE.body_values(record))
            _fill(record, _REPLICATE, replicate_read)
            comparison, record["replicate_equal"] = self._reader.judge_with_noise(
                read[1], candidate_read[1], replicate_read[1]
            )
        (
            record["comparable"],
            record["not_comparable_reason"],
            record["equal"],
            record["loss_diff"],
            record["abs_diff"],
            record["rel_diff"],
            record["first_diff_path"],
        ) = comparison

    def _read_tails(self, record: dict[str, Any], tails: list[tuple[_Side, Any]]) -> None:
        """Fill what the end of a stream says that was too long to keep: its body stays truncated."""
        for side, tail in tails:
            if type(tail) is str and record[side.body_state] == BodyState.TRUNCATED:
                said = self._reader.read_tail(tail)
                record[side.model_version] = said.model_version
                record[side.input_tokens] = said.input_tokens
                record[side.output_tokens] = said.output_tokens
                record[side.finish_reason] = said.finish_reason

    def _cut_request(self, record: dict[str, Any]) -> None:
        """Hash the request's body, and leave it out unless `record.bodies` keeps it."""
        if record["request_sha256"] is None and not self._redacts:
            data = decoded(record["request_body"], record["request_body_encoding"])
            # The line says no state for the request: one that was cut is shorter.
            if len(data) == record["request_bytes"]:
                record["request_sha256"] = hashlib.sha256(data).hexdigest()
        if self._bodies is not Bodies.FULL:
            record["request_body"] = record["request_body_encoding"] = None

    def _cut_bodies(self, record: dict[str, Any]) -> None:
        """Leave out the answers' bodies, and with `none` what they say."""
        for side in _ALL_SIDES:
            if record[side.backend] is not None:
                record[side.body] = record[side.body_encoding] = None
                record[side.body_state] = str(BodyState.OMITTED)
                if self._bodies is Bodies.NONE:
                    record[side.prediction] = None


def _fill(record: dict[str, Any], side: _Side, read: tuple[str | None, Extract]) -> None:
    """Fill what a leg's body says."""
    sha256, extract = read
    (
        record[side.prediction],
        record[side.model_version],
        record[side.input_tokens],
        record[side.output_tokens],
        record[side.finish_reason],
        reason,
        _,
    ) = extract
    # The worker knows that the bytes came to their end, not that the answer in them did.
    if reason is not None and reason in ENDED_EARLY:
        record[side.stream_complete] = False
    if record[side.sha256] is None:
        record[side.sha256] = sha256
    if (
        record[side.ttft_ms] is None
        and record[side.content_type] != "application/json"
        and sse.is_stream(record[side.content_type])
    ):
        record[side.ttft_ms] = record[side.ttfb_ms]
