"""What workers count: every family of counters of a stats page, with its labels and their words.

Where the counters lie, and how they are read and outlive a worker, is `proxy.state.stats_file`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy.config.resolved import Backend, Config, Route

#: What is kept of a page that is begun anew: the recorder has these pairs in its books.
JOURNALED_BEFORE = "pairs_journaled_before"

#: The notes of guards to control, and to their successors: no counter.
GUARD_NOTE = "guard_note"

#: Upper bounds of the latency histograms, microseconds; the last cell has no bound.
LATENCY_BOUNDS_US = (
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000,
    250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
)  # fmt: skip


class Outcome(StrEnum):
    """How a leg ended: the `status` of the record (DESIGN section 5)."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    RESET = "reset"
    CANCELLED = "cancelled"
    SHED = "shed"
    NOT_SENT = "not_sent"


#: For hot paths: a look at an `Enum`'s member by its name runs Python code.
OK: Final = Outcome.OK
HTTP_ERROR: Final = Outcome.HTTP_ERROR
NOT_SENT: Final = Outcome.NOT_SENT


class Skip(StrEnum):
    """Why a mirror that was decided was not sent."""

    BODY_TOO_LARGE = "body_too_large"
    IN_FLIGHT = "in_flight"
    MEMORY = "memory"
    CLIENT_GONE = "client_gone"
    NOT_WHOLE = "not_whole"
    KILLED = "killed"
    CONNECT = "connect"
    SHUTDOWN = "shutdown"
    BREAKER_OPEN = "breaker_open"
    RATE = "rate"
    OVERLOAD = "overload"
    WORKER_DIED = "worker_died"


class Kept(StrEnum):
    """Why a request to a candidate names the model that the user named, not the candidate's own."""

    NOT_JSON = "not_json"
    TOO_LARGE = "too_large"
    NO_MODEL = "no_model"
    NO_PLACE = "no_place"


class Lost(StrEnum):
    """Why a pair that was decided is not in the journal."""

    WORKER_DIED = "worker_died"
    JOURNAL_ERROR = "journal_error"
    JOURNAL_FULL = "journal_full"
    KILLED = "killed"
    OVERLOAD = "overload"


class Note(StrEnum):
    """What a guard leaves for control, and for its successor, when it has taken a candidate out.

    `mark` is written last: one more than the `CandidateState.revivals` that it goes by; 0: nothing.
    """

    FAILED = "failed"
    SLOW = "slow"
    CALLS = "calls"
    SPAN_US = "span_us"
    AT_MS = "at_ms"
    MARK = "mark"


class Reject(StrEnum):
    """Why a request was answered by the proxy itself."""

    BAD_REQUEST = "bad_request"
    HEAD_TOO_LARGE = "head_too_large"
    URI_TOO_LONG = "uri_too_long"
    BODY_TOO_LARGE = "body_too_large"
    TIMEOUT = "timeout"
    NO_ROUTE = "no_route"
    LOOP = "loop"
    UNSUPPORTED = "unsupported"


#: Why a request that came has no route: it was refused, or its worker died while it looked.
UNROUTED = (*map(str, Reject), "worker_died")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: a name, label names, the label values in order, and whether it only grows.

    Attributes:
        is_worst: what several workers say is not added up; the highest holds.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    is_gauge: bool = False
    is_worst: bool = False


def families(config: Config) -> list[Family]:
    """Return every counter family of a worker that runs `config`, in the order of the cells."""
    return [
        *_of_clients(),
        *_of_routes(config.routes),
        *_of_backends(config.backends),
        *_of_the_worker(),
    ]


def _of_clients() -> list[Family]:
    reasons = tuple((str(reason),) for reason in Reject)
    return [
        _total("connections", "Client connections accepted."),
        _gauge("connections_open", "Client connections open now."),
        _total("connections_refused", "Client connections answered 503: there were too many."),
        _total("connections_expired", "Client connections ended by a deadline."),
        _total("connections_dropped", "Client connections ended to make room for others."),
        _total("received", "Requests whose head was read, or refused before it was whole."),
        Family("rejected", "Requests answered by the proxy itself.", ("reason",), reasons),
        Family(
            "unrouted",
            "Requests refused before a route took them.",
            ("reason",),
            tuple((reason,) for reason in UNROUTED),
        ),
    ]


def _of_routes(configured: Sequence[Route]) -> list[Family]:
    routes = tuple((route.name,) for route in configured)
    pairs = tuple((r.name, c.name) for r in configured for c in r.candidates)
    legs = (*((name, "primary") for (name,) in routes), *pairs)
    candidate = ("route", "candidate")
    leg = ("route", "leg")

    def each(keys: Sequence[tuple[str, ...]], names: type[StrEnum]) -> tuple[tuple[str, ...], ...]:
        return tuple((*key, str(name)) for key in keys for name in names)

    return [
        Family("routed", "Requests that a route took.", ("route",), routes),
        Family("served", "Requests ended, by outcome.", ("route", "outcome"), each(routes, Outcome)),
        Family("in_flight", "Requests under way.", ("route",), routes, is_gauge=True),
        Family("tunnels_open", "Tunnels (Upgrade) open now.", ("route",), routes, is_gauge=True),
        Family("request_bytes", "Bytes of request bodies received.", ("route",), routes),
        Family("response_bytes", "Bytes of bodies of the answers that users got.", ("route",), routes),
        Family("canary", "Requests a candidate served.", candidate, pairs),
        Family("rescued", "Canary failures the primary made good.", candidate, pairs),
        Family("guard_failed", "Live calls of a candidate that its guard counted as failed.",
               candidate, pairs),
        Family("guard_slow", "Live calls of a candidate that its guard counted as too slow.",
               candidate, pairs),
        Family("guard_ejections", "Times that a worker's guard took a candidate out of live traffic.",
               candidate, pairs),
        Family("guard_latency_us", "Time to first byte above which a call is too slow, of any worker.",
               candidate, pairs, is_gauge=True, is_worst=True),
        Family(GUARD_NOTE, "What a worker's guard has found.", (*candidate, "what"), each(pairs, Note)),
        Family("mirror_decided", "Mirrors decided.", candidate, pairs),
        Family("mirror_sent", "Mirrors sent.", candidate, pairs),
        Family("mirror_skipped", "Mirrors not sent.", (*candidate, "reason"), each(pairs, Skip)),
        Family("breaker", "Breaker of the copies: 0 closed, 1 half-open, 2 open, of any worker.",
               candidate, pairs, is_gauge=True, is_worst=True),
        Family("model_kept", "Requests to a candidate that keep the model's name they came with.",
               (*candidate, "reason"), each(pairs, Kept)),
        Family("leg", "Candidate legs ended, by status.", (*candidate, "status"),
               each(pairs, Outcome)),
        Family("pairs_decided", "Pairs that must be recorded.", candidate, pairs),
        Family("pairs_journaled", "Pairs written to the journal.", candidate, pairs),
        Family("pairs_lost", "Pairs not journaled.", (*candidate, "reason"), each(pairs, Lost)),
        Family("pairs_flushing", "What pairs_journaled will be when the flush under way has succeeded.",
               candidate, pairs),
        *_histogram("latency", "Leg latency", leg, legs),
        *_histogram("ttfb", "Time to the first byte of a leg's answer", leg, legs),
    ]  # fmt: skip


def _of_backends(configured: Mapping[str, Backend]) -> list[Family]:
    label, backends = ("backend",), tuple((name,) for name in configured)
    gauges = {
        "in_flight": "Legs under way.",
        "connections_idle": "Connections that wait for a leg.",
        "connections_opening": "Connections being opened.",
        "members": "Addresses that a backend has.",
        "members_serving": "Addresses of a backend that get calls.",
    }
    counters = {
        "connections_opened": "Connections opened.",
        "connections_reused": "Legs that found an idle connection.",
        "connect_failures": "Attempts to connect that failed.",
        "retries": "Legs begun again on a new connection.",
        "ejections": "Addresses taken out because their calls failed.",
    }
    endpoints = tuple(
        (name, str(endpoint)) for name, b in configured.items() for endpoint in b.endpoints
    )
    return [
        Family("endpoint_left_out", "Workers that leave the endpoint alone.", ("backend", "endpoint"),
               endpoints, is_gauge=True),
        *(Family(f"backend_{n}", h, label, backends, is_gauge=True) for n, h in gauges.items()),
        *(Family(f"backend_{n}", h, label, backends) for n, h in counters.items()),
    ]  # fmt: skip


def _of_the_worker() -> list[Family]:
    return [
        _total("journal_bytes", "Compressed bytes appended to the journal."),
        _total(
            "journal_torn_bytes",
            "Bytes cut off the journal at a start: half written by a dead worker.",
        ),
        _total("journal_syncs", "Segments of the journal synced to disk."),
        _total("journal_sync_errors", "Segments of the journal that could not be synced."),
        _gauge("journal_buffered_bytes", "Bytes of pairs that are not in the journal yet."),
        _gauge("captured_bytes", "Body bytes held for mirrors and pairs."),
        _gauge("workers_shedding", "Workers that are overloaded and make no copies now."),
        _total("sheddings", "Times that a worker was overloaded and began to make no copies."),
        _total(JOURNALED_BEFORE, "Pairs written to the journal before the page was begun anew."),
        _total("access_log_lines", "Lines of the access log written."),
        _total("access_log_dropped", "Lines of the access log given up: nobody took them in time."),
        *_histogram("loop_lag", "How late a worker's event loop was", (), ((),)),
    ]


def _total(name: str, text: str) -> Family:
    return Family(name, text, (), ((),))


def _gauge(name: str, text: str) -> Family:
    return Family(name, text, (), ((),), is_gauge=True)


def _histogram(
    name: str, text: str, labels: tuple[str, ...], values: tuple[tuple[str, ...], ...]
) -> tuple[Family, Family]:
    """Return the families `<name>_us` and `<name>_sum_us` of a histogram over `LATENCY_BOUNDS_US`."""
    bounds = [str(bound) for bound in LATENCY_BOUNDS_US] + ["+Inf"]
    cells = tuple((*value, bound) for value in values for bound in bounds)
    return (
        Family(f"{name}_us", f"{text}: histogram cells.", (*labels, "le_us"), cells),
        Family(f"{name}_sum_us", f"{text}: sum, microseconds.", labels, values),
    )


#: Every family by its name, without labels: what a counter is, whoever wrote it.
KINDS: Final = {
    family.name: family
    for family in (*_of_clients(), *_of_routes(()), *_of_backends({}), *_of_the_worker())
}
