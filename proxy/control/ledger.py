"""The ledger (DESIGN section 4): what came equals what became of it, line by line. Pure.

    requests received = routed + refused by reason
    requests routed   = served by outcome
    mirrors decided   = sent + skipped by reason
    pairs decided     = journaled + lost by reason
    pairs journaled   = acknowledged + retained + dropped by reason
    decisions written = acknowledged + dropped by reason              (with Kafka)

Both sides of a line are counted in different places: requests and pairs by the workers, on pages that
outlive them; what became of the journaled pairs by the recorder, with its durable position; what is
retained by counting the journals' lines. So a line that adds up says something.

While requests are under way a line is open by as many. An instance in which nothing moves has nothing
under way, so there every line must add up exactly; and at any time one that has settled more than
there was has counted something twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from proxy.control.snapshot import Snapshot
from proxy.control.worker_pages import JOURNALED_BEFORE

#: An instance whose books have not moved for this long has nothing under way, if its gauges say so,
#: too: they are written 20 times a second, and the recorder looks for pairs each 0.4 s.
STILL_S = 2.0
#: What says that something is under way.
_GAUGES = ("backend_in_flight", "journal_buffered_bytes", "tunnels_open")
_ROUTED = "requests routed"
_ACKNOWLEDGED = "acknowledged"
_DROPPED = "dropped."


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the ledger: `total` = the sum of `parts` + `open`.

    Attributes:
        open: what is still under way; a negative one means that something was counted twice.
    """

    name: str
    total: int
    parts: dict[str, int]
    open: int


@dataclass(frozen=True, slots=True)
class Imbalance:
    """A line that does not add up.

    Attributes:
        account: its name.
        scope: the route, or the route and candidate, for lines of one; else empty.
        missing: `total` less `settled`; below 0, something was counted twice.
    """

    account: str
    scope: str
    total: int
    settled: int
    missing: int


class Verdict(StrEnum):
    """What the ledger says: all adds up, all may add up once nothing moves, or something does not."""

    BALANCED = "balanced"
    UNDER_WAY = "under_way"
    UNBALANCED = "unbalanced"


def ledger(snapshot: Snapshot) -> list[Account]:
    """Return the lines of the whole instance, from the request to the sink's word."""
    lines = [
        _received(snapshot),
        _routed(snapshot),
        _mirrors(snapshot),
        _pairs(snapshot),
        _journaled(snapshot),
    ]
    return lines if snapshot.config.record.kafka is None else [*lines, _decisions(snapshot)]


def imbalances(snapshot: Snapshot, *, quiet: bool | None = None) -> list[Imbalance]:
    """Return the lines that do not add up, those of each route and candidate among them.

    Args:
        snapshot: of the instance.
        quiet: whether it is known that nothing is under way; None: as `is_quiet` says.
    """
    is_still = is_quiet(snapshot) if quiet is None else quiet
    # A client may be slow with its request, one on a connection; no gauge tells of those.
    waiting = 0 if quiet else snapshot.count("connections_open")
    found = [
        Imbalance(account.name, scope, account.total, account.total - account.open, account.open)
        for scope, account in _lines(snapshot)
        if account.open < 0
        or (is_still and account.open > (waiting if account.name == _ROUTED else 0))
    ]
    journaled = _journaled(snapshot)
    # A flush is in the journal some microseconds before its worker has counted it.
    if is_still and (journaled.open < 0 or (journaled.open and retained(snapshot) is not None)):
        settled = journaled.total - journaled.open
        found.append(Imbalance(journaled.name, "", journaled.total, settled, journaled.open))
    return found


def retained(snapshot: Snapshot) -> int | None:
    """Return the pairs that wait in the journals; None when they are too many to be counted."""
    counts = [journal.retained for journal in snapshot.journals]
    return None if None in counts else sum(count or 0 for count in counts)


def is_quiet(snapshot: Snapshot) -> bool:
    """Return whether nothing is under way, as far as can be seen."""
    if snapshot.unsettled:
        return False  # a worker was killed, and its successor has not settled its books
    if not snapshot.is_running:
        return True
    return (
        snapshot.still_s >= STILL_S
        and snapshot.beating == snapshot.config.workers
        and not any(snapshot.count(gauge) for gauge in _GAUGES)
    )


def verdict(snapshot: Snapshot) -> Verdict:
    """Return what the ledger says at this moment."""
    if imbalances(snapshot):
        return Verdict.UNBALANCED
    is_open = any(account.open for account in ledger(snapshot))
    return Verdict.UNDER_WAY if is_open or snapshot.unsettled else Verdict.BALANCED


def _lines(snapshot: Snapshot) -> Iterator[tuple[str, Account]]:
    """Yield every line but the last, each with its scope; sums alone could hide two faults."""
    yield "", _received(snapshot)
    for route in snapshot.config.routes:
        yield route.name, _routed(snapshot, route.name)
        for candidate in route.candidates:
            names = (route.name, candidate.name)
            yield "/".join(names), _mirrors(snapshot, *names)
            yield "/".join(names), _pairs(snapshot, *names)


def _received(snapshot: Snapshot) -> Account:
    refused = _by_reason(snapshot, "refused ", "unrouted")
    parts = {"routed": snapshot.count("routed"), **refused}
    return _account("requests received", snapshot.count("received"), parts)


def _routed(snapshot: Snapshot, *names: str) -> Account:
    parts = snapshot.by_last_label("served", *names)
    return _account(_ROUTED, snapshot.count("routed", *names), parts)


def _mirrors(snapshot: Snapshot, *names: str) -> Account:
    skipped = _by_reason(snapshot, "skipped ", "mirror_skipped", *names)
    parts = {"sent": snapshot.count("mirror_sent", *names), **skipped}
    return _account("mirrors decided", snapshot.count("mirror_decided", *names), parts)


def _pairs(snapshot: Snapshot, *names: str) -> Account:
    lost = _by_reason(snapshot, "lost ", "pairs_lost", *names)
    parts = {"journaled": snapshot.count("pairs_journaled", *names), **lost}
    return _account("pairs decided", snapshot.count("pairs_decided", *names), parts)


def _journaled(snapshot: Snapshot) -> Account:
    """Return the line of the journals; what older configs journaled is in them, too."""
    total = snapshot.count("pairs_journaled") + snapshot.counters.get(JOURNALED_BEFORE, 0)
    parts: Counter[str] = Counter({_ACKNOWLEDGED: 0})
    for journal in snapshot.journals:
        parts[_ACKNOWLEDGED] += journal.accounts.get(_ACKNOWLEDGED, 0)
        for key, count in journal.accounts.items():
            if key.startswith(_DROPPED) and count:
                parts[f"dropped {key.removeprefix(_DROPPED)}"] += count
        if journal.journal_full:
            parts["dropped journal_full"] += journal.journal_full
    if waiting := retained(snapshot):
        parts["retained"] = waiting
    return _account("pairs journaled", total, dict(parts))


def _decisions(snapshot: Snapshot) -> Account:
    told = snapshot.decisions
    parts = {_ACKNOWLEDGED: told.get("acknowledged", 0)}
    parts |= {f"dropped {reason}": count for reason, count in told.get("dropped", {}).items()}
    return _account("decisions written", told.get("written", 0), parts)


def _account(name: str, total: int, parts: dict[str, int]) -> Account:
    return Account(name, total, parts, total - sum(parts.values()))


def _by_reason(snapshot: Snapshot, prefix: str, *key: str) -> dict[str, int]:
    found = snapshot.by_last_label(*key)
    return {prefix + reason: count for reason, count in found.items()}
