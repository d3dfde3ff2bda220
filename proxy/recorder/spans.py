"""From pair records to OpenTelemetry spans: what a span says, and its ids. No I/O.

An exchange is one server span, each of its legs a client span below it. Their ids are those that the
worker told the backends (`proxy.wire.trace_context`), so that the backends' own spans hang below ours,
and ours below the client's. Names follow OpenTelemetry's semantic conventions for HTTP; what only
Understudy knows is called `understudy.*`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

from proxy.config.resolved import FULL_BP, Config, Endpoint, Otlp
from proxy.pairs.record import SIDES
from proxy.wire.trace_context import CANDIDATE, PRIMARY, REPLICATE, leg_span_id

Attribute = str | int | float | bool

#: Exchanges remembered, so that one with several candidates has one server span. Their pairs come
#: one after the other in a journal; so many journals may be read in turn.
_MAX_KNOWN: Final = 1024
#: From here on an answer is an error for whoever asked, and for whoever was asked.
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
#: Legs that never were a call.
_NO_CALLS: Final = frozenset({None, "shed", "not_sent"})
#: Of a trace id, what a sample is taken by: 56 bits, which W3C's level 2 wants to be random.
_SAMPLED_BY: Final = slice(-14, None)
_RANDOM_BITS: Final = 56


#: What spans need of a record.
_NEEDED: Final = (
    "trace_id", "span_id", "parent_span_id", "method", "path", "route", "candidate", "mode",
    "experiment_id", "config_version", "served_by", "rescued", "request_id", "request_bytes", "equal",
    *(
        f"{side}_{name}"
        for side in SIDES
        for name in (
            "status", "http_status", "backend", "dispatch_delay_ms", "latency_ms", "response_bytes",
        )
    ),
)  # fmt: skip
_needed: Final[Callable[[Mapping[str, Any]], tuple[Any, ...]]] = itemgetter(*_NEEDED)


class SpanKind(Enum):
    """Which side of a call a span is."""

    SERVER = "server"
    CLIENT = "client"


class SpanDrop(StrEnum):
    """Why a span that was due has not been exported."""

    QUEUE_FULL = "queue_full"
    NOT_TAKEN = "not_taken"
    NOT_MADE = "not_made"


@dataclass(slots=True)
class SpanDraft:
    """A span, in plain values.

    Attributes:
        parent_id: 0 for the root of a trace.
        start_ns, end_ns: wall clock.
        error: what `error.type` says; empty for none.
    """

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    error: str = ""


class Extract(NamedTuple):
    """What is kept of a record until its spans are made.

    Attributes:
        values: of the fields that spans need.
        ts_us: when the request's head was complete, wall clock.
        number: the candidate's place in its route.
    """

    values: tuple[Any, ...]
    ts_us: int
    number: int

    @classmethod
    def of(cls, record: Mapping[str, Any], ts_us: int, number: int) -> Extract:
        """Return what is needed of a whole record."""
        return cls(_needed(record), ts_us, number)

    def record(self) -> dict[str, Any]:
        """Return the record's fields by name."""
        return dict(zip(_NEEDED, self.values, strict=True))

    def spans_at_most(self) -> int:
        """Return how many spans it gives; less when its exchange has told some of them before."""
        record = self.record()
        return 1 + sum(record[f"{side}_status"] not in _NO_CALLS for side in SIDES)


class SpanSink(Protocol):
    """Where the recorder puts records for their spans; nothing of it ever waits."""

    def offer(self, record: Mapping[str, Any], ts_us: int, number: int) -> None:
        """Take a record; `number` is the candidate's place in its route."""
        ...

    def statistics(self) -> tuple[int, dict[str, int]]:
        """Return how many spans were exported, and how many were dropped, by reason."""
        ...

    def close(self) -> None:
        """Send what can be sent at once, and end."""
        ...


class Sampler:
    """Says which records' spans are exported: those of sampled traces, and a share of the others."""

    def __init__(self, otlp: Otlp) -> None:
        self._below = (otlp.sample_bp << _RANDOM_BITS) // FULL_BP

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Tell whether this record's spans are wanted; the same trace, the same answer everywhere."""
        if record["span_id"] is None:
            return False  # of a worker that did not know spans yet
        if record["trace_sampled"]:
            return True
        return bool(self._below) and int(record["trace_id"][_SAMPLED_BY], 16) < self._below


class SpanMaker:
    """Makes the spans of records."""

    def __init__(self, config: Config) -> None:
        # Which of several addresses a leg went to is not in the record.
        self._addresses = {
            name: backend.endpoints[0]
            for name, backend in config.backends.items()
            if len(backend.endpoints) == 1
        }
        self._known: OrderedDict[str, None] = OrderedDict()

    def spans(self, extract: Extract) -> list[SpanDraft]:
        """Return the spans of a record; those of its exchange only with the first of its records.

        Raises:
            TypeError, ValueError: it is not what a worker writes.
        """
        record, ts_ns = extract.record(), extract.ts_us * 1000
        exchange_id = int(record["span_id"], 16)
        legs = {"candidate": CANDIDATE + extract.number}
        made = []
        if not self._is_known(record["span_id"]):
            legs |= {"primary": PRIMARY, "replicate": REPLICATE}
            made.append(_server_span(record, exchange_id, ts_ns))
        for side, leg in legs.items():
            if record[f"{side}_status"] not in _NO_CALLS:
                ids = exchange_id, leg_span_id(exchange_id, leg)
                span = _client_span(record, side, ids, ts_ns)
                address = self._addresses.get(record[f"{side}_backend"])
                if address is not None:
                    span.attributes |= _address(address)
                made.append(span)
        return made

    def _is_known(self, exchange: str) -> bool:
        if exchange in self._known:
            return True
        self._known[exchange] = None
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return False


def _address(endpoint: Endpoint) -> dict[str, Attribute]:
    """Return the attributes of where a backend is reached; a Unix socket has no port."""
    if endpoint.socket_path:
        return {"server.address": endpoint.socket_path}
    return {"server.address": endpoint.host, "server.port": endpoint.port}


def _server_span(record: Mapping[str, Any], span_id: int, start_ns: int) -> SpanDraft:
    """Return the span of the exchange: from the request's head to the end of the user's answer."""
    side = record["served_by"]
    status = record[f"{side}_http_status"]
    attributes = _common(record) | {
        "understudy.served_by": side,
        "understudy.rescued": record["rescued"],
        "understudy.request_id": record["request_id"],
        "http.request.body.size": record["request_bytes"],
    }
    error = _answered(record, side, attributes, error_from=_SERVER_ERROR)
    if status is None and not error:
        error = "_OTHER"
    return SpanDraft(
        name=f"{record['method']} {record['route']}",
        kind=SpanKind.SERVER,
        trace_id=int(record["trace_id"], 16),
        span_id=span_id,
        parent_id=int(record["parent_span_id"] or "0", 16),
        start_ns=start_ns,
        end_ns=max(start_ns, _end_ns(record, side, start_ns)),
        attributes=attributes,
        error=error,
    )


def _client_span(
    record: Mapping[str, Any], side: str, ids: tuple[int, int], ts_ns: int
) -> SpanDraft:
    """Return the span of a leg; `ids` are the exchange's and its own."""
    start_ns = _start_ns(record, side, ts_ns)
    attributes = _common(record) | {
        "understudy.backend": record[f"{side}_backend"],
        "understudy.leg": side,
    }
    if side == "candidate":
        attributes["understudy.candidate"] = record["candidate"]
        if record["equal"] is not None:
            attributes["understudy.equal"] = record["equal"]
    error = _answered(record, side, attributes, error_from=_CLIENT_ERROR)
    return SpanDraft(
        name=f"{record['method']} {record[f'{side}_backend']}",
        kind=SpanKind.CLIENT,
        trace_id=int(record["trace_id"], 16),
        span_id=ids[1],
        parent_id=ids[0],
        start_ns=start_ns,
        end_ns=max(start_ns, _end_ns(record, side, ts_ns)),
        attributes=attributes,
        error=error,
    )


def _common(record: Mapping[str, Any]) -> dict[str, Attribute]:
    return {
        "http.request.method": record["method"],
        "url.path": record["path"],
        "understudy.route": record["route"],
        "understudy.mode": record["mode"],
        "understudy.experiment_id": record["experiment_id"],
        "understudy.config_version": record["config_version"],
    }


def _answered(
    record: Mapping[str, Any], side: str, attributes: dict[str, Attribute], *, error_from: int
) -> str:
    """Add what is known of an answer to `attributes`; return the error's type, or nothing."""
    status, outcome = record[f"{side}_http_status"], record[f"{side}_status"]
    error = ""
    if status is not None:
        attributes["http.response.status_code"] = status
        error = str(status) if status >= error_from else ""
    if record[f"{side}_response_bytes"] is not None:
        attributes["http.response.body.size"] = record[f"{side}_response_bytes"]
    if outcome not in ("ok", "http_error"):
        error = str(outcome)
    if error:
        attributes["error.type"] = error
    return error


def _start_ns(record: Mapping[str, Any], side: str, ts_ns: int) -> int:
    """Return when a leg was sent; one that had no connection yet began with the exchange."""
    delay_ms = record[f"{side}_dispatch_delay_ms"]
    return ts_ns if delay_ms is None else ts_ns + int(delay_ms * 1e6)


def _end_ns(record: Mapping[str, Any], side: str, ts_ns: int) -> int:
    latency_ms = record[f"{side}_latency_ms"]
    return _start_ns(record, side, ts_ns) + int((latency_ms or 0.0) * 1e6)
