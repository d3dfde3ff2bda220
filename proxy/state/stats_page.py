"""The stats pages: one mmap of u64 counters per worker, written by that worker alone.

A worker adds to its counters with plain stores (~60 ns) and never talks to anyone about them;
control reads all pages when somebody asks. The page outlives the worker: its successor takes over
the same counters, so totals only grow, and what a killed worker had in memory shows as the
difference between what was decided and what was journaled (see `proxy.state.takeover`).

`Layout` names every cell. It follows from the config alone, so writer and reader agree without
talking; its hash is in the file's name.

The header, which is the same in every layout, says how many pairs the worker has counted into each of
its latest journal segments. Number and count are one word, stored at once: whenever the worker is
killed, they tell whether the flush that was under way has been counted (see `proxy.state.takeover`),
and later what a damaged segment held (see `segment_pairs`).
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from proxy.config.resolved import Config
from proxy.errors import StateError

#: Segments of which the header knows the pairs: more than `limits.journal_disk` holds by default.
SEGMENTS = 256
_SEGMENTS_AT = 8
HEADER_WORDS = _SEGMENTS_AT + SEGMENTS
MAGIC = int.from_bytes(b"USSTAT02", "little")
#: Bits of a segment's word that hold its pairs; its number is above them.
_PAIRS_BITS = 32
_PAIRS_MASK = (1 << _PAIRS_BITS) - 1

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
    return [*_of_clients(), *_of_routes(config), *_of_backends(config), *_of_the_worker()]


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


def _of_routes(config: Config) -> list[Family]:
    routes = tuple((route.name,) for route in config.routes)
    pairs = tuple((r.name, c.name) for r in config.routes for c in r.candidates)
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


def _of_backends(config: Config) -> list[Family]:
    label, backends = ("backend",), tuple((name,) for name in config.backends)
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
        (name, str(endpoint)) for name, b in config.backends.items() for endpoint in b.endpoints
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


class Layout:
    """Where each counter lives: `index(name, *labels)` is a cell of `StatsPage.cells`."""

    def __init__(self, config: Config) -> None:
        self.families = families(config)
        keys = [(f.name, *values) for f in self.families for values in f.values]
        self._index = {key: number for number, key in enumerate(keys)}
        joined = "\n".join((str(HEADER_WORDS), *("\t".join(key) for key in keys))).encode()
        self.fingerprint = hashlib.blake2b(joined, digest_size=6).hexdigest()
        self.size = len(keys)

    def index(self, name: str, *labels: str) -> int:
        """Return the cell of one counter.

        Raises:
            KeyError: there is no such counter in this layout.
        """
        return self._index[(name, *labels)]

    def items(self) -> Iterator[tuple[Family, tuple[str, ...], int]]:
        """Yield each family, label values and cell, in order."""
        for family in self.families:
            for values in family.values:
                yield family, values, self._index[(family.name, *values)]


class StatsPage:
    """A worker's counters; `cells[i]` is a plain unsigned 64-bit integer."""

    def __init__(self, layout: Layout, mapping: mmap.mmap) -> None:
        self.layout = layout
        self._mapping = mapping
        self._words = memoryview(mapping).cast("Q")
        self.cells = self._words[HEADER_WORDS : HEADER_WORDS + layout.size]

    def get(self, name: str, *labels: str) -> int:
        """Return one counter."""
        return self.cells[self.layout.index(name, *labels)]

    def add(self, amount: int, name: str, *labels: str) -> None:
        """Add to one counter; off the hot path, where the index is not kept."""
        self.cells[self.layout.index(name, *labels)] += amount

    def beat(self, *, pid: int, now_ms: int) -> None:
        """Say that the worker `pid` serves and was alive at `now_ms` (wall clock); once a second."""
        self._words[1] = pid
        self._words[2] = now_ms

    def heartbeat(self) -> tuple[int, int]:
        """Return who beat last (process id) and when (wall clock, ms); zeros if nobody did."""
        return self._words[1], self._words[2]

    @property
    def is_open(self) -> bool:
        """Tell whether a worker counts here, or died doing so and nobody has taken over."""
        return bool(self._words[3])

    def open_books(self) -> None:
        """Say that a worker counts here from now on."""
        self._words[3] = 1

    def close_books(self) -> None:
        """Say that all that was decided here is settled."""
        self._words[3] = 0

    def count_segment(self, number: int, pairs: int) -> None:
        """Count `pairs` more into the journal's segment `number`; one store, so never half."""
        at = _SEGMENTS_AT + number % SEGMENTS
        word = self._words[at]
        known = word if word >> _PAIRS_BITS == number else number << _PAIRS_BITS
        self._words[at] = known + pairs

    def segments(self) -> dict[int, int]:
        """Return the pairs counted into each segment that the header still knows."""
        return _segments(self._words[_SEGMENTS_AT:HEADER_WORDS])

    def close(self) -> None:
        """Unmap the page."""
        self.cells.release()
        self._words.release()
        self._mapping.close()


def page_path(state_dir: Path, worker: int, layout: Layout) -> Path:
    """Return where the page of a worker is kept."""
    return state_dir / "stats" / f"worker-{worker}.{layout.fingerprint}.page"


def open_stats(state_dir: Path, worker: int, layout: Layout, *, create: bool) -> StatsPage:
    """Map a worker's page; the worker passes `create`, readers do not.

    Raises:
        StateError: it is missing or cannot be mapped.
    """
    path = page_path(state_dir, worker, layout)
    size = 8 * (HEADER_WORDS + layout.size)
    try:
        if create:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        try:
            missing = size - os.fstat(descriptor).st_size
            if missing > 0:
                if not create:
                    raise StateError(f"{path} is too short; its worker has not started yet")
                # Written, not ftruncated: a store into a hole on a full disk would be a SIGBUS.
                if os.pwrite(descriptor, bytes(missing), size - missing) < missing:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            mapping = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot open {path}: {exc.strerror}") from exc
    page = StatsPage(layout, mapping)
    if create:
        memoryview(mapping).cast("Q")[0] = MAGIC
    return page


def segment_pairs(state_dir: Path, worker: int, number: int) -> int | None:
    """Return how many pairs a worker counted into a journal segment; None when no page knows it.

    Pages of every layout are looked at: which one a worker counted on follows from the config of then.
    """
    for path in (state_dir / "stats").glob(f"worker-{worker}.*.page"):
        try:
            with path.open("rb") as file:
                header = file.read(8 * HEADER_WORDS)
        except OSError:
            continue
        if len(header) == 8 * HEADER_WORDS and header[:8] == MAGIC.to_bytes(8, "little"):
            found = _segments(memoryview(header).cast("Q")[_SEGMENTS_AT:])
            if number in found:
                return found[number]
    return None


def _segments(words: memoryview[int]) -> dict[int, int]:
    return {word >> _PAIRS_BITS: word & _PAIRS_MASK for word in words if word}
