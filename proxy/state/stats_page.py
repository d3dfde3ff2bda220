"""The stats pages: one mmap of u64 counters per worker, written by that worker alone.

A worker adds to its counters with plain stores (~60 ns) and never talks to anyone about them;
control reads all pages when somebody asks. The page outlives the worker: its successor takes over
the same counters, so totals only grow, and what a killed worker had in memory shows as the
difference between what was decided and what was journaled (see `adopt`).

`Layout` names every cell. It follows from the config alone, so writer and reader agree without
talking; its hash is in the header and in the file's name.
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

from proxy.config.resolved import Config
from proxy.errors import StateError

HEADER_WORDS = 8
MAGIC = int.from_bytes(b"USSTAT01", "little")

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
    routes = [(route.name,) for route in config.routes]
    pairs = [(r.name, c.name) for r in config.routes for c in r.candidates]
    backends = [(name,) for name in config.backends]
    reasons = [(str(reason),) for reason in Reject]
    bounds = [str(bound) for bound in LATENCY_BOUNDS_US] + ["+Inf"]

    def each(keys: Sequence[tuple[str, ...]], names: type[StrEnum]) -> tuple[tuple[str, ...], ...]:
        return tuple((*key, str(name)) for key in keys for name in names)

    legs = [(name, "primary") for (name,) in routes] + pairs
    return [
        Family("connections", "Client connections accepted.", (), ((),)),
        Family("connections_open", "Client connections open now.", (), ((),), is_gauge=True),
        Family("received", "Requests whose head was parsed.", (), ((),)),
        Family("rejected", "Requests answered by the proxy itself.", ("reason",), tuple(reasons)),
        Family("routed", "Requests that a route took.", ("route",), tuple(routes)),
        Family("served", "Requests ended, by outcome.", ("route", "outcome"), each(routes, Outcome)),
        Family("in_flight", "Requests under way.", ("route",), tuple(routes), is_gauge=True),
        Family("canary", "Requests a candidate served.", ("route", "candidate"), tuple(pairs)),
        Family("rescued", "Canary failures the primary made good.", ("route", "candidate"),
               tuple(pairs)),
        Family("mirror_decided", "Mirrors decided.", ("route", "candidate"), tuple(pairs)),
        Family("mirror_sent", "Mirrors sent.", ("route", "candidate"), tuple(pairs)),
        Family("mirror_skipped", "Mirrors not sent.", ("route", "candidate", "reason"),
               each(pairs, Skip)),
        Family("breaker", "Breaker of the copies: 0 closed, 1 half-open, 2 open, of any worker.",
               ("route", "candidate"), tuple(pairs), is_gauge=True, is_worst=True),
        Family("model_kept", "Requests to a candidate that keep the model's name they came with.",
               ("route", "candidate", "reason"), each(pairs, Kept)),
        Family("leg", "Candidate legs ended, by status.", ("route", "candidate", "status"),
               each(pairs, Outcome)),
        Family("pairs_decided", "Pairs that must be recorded.", ("route", "candidate"),
               tuple(pairs)),
        Family("pairs_journaled", "Pairs written to the journal.", ("route", "candidate"),
               tuple(pairs)),
        Family("pairs_lost", "Pairs not journaled.", ("route", "candidate", "reason"),
               each(pairs, Lost)),
        Family("latency_us", "Leg latency histogram cells.", ("route", "leg", "le_us"),
               tuple((*leg, bound) for leg in legs for bound in bounds)),
        Family("latency_sum_us", "Sum of leg latencies, microseconds.", ("route", "leg"),
               tuple(legs)),
        Family("backend_in_flight", "Legs under way.", ("backend",), tuple(backends),
               is_gauge=True),
        Family("journal_bytes", "Compressed bytes appended to the journal.", (), ((),)),
        Family("captured_bytes", "Body bytes held for mirrors and pairs.", (), ((),),
               is_gauge=True),
        Family("journal_next_seq", "The next record's sequence number.", (), ((),)),
    ]  # fmt: skip


class Layout:
    """Where each counter lives: `index(name, *labels)` is a cell of `StatsPage.cells`."""

    def __init__(self, config: Config) -> None:
        self.families = families(config)
        keys = [(f.name, *values) for f in self.families for values in f.values]
        self._index = {key: number for number, key in enumerate(keys)}
        joined = "\n".join("\t".join(key) for key in keys).encode()
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


def adopt(page: StatsPage) -> int:
    """Take over a dead worker's page: settle what it had in flight; return the pairs lost.

    A pair that was decided and neither journaled nor lost was in the dead worker's memory: it is
    counted as lost to `worker_died`. A request that was routed and not served ended `reset`.
    Gauges start from zero.
    """
    lost = 0
    for family, values, cell in page.layout.items():
        if family.is_gauge:
            page.cells[cell] = 0
        elif family.name == "routed":
            ended = sum(page.get("served", *values, str(o)) for o in Outcome)
            page.add(page.cells[cell] - ended, "served", *values, str(Outcome.RESET))
        elif family.name == "pairs_decided":
            settled = page.get("pairs_journaled", *values)
            settled += sum(page.get("pairs_lost", *values, str(reason)) for reason in Lost)
            missing = page.cells[cell] - settled
            page.add(missing, "pairs_lost", *values, str(Lost.WORKER_DIED))
            lost += missing
        elif family.name == "mirror_decided":
            settled = page.get("mirror_sent", *values)
            settled += sum(page.get("mirror_skipped", *values, str(reason)) for reason in Skip)
            missing = page.cells[cell] - settled
            page.add(missing, "mirror_skipped", *values, str(Skip.SHUTDOWN))
    return lost
